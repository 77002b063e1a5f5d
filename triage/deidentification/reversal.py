"""The way back: an object that refers to pseudonyms becomes one of the real study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from triage.deidentification.pseudonyms import DeidentificationError
from triage.deidentification.table import PATIENT_CHARACTERISTICS

_OF_PATIENT_AND_STUDY = (
    # Patient, DICOM PS3.3 C.7.1.1
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "PatientBirthDate",
    # General Study and Patient Study, C.7.2.1 and C.7.2.2
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "StudyDescription",
    *sorted(PATIENT_CHARACTERISTICS),
)
_STATEMENTS = (
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
)
_COPIED_FROM_SOURCE = ("AcquisitionDate", "AcquisitionDateTime")
_NAMES = {"PN", "LO", "SH", "LT", "ST", "UT"}


def reidentify(
    dataset: Dataset,
    source: Dataset,
    *,
    uids: Mapping[str, str],
    pseudonym: str,
    shift: timedelta | None,
) -> None:
    """Make `dataset`, which a remote model made of pseudonymous images, one of their real study.

    What it says of the patient and of the study is replaced by what `source` says, and nothing is
    left of what was made up. UIDs of its own stay as they are.

    Args:
        dataset: what came back, with its file meta information.
        source: the header of a real image of the study.
        uids: the real UIDs by their pseudonyms.
        pseudonym: the Patient ID and name that the remote model knew.
        shift: by how much dates were moved; None where they were removed.

    Raises:
        DeidentificationError: it is of another patient, or is one of the images that were sent.
    """
    stated = str(dataset.get("PatientID") or "").strip()
    if stated != pseudonym:
        raise DeidentificationError(
            f"its Patient ID is {stated or 'empty'!r}, which is not the pseudonym of the study's "
            "patient"
        )
    if str(dataset.SOPInstanceUID) in uids:
        raise DeidentificationError("its SOP Instance UID is that of an image that was sent")
    for _, element in _elements(dataset):
        if element.VR == "UI" and element.value:
            _restore_uids(element, uids)
        elif element.VR in _NAMES and str(element.value) == pseudonym:
            is_name = element.VR == "PN"
            element.value = source.get("PatientName" if is_name else "PatientID", "")
    for keyword in (*_OF_PATIENT_AND_STUDY, *_STATEMENTS):
        if keyword in dataset:
            delattr(dataset, keyword)
        if keyword in source and keyword not in _STATEMENTS:
            dataset[keyword] = source[keyword]
    for keyword in _COPIED_FROM_SOURCE:
        if keyword in dataset:
            _move_back(dataset, keyword, shift)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def _elements(dataset: Dataset) -> Iterator[tuple[Dataset, DataElement]]:
    for element in list(dataset):
        yield dataset, element
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)


def _restore_uids(element: DataElement, uids: Mapping[str, str]) -> None:
    if isinstance(element.value, str):
        element.value = uids.get(str(element.value), element.value)
    else:
        element.value = [uids.get(str(uid), uid) for uid in element.value]


def _move_back(dataset: Dataset, keyword: str, shift: timedelta | None) -> None:
    """Undo the shift of a date that was copied from a source image, or remove a made-up one."""
    value = str(dataset.get(keyword) or "")
    try:
        moved = date(int(value[:4]), int(value[4:6]), int(value[6:8])) - (shift or timedelta())
    except ValueError:
        moved = None
    if shift is None or moved is None:
        delattr(dataset, keyword)
    else:
        setattr(dataset, keyword, f"{moved:%Y%m%d}{value[8:]}")
