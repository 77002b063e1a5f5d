"""Study, Series and Instance as routing and the models see them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
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
    "FrameLaterality",
    "FrameOfReferenceUID",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "ConvolutionKernel",
    "KVP",
    "SequenceName",
    "PulseSequenceName",
    "ScanningSequence",
    "SequenceVariant",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "MagneticFieldStrength",
    "DiffusionBValue",
    "ContentQualification",
    "QualityControlImage",
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
and identifiers of patients are deliberately not among them. Of a sequence, only whether it has an
item is kept. What an enhanced multi-frame image says for its frames (DICOM PS3.3 C.7.6.16) stands
under the same keywords, where all frames say the same; an instance that was received before a
keyword was added simply does not state it.
"""

FRAME_POSITIONS = "FramePositions"
"""Beside them, for an enhanced multi-frame image: Image Position (Patient) of each frame."""


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
class Patient:
    """What routing may know of the patient: age in years at the study, and Patient's Sex."""

    age_years: float | None = None
    sex: str = ""


@dataclass(frozen=True, slots=True)
class Study:
    """A study with all series that have arrived."""

    study_instance_uid: str
    series: tuple[Series, ...]
    patient: Patient = Patient()


def inputs_digest(inputs: Iterable[tuple[str, Series]]) -> str:
    """Return the SHA-256 over which instances the named inputs are; of one alone, the series' own.

    Each comes with its name: the same series in other roles are another input.
    """
    digests = [(name, series.digest()) for name, series in inputs]
    if len(digests) == 1:
        return digests[0][1]
    lines = "\n".join(f"{name} {digest}" for name, digest in digests)
    return hashlib.sha256(lines.encode()).hexdigest()


def age_in_years(stated: str, birth_date: str, study_date: str) -> float | None:
    """Return the patient's age at the study, None where nothing valid says it.

    Args:
        stated: Patient's Age (0010,1010), such as "045Y", "018M", "003W" or "012D".
        birth_date, study_date: DA values, which count where no age is stated.

    >>> age_in_years("018M", "", ""), age_in_years("", "19800101", "20200101")
    (1.5, 40.0)
    """
    found = re.fullmatch(r"(\d{1,3})([DWMY])", stated.strip().upper())
    if found:
        return int(found[1]) / _UNITS_IN_A_YEAR[found[2]]
    born, studied = _date(birth_date), _date(study_date)
    if born is None or studied is None or studied < born:
        return None
    return round((studied - born).days / 365.2425, 2)


_UNITS_IN_A_YEAR = {"D": 365.2425, "W": 52.1775, "M": 12.0, "Y": 1.0}


def _date(text: str) -> date | None:
    digits = text.replace(".", "")[:8]
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return None
