"""`triage models evaluate`: how well a package's findings agree with a table of labels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import structlog

from triage.core.analysis import InputRefusedError
from triage.core.manifest import ModelManifest
from triage.models.engine import analyse
from triage.models.evaluation import (
    EvaluationError,
    Figure,
    LabelledImage,
    evaluate_predictions,
    parse_held_out,
    parse_labels,
)
from triage.models.host import ModelHosts
from triage.models.packages import ModelPackage
from triage.models.sources import Source
from triage.settings import SandboxMode, WorkerSettings

_AT_ONCE = 3  # one image is decoded or interpreted while another is inferred
_SPLIT = Path("recipe") / "split.csv"

log = structlog.get_logger()


def evaluate_model(
    package: ModelPackage,
    labels_csv: Path,
    images_folder: Path,
    *,
    held_out_only: bool = False,
    positives: Mapping[str, Collection[str]] | None = None,
    replicates: int = 2000,
    worker: WorkerSettings | None = None,
    sandbox: SandboxMode = "prefer",
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Figure]:
    """Run the package on every labelled image, as a worker would, and compare.

    Args:
        package: the model.
        labels_csv: a table with the columns image, finding_labels (separated by |) and patient_id.
        images_folder: PNG or DICOM files, named as in the table or with another suffix.
        held_out_only: only patients that the package's `recipe/split.csv` holds out.
        positives: for each finding key the labels that make an image positive; without it what
            the manifest says under `labels`, or the label that equals the key.
        replicates: draws of the bootstrap.
        worker: where and how models are hosted.
        sandbox: whether their processes are confined.
        on_progress: called with how many images are done, and of how many.

    Returns:
        Figures with 95 % intervals by name, such as "effusion.auc" and "effusion.auc_low"; an
        image that was refused counts under "images_without_prediction".

    Raises:
        EvaluationError: table, split and images do not fit together.
        AnalysisFailedError: the model could not be run.
    """
    labels = parse_labels(labels_csv.read_text(encoding="utf-8").splitlines())
    held_out = _held_out(package) if held_out_only else None
    wanted = [row for row in labels if held_out is None or row.patient_id in held_out]
    sources = _sources(wanted, images_folder)
    hosts = ModelHosts(worker or WorkerSettings(), sandbox=sandbox)
    predictions = asyncio.run(_predict(package, sources, hosts, on_progress))
    manifest = package.manifest
    return evaluate_predictions(
        labels,
        predictions,
        {finding.key: finding.threshold for finding in manifest.findings},
        positives or positives_of(manifest, labels),
        held_out=held_out,
        replicates=replicates,
    )


def positives_of(
    manifest: ModelManifest, labels: Iterable[LabelledImage]
) -> dict[str, tuple[str, ...]]:
    """Return for each finding the labels of the table that make an image positive.

    Raises:
        EvaluationError: the table has no label for any finding.
    """
    known = {name.lower(): name for row in labels for name in row.findings}
    found: dict[str, tuple[str, ...]] = {}
    for finding in manifest.findings:
        names = finding.labels or (finding.key,)
        matching = tuple(known[n.lower()] for n in names if n.lower() in known)
        if matching:
            found[finding.key] = matching
    if not found:
        raise EvaluationError(
            "No finding of the manifest has a label in the table; name them under "
            f"findings.labels. The table has {', '.join(sorted(known.values())) or 'none'}."
        )
    return found


def _held_out(package: ModelPackage) -> frozenset[str]:
    split = package.path / _SPLIT
    try:
        return parse_held_out(split.read_text(encoding="utf-8").splitlines())
    except FileNotFoundError:
        raise EvaluationError(
            f"{split} is missing: without it nobody can say which patients the model never saw."
        ) from None


def _sources(labels: Iterable[LabelledImage], folder: Path) -> dict[str, Source]:
    """Return the file of each labelled image: of the same name, or of the same stem."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    by_name = {path.name: path for path in files}
    by_stem = {path.stem: path for path in files}
    found = {}
    for row in labels:
        path = by_name.get(row.image) or by_stem.get(Path(row.image).stem)
        if path is not None:
            found[row.image] = (row.image, path)
    return found


async def _predict(
    package: ModelPackage,
    sources: Mapping[str, Source],
    hosts: ModelHosts,
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, dict[str, float]]:
    predictions: dict[str, dict[str, float]] = {}
    places = asyncio.Semaphore(_AT_ONCE)
    done = 0

    async def predict(image: str, source: Source) -> None:
        nonlocal done
        async with places:
            try:
                analysis = await analyse(hosts, package, [source])
                predictions[image] = {f.key: f.confidence for f in analysis.findings}
            except InputRefusedError as error:
                log.warning("image refused", image=image, reason=str(error))
        done += 1
        if on_progress is not None:
            on_progress(done, len(sources))

    try:
        async with asyncio.TaskGroup() as group:
            for image, source in sources.items():
                group.create_task(predict(image, source))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        await asyncio.to_thread(hosts.close)
    return predictions
