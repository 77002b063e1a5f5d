"""From an analysis to the DICOM objects that its model's manifest asks for."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from io import BytesIO

from pydicom import dcmwrite
from pydicom.dataset import Dataset

from triage.core.analysis import Analysis
from triage.core.manifest import ModelManifest, ResultKind
from triage.results.context import ResultContext, outlined_findings
from triage.results.errors import ResultError
from triage.results.heat_map import build_heat_map
from triage.results.report import build_report
from triage.results.segmentation import build_segmentation
from triage.results.sources import read_sources, use_utf8
from triage.settings import ResultSettings
from triage.store.files import InstanceFiles
from triage.store.outbox import NewResultObject

# highdicom repeats patients' names in a warning and in a log line when they have one component
# only, which is frequent and allowed. Names are never logged.
warnings.filterwarnings("ignore", message="The string .* is unlikely to represent the intended")
logging.getLogger("highdicom.base").addFilter(lambda r: "patient_name" not in r.getMessage())


@dataclass(frozen=True, slots=True)
class BuiltObject:
    """A result object in memory, and what it is: "seg", "sr" or "heat-map"."""

    role: ResultKind
    dataset: Dataset


def build_results(
    analysis: Analysis,
    manifest: ModelManifest,
    *,
    study_instance_uid: str,
    settings: ResultSettings,
    produced_at: datetime,
) -> tuple[BuiltObject, ...]:
    """Return the objects that `manifest.results` asks for, in order of delivery.

    The SEG comes before the SR that refers to it. The SR is always made, because "analysed,
    nothing found" is a result; a heat map only where something is present.
    Series and SOP Instance UIDs depend on study, model, version and input only.

    Raises:
        ResultError: the source images or the analysis cannot be made into objects.
    """
    sources = read_sources(analysis.source_files, study_instance_uid=study_instance_uid)
    if not _is_ascii(analysis, manifest):
        for source in sources:
            use_utf8(source)
    context = ResultContext(
        analysis=analysis,
        manifest=manifest,
        sources=sources,
        study_instance_uid=study_instance_uid,
        settings=settings,
        produced_at=produced_at,
    )
    try:
        return tuple(_build(context))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # What highdicom raises when source attributes are wrong in a way that `repair` does not
        # know; the run fails with a reason instead of the worker.
        raise ResultError(
            f"{manifest.identity}: no results could be made from the source images: {error}"
        ) from error


def _build(context: ResultContext) -> list[BuiltObject]:
    wanted = context.manifest.results.objects
    built: list[BuiltObject] = []
    segmentation = build_segmentation(context) if "seg" in wanted else None
    if segmentation is not None:
        built.append(BuiltObject("seg", segmentation))
    if "sr" in wanted:
        built.append(BuiltObject("sr", build_report(context, segmentation)))
    if "heat-map" in wanted:
        picture = build_heat_map(context)
        if picture is not None:
            built.append(BuiltObject("heat-map", picture))
    return built


def _is_ascii(analysis: Analysis, manifest: ModelManifest) -> bool:
    # Every character set of DICOM holds ASCII; any other text needs one that surely holds it too.
    texts = [manifest.notice, *(f.model_dump_json() for f in analysis.findings)]
    texts += [spec.segment.model_dump_json() for spec in manifest.findings if spec.segment]
    return all(text.isascii() for text in texts)


def number_segments(analysis: Analysis, manifest: ModelManifest) -> Analysis:
    """Return `analysis` with each finding's `segment_number` as the SEG numbers it, or None."""
    numbers = {o.finding.key: o.segment_number for o in outlined_findings(analysis, manifest)}
    findings = tuple(
        finding.model_copy(update={"segment_number": numbers.get(finding.key)})
        for finding in analysis.findings
    )
    return replace(analysis, findings=findings)


def store_results(files: InstanceFiles, objects: Sequence[BuiltObject]) -> list[NewResultObject]:
    """Write the objects durably and return what `triage.store.outbox` needs to index them.

    Raises:
        OSError: the disk refused.
    """
    return [_store(files, built) for built in objects]


def _store(files: InstanceFiles, built: BuiltObject) -> NewResultObject:
    dataset = built.dataset
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    file = files.write(dataset.StudyInstanceUID, dataset.SOPInstanceUID, [buffer.getbuffer()])
    return NewResultObject(
        role=built.role,
        file=file,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        modality=str(dataset.Modality),
        series_number=int(dataset.SeriesNumber),
        series_description=str(dataset.SeriesDescription),
    )
