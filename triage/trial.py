"""`triage models try`: a model on one study, outside the queue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydicom import dcmread

from triage.core.analysis import Analysis
from triage.core.manifest import ModelManifest
from triage.core.studies import Study
from triage.models import try_model
from triage.models.code import code_in
from triage.models.packages import ModelPackage
from triage.models.previews import write_previews
from triage.results.build import build_results, needs_probabilities, number_segments
from triage.settings import Settings

_BRAIN_WINDOW = (40.0, 80.0)  # centre and width in HU


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trial left, and the same in words."""

    analysis: Analysis
    lines: tuple[str, ...]


def try_on_study(
    package: ModelPackage, study: Study, destination: Path, settings: Settings
) -> Trial:
    """Analyse a study and write findings, DICOM objects and pictures into `destination`.

    Raises:
        InputRefusedError: the model accepts no series of the study.
        AnalysisFailedError: the model could not be run.
    """
    manifest = package.manifest
    tried = try_model.try_on_study(
        package,
        study,
        worker=settings.worker,
        sandbox=settings.trust.sandbox,
        keep_probabilities=needs_probabilities(manifest, settings.results),
    )
    analysis = number_segments(tried, manifest)
    destination.mkdir(parents=True, exist_ok=True)
    findings = destination / "findings.json"
    findings.write_text(json.dumps(_as_json(manifest, analysis), indent=2) + "\n", encoding="utf-8")
    objects = _write_objects(manifest, analysis, destination, settings)
    is_ct = "CT" in manifest.accepts.modalities
    pictures = write_previews(
        analysis, manifest, destination, window=_BRAIN_WINDOW if is_ct else None
    )
    said = [finding.in_words() for finding in analysis.findings]
    times = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in analysis.timings_s.items())
    written = [f"written: {path}" for path in (findings, *objects, *pictures)]
    lines = (manifest.identity, *_about_code(package), *said, *analysis.remarks, times, *written)
    return Trial(analysis, lines)


def _about_code(package: ModelPackage) -> Iterator[str]:
    """Say that code of the package was run, which no administrator may have seen."""
    if code := code_in(package):
        yield f"this package holds code, which was run confined to its host ({len(code)} places):"
        yield from (f"  {found.in_words()}" for found in code)


def _as_json(manifest: ModelManifest, analysis: Analysis) -> dict[str, object]:
    return {
        "model": manifest.identity,
        "notice": manifest.notice,
        "input_sha256": analysis.input_sha256,
        "remarks": list(analysis.remarks),
        "timings_s": dict(analysis.timings_s),
        "findings": [finding.model_dump(mode="json") for finding in analysis.findings],
    }


def _write_objects(
    manifest: ModelManifest, analysis: Analysis, destination: Path, settings: Settings
) -> list[Path]:
    source = dcmread(analysis.source_files[0], stop_before_pixels=True)
    built = build_results(
        analysis,
        manifest,
        study_instance_uid=str(source.StudyInstanceUID),
        settings=settings.results,
        produced_at=datetime.now(UTC),
    )
    paths = []
    for each in built:
        number = int(each.dataset.InstanceNumber)
        several = f"-{number}" if number > 1 else ""
        path = destination / f"{each.role}{several}.dcm"
        each.dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
