"""A grayscale picture wrapped as the DICOM object that a digital radiography unit would send.

For tests and the demonstration: it makes a Digital X-Ray Image Storage - For Presentation
instance (DICOM PS3.3 A.26) out of any 8-bit or 16-bit array.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

ViewPosition = Literal["PA", "AP"]
PhotometricInterpretation = Literal["MONOCHROME1", "MONOCHROME2"]
Sex = Literal["M", "F", "O"]

CODING_SCHEME = "SCT"
# DICOM PS3.16, CID 4009 "DX Anatomy Imaged", CID 4010 "DX View" and CID 3010 modifiers.
CHEST = ("816094009", "Chest")
VIEWS: dict[str, tuple[str, str]] = {
    "PA": ("272479007", "postero-anterior"),
    "AP": ("399348003", "antero-posterior"),
}
# Where the patient's row and column directions point on a frontal image (PS3.3 C.7.6.1.1.1):
# the patient's left is on the viewer's right in both projections as they are displayed.
PATIENT_ORIENTATION = ["L", "F"]


@dataclass(frozen=True)
class Subject:
    """Whose radiograph it is; every value is made up by the caller."""

    patient_id: str
    patient_name: str = "Synthetic^Patient"
    sex: Sex = "O"
    birth_date: date | None = None
    age_years: int | None = None


@dataclass(frozen=True)
class Examination:
    """The order, the moment and the projection of a radiograph.

    `spacing_mm` is (row, column) at the detector; equal study and accession number put several
    radiographs into one study.
    """

    accession_number: str
    acquired: datetime
    view_position: ViewPosition = "PA"
    spacing_mm: tuple[float, float] = (0.143, 0.143)
    instance_number: int = 1
    description: str = "Chest radiograph"
    referring_physician: str = ""


def radiograph(
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    subject: Subject,
    examination: Examination,
    *,
    photometric_interpretation: PhotometricInterpretation = "MONOCHROME2",
    bits_stored: int | None = None,
) -> Dataset:
    """Return the DX instance of `pixels`, (rows, columns), bright where the body is dense.

    The values are stored inverted for MONOCHROME1, as many units do, so the picture is the same.
    `bits_stored` defaults to 8 for bytes and to 12, or 16 where the values need it, for 16 bit.
    The UIDs are derived from the accession number and the instance number, so a repeated call
    gives the same instance. The dataset has its file meta information and can be saved with
    `save_as(path, enforce_file_format=True)`.
    """
    stored = _stored_bits(pixels, bits_stored)
    dataset = Dataset()
    _add_patient_and_study(dataset, subject, examination)
    _add_series_and_equipment(dataset, examination)
    _add_image(dataset, examination)
    _add_projection(dataset, examination)
    _add_pixels(dataset, pixels, stored, photometric_interpretation)
    dataset.file_meta = _file_meta(dataset)
    return dataset


def _stored_bits(pixels: NDArray[np.generic], bits_stored: int | None) -> int:
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16) or not pixels.size:
        raise ValueError(
            f"Pixels have to be (rows, columns) of uint8 or uint16, not {pixels.shape} "
            f"of {pixels.dtype}."
        )
    needed = max(int(pixels.max()).bit_length(), 1)
    if bits_stored is None:
        bits_stored = 8 if pixels.dtype == np.uint8 else (12 if needed <= 12 else 16)
    allocated = pixels.dtype.itemsize * 8
    # PS3.3 table C.8-70: DX stores 6 to 16 bits.
    if not max(needed, 6) <= bits_stored <= allocated:
        raise ValueError(
            f"Bits Stored {bits_stored} does not fit values of {needed} bits in {allocated}."
        )
    return bits_stored


def _uid(*sources: str) -> str:
    # PS3.5 B.2 UUID-derived roots would be random; a hash keeps repeated runs identical.
    return generate_uid(entropy_srcs=["triage radiograph", *sources])


def _add_patient_and_study(dataset: Dataset, subject: Subject, examination: Examination) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = subject.patient_name
    dataset.PatientID = subject.patient_id
    dataset.PatientBirthDate = f"{subject.birth_date:%Y%m%d}" if subject.birth_date else ""
    dataset.PatientSex = subject.sex
    if subject.age_years is not None:
        dataset.PatientAge = f"{subject.age_years:03d}Y"
    dataset.StudyInstanceUID = _uid("study", examination.accession_number)
    dataset.StudyDate = f"{examination.acquired:%Y%m%d}"
    dataset.StudyTime = f"{examination.acquired:%H%M%S}"
    if examination.acquired.tzinfo is not None:
        dataset.TimezoneOffsetFromUTC = f"{examination.acquired:%z}"
    dataset.ReferringPhysicianName = examination.referring_physician
    # SH holds 16 characters (PS3.5 6.2).
    dataset.StudyID = examination.accession_number[:16]
    dataset.AccessionNumber = examination.accession_number
    dataset.StudyDescription = examination.description


def _add_series_and_equipment(dataset: Dataset, examination: Examination) -> None:
    dataset.Modality = "DX"
    dataset.SeriesInstanceUID = _uid("series", examination.accession_number)
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = f"Chest {examination.view_position}"
    dataset.SeriesDate = dataset.StudyDate
    dataset.SeriesTime = dataset.StudyTime
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.Manufacturer = "Triage"
    dataset.ManufacturerModelName = "Radiograph simulator"
    dataset.DeviceSerialNumber = "1"
    dataset.SoftwareVersions = "1"


def _add_image(dataset: Dataset, examination: Examination) -> None:
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = _uid(
        "instance", examination.accession_number, str(examination.instance_number)
    )
    dataset.InstanceNumber = examination.instance_number
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.ContentDate = dataset.AcquisitionDate = dataset.StudyDate
    dataset.ContentTime = dataset.AcquisitionTime = dataset.StudyTime
    dataset.AcquisitionNumber = 1
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    # DX Image module, PS3.3 C.8.11.3: values are already display values, so the intensity
    # relationship is only a sign.
    dataset.PixelIntensityRelationship = "LOG"
    dataset.RescaleIntercept = "0"
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "US"
    dataset.AcquisitionContextSequence = []


def _add_projection(dataset: Dataset, examination: Examination) -> None:
    dataset.BodyPartExamined = "CHEST"
    dataset.AnatomicRegionSequence = [_code(*CHEST)]
    # Chest has no side, PS3.3 C.8.11.2: U is unpaired.
    dataset.ImageLaterality = "U"
    dataset.PatientOrientation = PATIENT_ORIENTATION
    dataset.ViewPosition = examination.view_position
    view = _code(*VIEWS[examination.view_position])
    view.ViewModifierCodeSequence = []
    dataset.ViewCodeSequence = [view]
    spacing = [f"{side:.6g}" for side in examination.spacing_mm]
    dataset.PositionerType = "NONE"
    dataset.DetectorType = "DIRECT"
    dataset.DetectorConfiguration = "AREA"
    dataset.ImagerPixelSpacing = spacing
    dataset.PixelSpacing = spacing


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = CODING_SCHEME
    item.CodeMeaning = meaning
    return item


def _add_pixels(
    dataset: Dataset,
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    bits_stored: int,
    photometric_interpretation: PhotometricInterpretation,
) -> None:
    inverted = photometric_interpretation == "MONOCHROME1"
    top = (1 << bits_stored) - 1
    stored = (top - pixels.astype(np.int64) if inverted else pixels).astype(pixels.dtype)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric_interpretation
    # PS3.3 C.8.11.3.1.2: INVERSE goes with MONOCHROME1, IDENTITY with MONOCHROME2.
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    # Stored values fall with the X-ray intensity where dense is bright, and rise where inverted.
    dataset.PixelIntensityRelationshipSign = 1 if inverted else -1
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored = bits_stored
    dataset.HighBit = bits_stored - 1
    dataset.PixelRepresentation = 0
    # The whole range: centre and width by the formula of PS3.3 C.11.2.1.2.1.
    dataset.WindowCenter = str((top + 1) / 2)
    dataset.WindowWidth = str(top + 1)
    data = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    # PS3.5 8.1.1: the value has an even length.
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if stored.dtype == np.uint8 else "OW"


def _file_meta(dataset: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta
