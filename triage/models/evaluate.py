"""`triage models evaluate`: how well a package's findings agree with a table of labels."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from triage.core.analysis import Analysis, InputRefusedError
from triage.core.studies import Study
from triage.models.engine import analyse
from triage.models.evaluation import EvaluationError, parse_held_out
from triage.models.evaluation_report import figures_of
from triage.models.host import ModelHosts
from triage.models.labelled import LabelledCase, parse_cases, with_groups_of
from triage.models.packages import ModelPackage
from triage.models.sources import Source
from triage.models.try_model import analyse_study, studies_in
from triage.settings import SandboxMode, WorkerSettings

_AT_ONCE = 3  # one image is decoded or interpreted while another is inferred
_SPLIT = Path("recipe") / "split.csv"

Content = Study | Source
"""What a case is: a study, or a single file such as a PNG."""

log = structlog.get_logger()


def evaluate_model(
    package: ModelPackage,
    labels_csv: Path,
    images_folder: Path | None,
    *,
    held_study: Callable[[str], Study | None] = lambda _: None,
    held_out_only: bool = False,
    replicates: int = 2000,
    worker: WorkerSettings | None = None,
    sandbox: SandboxMode = "prefer",
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> dict[str, Any]:
    """Run the package on every labelled case, as a worker would, and compare.

    Args:
        package: the model.
        labels_csv: a table as `parse_cases` reads it.
        images_folder: the cases: files named as in the table or with another suffix, folders of
            that name, or DICOM files anywhere below with that Study Instance UID.
        held_study: gives a study that Triage holds, for cases that are not in the folder.
        held_out_only: only patients that the package's `recipe/split.csv` holds out.
        replicates: draws of the bootstrap.
        worker: where and how models are hosted.
        sandbox: whether their processes are confined.
        on_progress: called with how many cases are done, and of how many.

    Returns:
        Figures as `figures_of` makes them; a case that was refused, or of which there are no
        images, counts under "cases_without_prediction".

    Raises:
        EvaluationError: table, split and images do not fit together.
        AnalysisFailedError: the model could not be run.
    """
    cases = parse_cases(_lines(labels_csv), package.manifest)
    if held_out_only:
        held_out = _held_out(package)
        cases = tuple(case for case in cases if case.patient_id in held_out)
    contents = _contents(cases, images_folder, held_study)
    grouped = [
        with_groups_of(case, content)
        if isinstance(content := contents.get(case.identifier), Study)
        else case
        for case in cases
    ]
    hosts = ModelHosts(worker or WorkerSettings(), sandbox=sandbox)
    predictions = asyncio.run(_predict(package, contents, hosts, on_progress))
    return figures_of(package.manifest, grouped, predictions, replicates=replicates)


def _lines(table: Path) -> list[str]:
    try:
        # Spreadsheets begin their files with a byte order mark.
        return table.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise EvaluationError(f"{table.name} is not UTF-8 text; save the table as CSV.") from None


def _held_out(package: ModelPackage) -> frozenset[str]:
    split = package.path / _SPLIT
    try:
        return parse_held_out(split.read_text(encoding="utf-8").splitlines())
    except FileNotFoundError:
        raise EvaluationError(
            f"{split} is missing: without it nobody can say which patients the model never saw."
        ) from None


def _contents(
    cases: Sequence[LabelledCase],
    folder: Path | None,
    held_study: Callable[[str], Study | None],
) -> dict[str, Content]:
    """Return what each case is, where there is anything of it."""
    found = _in_folder(cases, folder) if folder is not None else {}
    for case in cases:
        if case.identifier not in found:
            study = held_study(case.identifier)
            if study is not None:
                found[case.identifier] = study
    return found


def _in_folder(cases: Sequence[LabelledCase], folder: Path) -> dict[str, Content]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    by_name = {path.name: path for path in files}
    by_stem = {path.stem: path for path in files}
    found: dict[str, Content] = {}
    for case in cases:
        identifier = case.identifier
        path = by_name.get(identifier) or by_stem.get(Path(identifier).stem)
        if path is not None:
            found[identifier] = (identifier, path)
    if len(found) < len(cases):
        studies = {study.study_instance_uid: study for study in studies_in(files)}
        by_folder = _by_folder(studies.values(), folder)
        for case in cases:
            study = studies.get(case.identifier) or by_folder.get(case.identifier)
            if study is not None:
                found[case.identifier] = study
    return found


def _parents(path: Path, folder: Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts[:-1]


def _by_folder(studies: Iterable[Study], folder: Path) -> dict[str, Study]:
    """Return the studies by the names of the folders that hold nothing but them."""
    owners: dict[str, list[Study]] = defaultdict(list)
    for study in studies:
        paths = (Path(i.path) for series in study.series for i in series.instances)
        for name in {name for path in paths for name in _parents(path, folder)}:
            owners[name].append(study)
    return {name: found[0] for name, found in owners.items() if len(found) == 1}


async def _predict(
    package: ModelPackage,
    contents: Mapping[str, Content],
    hosts: ModelHosts,
    on_progress: Callable[[int, int], None],
) -> dict[str, dict[str, float]]:
    predictions: dict[str, dict[str, float]] = {}
    places = asyncio.Semaphore(_AT_ONCE)
    done = 0

    async def predict(identifier: str, content: Content) -> None:
        nonlocal done
        async with places:
            try:
                analysis = await _analyse(hosts, package, content)
                predictions[identifier] = {f.key: f.confidence for f in analysis.findings}
            except InputRefusedError as error:
                log.warning("case refused", case=identifier, reason=str(error))
        done += 1
        on_progress(done, len(contents))

    try:
        async with asyncio.TaskGroup() as group:
            for identifier, content in contents.items():
                group.create_task(predict(identifier, content))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        await asyncio.to_thread(hosts.close)
    return predictions


async def _analyse(hosts: ModelHosts, package: ModelPackage, content: Content) -> Analysis:
    if isinstance(content, Study):
        return await analyse_study(hosts, package, content)
    return await analyse(hosts, package, [content])
