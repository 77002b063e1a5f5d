"""Study, Series and Instance as routing and the models see them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

IMAGE_HEADER_KEYWORDS: tuple[str, ...] = (
    "SOPClassUID",
    "ImageType",
    "Modality",
    "BodyPartExamined",
    "StudyID",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "InstanceNumber",
    "AcquisitionNumber",
    "ImagesInAcquisition",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "GantryDetectorTilt",
    "ViewPosition",
    "Laterality",
    "ImageLaterality",
    "PatientOrientation",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "KVP",
    "Manufacturer",
    "ManufacturerModelName",
    "StationName",
    "InstitutionName",
    "PatientAge",
    "BurnedInAnnotation",
    "ImageComments",
)
"""The attributes that are kept beside the index row of each instance, by DICOM keyword.

They are all that routing reads, so a study is routed without opening a file. Names, birth dates
and identifiers of patients are deliberately not among them.
"""


@dataclass(frozen=True, slots=True)
class Instance:
    """One SOP instance: its identity, its file and the headers that routing reads."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    headers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Series:
    """The instances of one series, in order of arrival."""

    series_instance_uid: str
    modality: str
    instances: tuple[Instance, ...]

    def values_of(self, keyword: str) -> tuple[Any, ...]:
        """Return the distinct non-empty values of the attribute `keyword` over the instances."""
        seen: dict[str, Any] = {}
        for instance in self.instances:
            value = instance.headers.get(keyword)
            if value not in (None, "", []):
                seen.setdefault(repr(value), value)
        return tuple(seen.values())

    def digest(self) -> str:
        """Return the SHA-256 over which instances these are, in whatever order they came.

        The path of a file names its content, so other content under a known UID is another digest.
        """
        names = sorted(f"{i.sop_instance_uid} {i.path}" for i in self.instances)
        return hashlib.sha256("\n".join(names).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Study:
    """A study with all series that have arrived."""

    study_instance_uid: str
    series: tuple[Series, ...]
