"""`triage models try`: run a package on a folder of DICOM files as a worker would."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from triage.core.analysis import Analysis, InputRefusedError
from triage.core.routing import select_inputs
from triage.core.studies import (
    IMAGE_HEADER_KEYWORDS,
    Instance,
    Patient,
    Series,
    Study,
    age_in_years,
)
from triage.decoding.functional_groups import frame_headers_of_file, has_functional_groups
from triage.models.engine import analyse
from triage.models.host import ModelHosts
from triage.models.packages import ModelPackage
from triage.settings import SandboxMode, WorkerSettings

_PATIENT = ("PatientBirthDate", "PatientSex", "StudyDate")
_IDENTITY = ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID")


def try_model(
    package: ModelPackage,
    dicom_folder: Path,
    *,
    worker: WorkerSettings | None = None,
    sandbox: SandboxMode = "prefer",
) -> Analysis:
    """Route the study in `dicom_folder` to the model and analyse the series that fits best.

    It takes the way that a received study takes, the model host included, and needs no database.

    Raises:
        InputRefusedError: there is no study, or no series that the model accepts.
        AnalysisFailedError: the model could not be run.
    """
    return try_on_study(package, read_study(dicom_folder), worker=worker, sandbox=sandbox)


def try_on_study(
    package: ModelPackage,
    study: Study,
    *,
    worker: WorkerSettings | None = None,
    sandbox: SandboxMode = "prefer",
    keep_probabilities: bool = False,
) -> Analysis:
    """Do the same with a study whose files are known, such as one that Triage holds.

    With `keep_probabilities` the analysis has its `probabilities`.

    Raises:
        InputRefusedError: the model accepts no series.
        AnalysisFailedError: the model could not be run.
    """
    hosts = ModelHosts(worker or WorkerSettings(), sandbox=sandbox)
    try:
        return asyncio.run(
            analyse_study(hosts, package, study, keep_probabilities=keep_probabilities)
        )
    finally:
        hosts.close()


async def analyse_study(
    hosts: ModelHosts, package: ModelPackage, study: Study, *, keep_probabilities: bool = False
) -> Analysis:
    """Route a study to the model and analyse the series that fits best, in hosts that are warm.

    Raises:
        InputRefusedError: the model accepts no series.
        AnalysisFailedError: the model could not be run.
    """
    selection = select_inputs(study, package.manifest)
    if not selection.chosen:
        raise InputRefusedError(selection.refusal)
    first, *others = (
        (one.name, [(i.sop_instance_uid, Path(i.path)) for i in one.series.instances])
        for one in selection.chosen
    )
    return await analyse(
        hosts, package, first[1], dict(others), keep_probabilities=keep_probabilities
    )


def read_study(path: Path) -> Study:
    """Return the study whose files lie anywhere below a folder, or that is one file.

    As routing sees it; what is no DICOM instance is passed over.

    Raises:
        InputRefusedError: there is no instance, or those of several studies.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    studies = studies_in(files)
    if len(studies) != 1:
        found = f"{len(studies)} studies" if studies else "no DICOM instance"
        raise InputRefusedError(f"{path} has {found}; give a folder with one study")
    return studies[0]


def studies_in(files: Iterable[Path]) -> list[Study]:
    """Return the studies that the DICOM files among `files` belong to, as routing sees them."""
    series: dict[str, dict[str, list[Instance]]] = {}
    patients: dict[str, Patient] = {}
    modalities: dict[str, str] = {}
    for file, dataset in _headers(files):
        uid = str(dataset.SeriesInstanceUID)
        modalities.setdefault(uid, str(dataset.get("Modality", "")))
        of_study = series.setdefault(str(dataset.StudyInstanceUID), {})
        of_study.setdefault(uid, []).append(_instance(file, dataset))
        patients.setdefault(str(dataset.StudyInstanceUID), _patient(dataset))
    return [
        Study(
            study,
            tuple(Series(uid, modalities[uid], tuple(found)) for uid, found in of_study.items()),
            patients[study],
        )
        for study, of_study in series.items()
    ]


def _patient(dataset: Dataset) -> Patient:
    age, born, studied = (
        str(dataset.get(keyword) or "")
        for keyword in ("PatientAge", "PatientBirthDate", "StudyDate")
    )
    return Patient(age_in_years(age, born, studied), str(dataset.get("PatientSex") or "").upper())


def _headers(paths: Iterable[Path]) -> Iterable[tuple[Path, Dataset]]:
    wanted: list[Any] = [*_IDENTITY, *_PATIENT, *IMAGE_HEADER_KEYWORDS]
    for path in paths:
        try:
            dataset = dcmread(path, stop_before_pixels=True, specific_tags=wanted)
        except (InvalidDicomError, OSError, EOFError):
            continue
        if all(dataset.get(keyword) for keyword in _IDENTITY):
            yield path, dataset


def _instance(path: Path, dataset: Dataset) -> Instance:
    values = {k: _plain(dataset.get(k)) for k in IMAGE_HEADER_KEYWORDS}
    if has_functional_groups(str(dataset.SOPClassUID)):
        stated = {k: v for k, v in values.items() if v not in (None, "", [])}
        values = {**frame_headers_of_file(path), **stated}
    return Instance(
        sop_instance_uid=str(dataset.SOPInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        transfer_syntax_uid=str(dataset.file_meta.get("TransferSyntaxUID", "")),
        path=str(path),
        headers={k: v for k, v in values.items() if v not in (None, "", [])},
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Sequence):
        return True if len(value) else None
    if isinstance(value, MultiValue):
        return [_plain(v) for v in value]
    if isinstance(value, int):
        return int(value)
    if value is None or isinstance(value, str):
        return value
    return float(value) if hasattr(value, "__float__") else str(value)
