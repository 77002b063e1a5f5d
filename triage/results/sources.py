"""Source images as results refer to them: read without their pixels, and repaired in memory.

Results take their patient and study attributes from the images that were analysed. Real images
break the standard in ways that an archive has long put up with, but that would make our own
objects invalid. What is wrong is mended in the copy; the files are only read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pydicom
from highdicom.enum import SpecificCharacterSetValues
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from triage.core.uids import derived_uid
from triage.decoding.multi_frame import frame_value
from triage.results.errors import ResultError
from triage.store.withdrawals import DocumentReference

_TYPE_2_KEYWORDS = (
    # Patient, DICOM PS3.3 C.7.1.1
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    # General Study, C.7.2.1
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    # General Series and General Equipment, C.7.3.1 and C.7.5.1
    "SeriesNumber",
    "Manufacturer",
)
_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_SEXES = {"M", "F", "O"}  # Patient's Sex (0010,0040), C.7.1.1
_CHARACTER_SETS = {value.value for value in SpecificCharacterSetValues}
_DATE = re.compile(r"\d{4}(\d{2}){2}|\d{4}(\.\d{2}){2}")
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")


def read_sources(files: Sequence[Path], *, study_instance_uid: str) -> tuple[Dataset, ...]:
    """Return the repaired headers of `files`, in their order, as images of the given study.

    Raises:
        ResultError: there is no file, or one cannot be read.
    """
    if not files:
        raise ResultError("the analysis names no source image")
    return tuple(repair(_read_header(file), study_instance_uid) for file in files)


def read_further(files: Mapping[str, Sequence[Path]]) -> tuple[Dataset, ...]:
    """Return the identities of the further inputs' images: classes and UIDs, as evidence.

    Raises:
        ResultError: one cannot be read.
    """
    read = [_read_identity(file) for each in files.values() for file in each]
    return tuple(dataset for dataset in read if all(k in dataset for k in _IDENTITY))


def _read_identity(file: Path) -> Dataset:
    try:
        return pydicom.dcmread(file, specific_tags=list(_IDENTITY), force=True)
    except (OSError, InvalidDicomError) as error:
        raise ResultError(
            f"image {file.name} of a further input cannot be read: {error}"
        ) from error


def as_dataset(reference: DocumentReference, study_instance_uid: str) -> Dataset:
    """Return an object of the study as those refer to it that do not have its file."""
    dataset = Dataset()
    dataset.SOPClassUID = reference.sop_class_uid
    dataset.SOPInstanceUID = reference.sop_instance_uid
    dataset.SeriesInstanceUID = reference.series_instance_uid
    dataset.StudyInstanceUID = study_instance_uid
    return dataset


def read_with_pixels(file: Path) -> Dataset:
    """Return the whole dataset of `file`.

    Raises:
        ResultError: the file cannot be read.
    """
    try:
        return pydicom.dcmread(file, force=True)
    except (OSError, InvalidDicomError) as error:
        raise ResultError(f"source image {file.name} cannot be read: {error}") from error


def _read_header(file: Path) -> Dataset:
    try:
        dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
    except (OSError, InvalidDicomError) as error:
        raise ResultError(f"source image {file.name} cannot be read: {error}") from error
    if "SOPInstanceUID" not in dataset or "SOPClassUID" not in dataset:
        raise ResultError(f"source image {file.name} states no SOP class or instance UID")
    return dataset


def repair(dataset: Dataset, study_instance_uid: str) -> Dataset:
    """Mend in `dataset` what would make the results that are derived from it invalid.

    An attribute of type 2 may be empty but not missing, and one of type 1 or 1C may not be empty
    (DICOM PS3.5 7.4): those missing are added empty, all others that are empty are dropped. Values
    that no result may repeat (a sex that is none of M, F and O, a birth date that is no date)
    become empty. A series that states places in the patient, but not their frame of reference, gets
    one of its own. Text is turned into UTF-8 unless its character set is one plain set that the
    standard defines.
    """
    for tag in list(dataset.keys()):
        # `get_item` leaves the value undecoded: some of 300 headers' values may be malformed.
        is_empty = not dataset.get_item(tag).value and dataset.get_item(tag).value != 0
        if is_empty and keyword_for_tag(tag) not in _TYPE_2_KEYWORDS:
            del dataset[tag]
    for keyword in _TYPE_2_KEYWORDS:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    dataset.StudyInstanceUID = study_instance_uid
    if dataset.get("PatientIdentityRemoved") == "YES" and not (
        "DeidentificationMethod" in dataset or "DeidentificationMethodCodeSequence" in dataset
    ):
        # One of the two is required then (type 1C, DICOM PS3.3 C.7.1.1).
        dataset.DeidentificationMethod = "not stated by the source"
    _empty_unless(dataset, "PatientSex", lambda value: value in _SEXES)
    for keyword in ("PatientBirthDate", "StudyDate"):
        _empty_unless(dataset, keyword, lambda value: bool(_DATE.fullmatch(value)))
    _empty_unless(dataset, "StudyTime", lambda value: bool(_TIME.fullmatch(value)))
    _name_frame_of_reference(dataset)
    if not _has_plain_character_set(dataset):
        use_utf8(dataset)
    return dataset


def use_utf8(dataset: Dataset) -> None:
    """Decode the text of `dataset` and mark it as UTF-8 (ISO_IR 192, DICOM PS3.3 C.12.1.1.2)."""
    dataset.decode()
    dataset.SpecificCharacterSet = "ISO_IR 192"


def _name_frame_of_reference(dataset: Dataset) -> None:
    # The images of a series with places have one in common (type 1, DICOM PS3.3 C.7.4.1).
    if "FrameOfReferenceUID" in dataset or "SeriesInstanceUID" not in dataset:
        return
    if frame_value(dataset, 0, "ImagePositionPatient") is not None:
        series = str(dataset.SeriesInstanceUID)
        dataset.FrameOfReferenceUID = derived_uid(series, "frame of reference")


def _empty_unless(dataset: Dataset, keyword: str, is_valid: Callable[[str], bool]) -> None:
    value = str(dataset.get(keyword) or "").strip()
    setattr(dataset, keyword, value if value and is_valid(value) else None)


def _has_plain_character_set(dataset: Dataset) -> bool:
    # With code extensions (several values, of which the first is often empty, as in Japan) the
    # text is re-encoded: every archive reads UTF-8, few agree about escape sequences.
    stated = dataset.get("SpecificCharacterSet")
    return stated is None or (isinstance(stated, str) and stated in _CHARACTER_SETS)
