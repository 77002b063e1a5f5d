"""Small data sets, made where a test needs them."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def ct_slice(study: str | None = None, number: int = 1, **attributes: Any) -> Dataset:
    """Return a CT slice of 4 by 4 pixels; `attributes` are set last, None removes one."""
    study = study or generate_uid()
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"{study[:50]}.1.{number}"
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = f"{study[:50]}.1"
    dataset.Modality = "CT"
    dataset.PatientID = "P1"
    dataset.PatientName = "Test^Patient"
    dataset.InstanceNumber = number
    dataset.ImagePositionPatient = [0.0, 0.0, 5.0 * number]
    dataset.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    dataset.PixelSpacing = [0.5, 0.5]
    dataset.SliceThickness = 5.0
    dataset.BodyPartExamined = "HEAD"
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = bytes(range(32))
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset
