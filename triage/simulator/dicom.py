"""Simulated studies as DICOM: conformant CT series, a study no model wants, and broken images.

Every object says that it is simulated (Manufacturer, Image Comments, Patient Comments). UIDs follow
from the seed, so the same study made twice is the same study.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)
from scipy import ndimage

from triage.core.uids import derived_uid
from triage.simulator.head_ct import SimulatedHeadCT

__all__ = [
    "Damage",
    "StudyIdentity",
    "TransferSyntax",
    "damage_series",
    "head_ct_series",
    "knee_mr_series",
    "write_series",
]

_INTERCEPT_HU = -1024  # stored values are 12 bits, as most CT scanners write them


class TransferSyntax(StrEnum):
    """Transfer syntaxes in which a series can be written."""

    EXPLICIT_LITTLE_ENDIAN = ExplicitVRLittleEndian
    RLE_LOSSLESS = RLELossless
    JPEG_LS_LOSSLESS = JPEGLSLossless


class Damage(StrEnum):
    """What is wrong with the pixel data of a broken series."""

    MISSING = "missing"  # no Pixel Data element
    TRUNCATED = "truncated"  # half of the bytes


@dataclass(frozen=True)
class StudyIdentity:
    """Whose study it is and what was ordered.

    Attributes:
        patient_name: in DICOM form, family and given name separated by ^.
        priority: Requested Procedure Priority (0040,1003): STAT, HIGH, ROUTINE, MEDIUM or LOW. It
            belongs to the order; many scanners copy it into the images.
        omit: keywords of attributes to leave out, as many real senders do with type 2 ones.
    """

    patient_name: str
    patient_id: str
    accession_number: str
    study_description: str = "CT HEAD WITHOUT CONTRAST"
    priority: str = "ROUTINE"
    acquired: datetime = datetime(2026, 1, 15, 8, 30, tzinfo=UTC)
    patient_birth_date: str = "19500101"
    patient_sex: str = "O"
    referring_physician_name: str = "Referrer^Simulated"
    institution_name: str = "Simulated Hospital"
    omit: frozenset[str] = frozenset()


def head_ct_series(
    study: SimulatedHeadCT,
    identity: StudyIdentity,
    *,
    seed: int | str,
    transfer_syntax: TransferSyntax = TransferSyntax.EXPLICIT_LITTLE_ENDIAN,
) -> list[Dataset]:
    """Return one CT Image Storage dataset (PS3.3 A.3) per slice, from the feet up."""
    stored = (study.hu.astype(np.int32) - _INTERCEPT_HU).clip(0, 4095).astype(np.uint16)
    thickness, row_mm, column_mm = study.spacing_mm
    datasets = []
    for index, pixels in enumerate(stored):
        ds = _common(
            identity,
            seed,
            index,
            sop_class_uid=CTImageStorage,
            modality="CT",
            body_part="HEAD",
            comment="Non-contrast head CT",
        )
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.SeriesDescription = f"Head {thickness:g} mm"
        ds.ProtocolName = "Head routine"
        ds.SliceThickness = f"{thickness:g}"
        ds.SpacingBetweenSlices = f"{thickness:g}"
        ds.KVP = "120"
        ds.DataCollectionDiameter = "500"
        ds.ReconstructionDiameter = f"{column_mm * pixels.shape[1]:.6g}"
        ds.GantryDetectorTilt = "0"
        ds.ExposureTime = "1000"
        ds.XRayTubeCurrent = "250"
        ds.Exposure = "250"
        ds.ConvolutionKernel = "STANDARD"
        ds.AcquisitionNumber = 1
        position = study.affine @ np.array([0, 0, index, 1.0])
        _place(ds, position[:3], (row_mm, column_mm))
        ds.RescaleIntercept = str(_INTERCEPT_HU)
        ds.RescaleSlope = "1"
        ds.RescaleType = "HU"
        ds.WindowCenter = "40"
        ds.WindowWidth = "80"
        _set_pixels(ds, pixels, bits_stored=12, transfer_syntax=transfer_syntax)
        datasets.append(_without(ds, identity.omit))
    return datasets


def knee_mr_series(identity: StudyIdentity, *, seed: int, slices: int = 8) -> list[Dataset]:
    """Return an MR study of a knee, roughly drawn: a study that no head or chest model wants."""
    rng = np.random.default_rng(seed)
    datasets = []
    for index in range(slices):
        ds = _common(
            identity,
            seed,
            index,
            sop_class_uid=MRImageStorage,
            modality="MR",
            body_part="KNEE",
            comment="Knee",
        )
        ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        ds.SeriesDescription = "PD sagittal"
        ds.Laterality = "R"
        ds.ScanningSequence = "SE"
        ds.SequenceVariant = "NONE"
        ds.ScanOptions = ""
        ds.MRAcquisitionType = "2D"
        ds.RepetitionTime = "3000"
        ds.EchoTime = "30"
        ds.EchoTrainLength = 1
        ds.MagneticFieldStrength = "1.5"
        ds.SliceThickness = "4"
        ds.SpacingBetweenSlices = "4"
        # Sagittal: rows run down (-z), columns run to the back (+y).
        _place(ds, np.array([index * 4.0, -80.0, 80.0]), (0.625, 0.625), (0, 1, 0, 0, 0, -1))
        ds.WindowCenter = "400"
        ds.WindowWidth = "800"
        _set_pixels(ds, _knee(rng), 12, TransferSyntax.EXPLICIT_LITTLE_ENDIAN)
        datasets.append(_without(ds, identity.omit))
    return datasets


def damage_series(datasets: Sequence[Dataset], damage: Damage, *, every: int = 1) -> list[Dataset]:
    """Return the datasets with the pixel data of each `every`-th one gone or cut off in the middle.

    The headers stay as they were: the study arrives and routes like any other, and only whoever
    decodes it finds out. The input is not changed.
    """
    broken = []
    for index, original in enumerate(datasets):
        ds = deepcopy(original)
        if index % every == 0:
            whole = original.PixelData
            del ds.PixelData
            if damage is Damage.TRUNCATED:
                ds.add_new("PixelData", "OW", whole[: len(whole) // 4 * 2])
        broken.append(ds)
    return broken


def write_series(datasets: Iterable[Dataset], folder: Path) -> list[Path]:
    """Write the datasets as DICOM files (PS3.10) into `folder` and return their paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, ds in enumerate(datasets, start=1):
        path = folder / f"{number:03d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _common(
    identity: StudyIdentity,
    seed: int | str,
    index: int,
    *,
    sop_class_uid: UID,
    modality: str,
    body_part: str,
    comment: str,
) -> Dataset:
    """Return what all images of a simulated study have: patient, study, series, equipment, SOP."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class_uid
    ds.SOPInstanceUID = _uid(seed, modality, "instance", str(index))
    ds.StudyInstanceUID = _uid(seed, modality, "study")
    ds.SeriesInstanceUID = _uid(seed, modality, "series")
    ds.FrameOfReferenceUID = _uid(seed, modality, "frame of reference")
    ds.PositionReferenceIndicator = ""

    ds.PatientName = identity.patient_name
    ds.PatientID = identity.patient_id
    ds.PatientBirthDate = identity.patient_birth_date
    ds.PatientSex = identity.patient_sex
    ds.PatientComments = "Simulated patient; not a person"
    ds.PatientPosition = "HFS"

    ds.AccessionNumber = identity.accession_number
    ds.StudyID = identity.accession_number[:16]
    ds.StudyDescription = identity.study_description
    ds.ReferringPhysicianName = identity.referring_physician_name
    ds.RequestedProcedurePriority = identity.priority
    ds.Modality = modality
    ds.BodyPartExamined = body_part
    ds.SeriesNumber = 1
    ds.InstanceNumber = index + 1
    ds.ImageComments = f"SIMULATED IMAGE, not of a patient. {comment}"

    ds.Manufacturer = "Triage simulator"
    ds.ManufacturerModelName = "Triage simulator"
    ds.InstitutionName = identity.institution_name
    ds.StationName = "SIMULATOR"
    ds.DeviceSerialNumber = "0"
    ds.SoftwareVersions = "1"

    moment = identity.acquired + timedelta(seconds=index)
    ds.StudyDate = ds.SeriesDate = identity.acquired.strftime("%Y%m%d")
    ds.StudyTime = ds.SeriesTime = identity.acquired.strftime("%H%M%S")
    ds.AcquisitionDate = ds.ContentDate = moment.strftime("%Y%m%d")
    ds.AcquisitionTime = ds.ContentTime = moment.strftime("%H%M%S")
    return ds


def _uid(seed: int | str, *parts: str) -> UID:
    return UID(derived_uid("simulator", str(seed), *parts))


def _place(
    ds: Dataset,
    position_mm: NDArray[np.float64],
    spacing_mm: tuple[float, float],
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
) -> None:
    """Set the image plane (PS3.3 C.7.6.2): position and (row, column) distances in mm."""
    ds.ImagePositionPatient = [f"{value:.6g}" for value in position_mm]
    ds.ImageOrientationPatient = [f"{value:g}" for value in orientation]
    ds.PixelSpacing = [f"{value:.6g}" for value in spacing_mm]
    normal = np.cross(orientation[:3], orientation[3:])
    ds.SliceLocation = f"{float(normal @ position_mm):.6g}"


def _set_pixels(
    ds: Dataset, pixels: NDArray[np.uint16], bits_stored: int, transfer_syntax: TransferSyntax
) -> None:
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = 16
    ds.BitsStored = bits_stored
    ds.HighBit = bits_stored - 1
    ds.PixelRepresentation = 0
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.PixelData = pixels.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    if transfer_syntax is not TransferSyntax.EXPLICIT_LITTLE_ENDIAN:
        # The instance keeps its UID: lossless compression does not make another image.
        ds.compress(UID(transfer_syntax), generate_instance_uid=False)


def _without(ds: Dataset, keywords: frozenset[str]) -> Dataset:
    for keyword in keywords:
        if keyword in ds:
            delattr(ds, keyword)
    return ds


def _knee(rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return a sagittal knee (256, 256): femur, tibia and patella in muscle and fat."""
    y, x = np.mgrid[0:256, 0:256].astype(float)
    image = np.where(np.abs(x - 128) < 75, 350.0, 20.0)
    image[np.abs(x - 128) > 62] *= 1.6
    for centre_y, centre_x, half_y, half_x in (
        (40, 130, 90, 28),  # femur's shaft
        (112, 132, 24, 40),  # its condyles
        (230, 128, 82, 32),  # tibia
        (105, 72, 18, 9),  # patella
    ):
        r = np.hypot((y - centre_y) / half_y, (x - centre_x) / half_x)
        image[r < 1] = 60
        image[r < 0.9] = 620
    image = ndimage.gaussian_filter(image, 1.2) + rng.normal(0, 15, image.shape)
    return np.asarray(image.clip(0, 4095), dtype=np.uint16)
