"""Images of every form, made of volumes whose place in the patient is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    NuclearMedicineImageStorage,
    generate_uid,
)

from tests.models.tiny import slice_dataset

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def item(**attributes: Any) -> Dataset:
    """Return a sequence item."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def with_patient(dataset: Dataset) -> Dataset:
    """Add what results take from an image: patient, study, series and frame of reference."""
    values = {
        "PatientName": "Muster^Anna",
        "PatientID": "P-17",
        "PatientBirthDate": "19500201",
        "PatientSex": "F",
        "StudyInstanceUID": "1.2.7",
        "SeriesInstanceUID": "1.2.7.1",
        "FrameOfReferenceUID": "1.2.7.2",
        "PositionReferenceIndicator": "",
        "StudyDate": "20260301",
        "StudyTime": "081500",
        "StudyID": "7",
        "AccessionNumber": "A-99",
        "ReferringPhysicianName": "Haus^Gregor",
        "SeriesNumber": 1,
        "Manufacturer": "Maker",
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced(
    values: NDArray[np.int16],
    positions: Sequence[Sequence[float]],
    *,
    orientation: Sequence[float] = AXIAL,
    spacing_mm: Sequence[float] = (0.5, 0.5),
    per_frame: Sequence[dict[str, Dataset]] = (),
    is_mr: bool = False,
) -> Dataset:
    """Return an enhanced multi-frame image of `values` (frames, rows, columns).

    `per_frame` are further functional groups of each frame: the item by name of its sequence.
    """
    dataset = with_patient(slice_dataset(values[0], positions[0], 1))
    dataset.SOPClassUID = EnhancedMRImageStorage if is_mr else EnhancedCTImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.Modality = "MR" if is_mr else "CT"
    for keyword in (
        "PixelSpacing",
        "ImageOrientationPatient",
        "ImagePositionPatient",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        del dataset[keyword]
    dataset.NumberOfFrames = len(values)
    dataset.PixelData = values.astype("<i2").tobytes()
    shared = Dataset()
    shared.PixelMeasuresSequence = [item(PixelSpacing=_text(spacing_mm), SliceThickness="2")]
    shared.PlaneOrientationSequence = [item(ImageOrientationPatient=_text(orientation))]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [
        _frame_groups(position, per_frame[index] if per_frame else {})
        for index, position in enumerate(positions)
    ]
    return dataset


def _frame_groups(position: Sequence[float], more: dict[str, Dataset]) -> Dataset:
    groups = Dataset()
    groups.PlanePositionSequence = [item(ImagePositionPatient=_text(position))]
    for name, group in more.items():
        setattr(groups, name, [group])
    return groups


def _text(numbers: Sequence[float]) -> list[str]:
    return [f"{number:.10g}"[:16] for number in numbers]


def reconstructed_tomogram(values: NDArray[np.int16], spacing_mm: float) -> Dataset:
    """Return a reconstructed tomogram of nuclear medicine (DICOM PS3.3 C.8.4)."""
    dataset = with_patient(slice_dataset(values[0], (0, 0, 0), 1))
    dataset.SOPClassUID = NuclearMedicineImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.Modality = "NM"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    del dataset.ImagePositionPatient, dataset.ImageOrientationPatient
    dataset.NumberOfFrames = len(values)
    dataset.SpacingBetweenSlices = str(spacing_mm)
    dataset.SliceVector = list(range(1, len(values) + 1))
    dataset.DetectorInformationSequence = [
        item(ImagePositionPatient=[-10, -20, 30], ImageOrientationPatient=list(AXIAL))
    ]
    dataset.PixelData = values.astype("<i2").tobytes()
    return dataset


def written(dataset: Dataset, folder: Path, name: str = "a") -> list[tuple[str, Path]]:
    """Write one image and return it as the sources of a series."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return [(str(dataset.SOPInstanceUID), path)]
