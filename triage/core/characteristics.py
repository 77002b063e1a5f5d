"""What the headers of a series say of it: all that conditions, expressions and scores look at.

Nothing here fails on a header: what no image states, or states wrongly, is not stated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from triage.core.kinds import image_type_of
from triage.core.studies import FRAME_POSITIONS, Patient, Series, Study

_MOST_TEXTS = 8
Vector = tuple[float, float, float]

# Up to this angle to an axis, a slice is still called after it: gantries tilt by 30 degrees.
_LEANING_COSINE = math.cos(math.radians(35.0))
_PLANES = ("sagittal", "coronal", "axial")  # normal along x, y, z of the patient

# Siemens: letter, sometimes a second, then the sharpness from 10 to 90.
_SIEMENS_KERNEL = re.compile(r"^[A-Z][A-Z]?(\d\d)", re.IGNORECASE)
_CANON_KERNEL = re.compile(r"^FC(\d\d)", re.IGNORECASE)
_SOFT_KERNEL = re.compile(r"^(SOFT|STAND|STD|SMOOTH|MEDIUM|U?[ABC]$|BRAIN)", re.IGNORECASE)
_BONE_KERNEL = re.compile(r"^(BONE|LUNG|EDGE|SHARP|ULTRA|U?[DEL]$|Y[A-D]$)", re.IGNORECASE)
_SOFT_WORDS = re.compile(r"\b(soft|standard|std|brain|weichteil\w*)\b", re.IGNORECASE)
_BONE_WORDS = re.compile(r"\b(bone|sharp|lung|knochen)\b", re.IGNORECASE)

_NO_AGENT = re.compile(r"^\s*(none|no|n|nil|without|w/?o|ohne|0)?\s*$", re.IGNORECASE)
_WITHOUT_CONTRAST = re.compile(
    r"\b(without|w/?o|non|no|pre|ohne|sans|sin)[ -]*(iv[ -]*)?(contrast\w*|km|kontrast\w*)"
    r"|\bnativ\w*|\bnon[ -]?enhanced|\bunenhanced|\bplain\b|(^|[\s_])-c\b",
    re.IGNORECASE,
)
_WITH_CONTRAST = re.compile(
    r"\b(with|w/|post|iv|mit|avec|con)[ -]*(iv[ -]*)?"
    r"(contrast\w*|contraste|km\b|kontrast\w*|gad\w*|gd\b)"
    r"|\bcontrast[ -]enhanced|\b(angio\w*|cta|ctpa|arterial|venous|portal)\b|\+[ ]?(c|gd|km)\b",
    re.IGNORECASE,
)
_B_VALUE_IN_NAME = re.compile(r"b(?:[ _=-]?)(\d{1,5})(?!\d)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Characteristics:
    """A series as its headers describe it.

    Attributes:
        modality: Modality (0008,0060).
        sop_class_uids: those of its images.
        image_types: all values of Image Type (0008,0008), in upper case.
        common_image_types: those that every image has.
        images: images, each frame counted.
        description, protocol, study_description: texts, "" where not stated.
        body_parts, lateralities, view_positions: values in upper case.
        orientations: "axial", "coronal", "sagittal" or "oblique", of the images that state one.
        slice_thickness_mm, pixel_spacing_mm, b_values: distinct values; b-values in s/mm².
        slice_spacing_mm: the largest distance between neighbouring slices, along their normal.
        contrast: whether contrast agent was given; None where nothing says so or otherwise.
        kernel: Convolution Kernel (0018,1210).
        kernel_kind: "soft" or "bone" (whatever is sharp), "" where it is not known.
        sequence_name: Sequence Name or Pulse Sequence Name.
        frames_of_reference: Frame of Reference UIDs (0020,0052).
        patient: age and sex.
    """

    modality: str
    sop_class_uids: tuple[str, ...]
    image_types: tuple[str, ...]
    common_image_types: frozenset[str]
    images: int
    description: str
    protocol: str
    study_description: str
    body_parts: tuple[str, ...]
    lateralities: tuple[str, ...]
    view_positions: tuple[str, ...]
    orientations: tuple[str, ...]
    slice_thickness_mm: tuple[float, ...]
    pixel_spacing_mm: tuple[float, ...]
    slice_spacing_mm: float | None
    contrast: bool | None
    kernel: str
    kernel_kind: str
    manufacturer: str
    model_name: str
    sequence_name: str
    b_values: tuple[float, ...]
    echo_time_ms: float | None
    repetition_time_ms: float | None
    rows: int | None
    columns: int | None
    frames_of_reference: tuple[str, ...]
    patient: Patient

    @property
    def descriptions(self) -> str:
        """Study Description, Series Description and Protocol Name in one line."""
        return " | ".join(filter(None, (self.study_description, self.description, self.protocol)))


def image_instances(series: Series) -> Series:
    """Return `series` without the stray localizers and objects that carry no pixels."""
    kept = tuple(
        i for i in series.instances if i.headers.get("Rows") and "LOCALIZER" not in image_type_of(i)
    )
    has_images = bool(kept)
    return Series(
        series.series_instance_uid, series.modality, kept if has_images else series.instances
    )


_NOBODY = Patient()


def characteristics_of(series: Series, patient: Patient = _NOBODY) -> Characteristics:
    """Return what the headers of the images of `series` say."""
    types = [frozenset(filter(None, image_type_of(i))) for i in series.instances]
    description = _text(series, "SeriesDescription")
    kernel = _text(series, "ConvolutionKernel")
    sequence = _text(series, "SequenceName") or _text(series, "PulseSequenceName")
    return Characteristics(
        modality=series.modality,
        sop_class_uids=tuple(dict.fromkeys(i.sop_class_uid for i in series.instances)),
        image_types=tuple(sorted(frozenset().union(*types))),
        common_image_types=frozenset.intersection(*types) if types else frozenset(),
        images=sum(_whole(i.headers.get("NumberOfFrames")) or 1 for i in series.instances),
        description=description,
        protocol=_text(series, "ProtocolName"),
        study_description=_text(series, "StudyDescription"),
        body_parts=_codes(series, "BodyPartExamined"),
        lateralities=_lateralities(series),
        view_positions=_codes(series, "ViewPosition"),
        orientations=_orientations(series),
        slice_thickness_mm=_numbers(series, "SliceThickness"),
        pixel_spacing_mm=_numbers(series, "PixelSpacing"),
        slice_spacing_mm=largest_slice_gap_mm(series),
        contrast=_contrast(series),
        kernel=kernel,
        kernel_kind=kernel_kind(kernel, description),
        manufacturer=_text(series, "Manufacturer"),
        model_name=_text(series, "ManufacturerModelName"),
        sequence_name=sequence,
        b_values=_b_values(series, sequence, description),
        echo_time_ms=_first(series, "EchoTime"),
        repetition_time_ms=_first(series, "RepetitionTime"),
        rows=_whole(next(iter(series.values_of("Rows")), None)),
        columns=_whole(next(iter(series.values_of("Columns")), None)),
        frames_of_reference=tuple(map(str, series.values_of("FrameOfReferenceUID"))),
        patient=patient,
    )


def of_study(study: Study, series: Series) -> Characteristics:
    """Return the characteristics of the images of one series of `study`."""
    return characteristics_of(image_instances(series), study.patient)


def largest_slice_gap_mm(series: Series) -> float | None:
    """Return the largest distance between neighbouring slices in mm, along the slice normal.

    None where fewer than two slices state Image Position and Image Orientation (Patient),
    DICOM PS3.3 C.7.6.2.1.1.
    """
    depths: list[float] = []
    for instance in series.instances:
        normal = _normal(instance.headers.get("ImageOrientationPatient"))
        if normal is None:
            continue
        of_frames = instance.headers.get(FRAME_POSITIONS)
        of_image = [instance.headers.get("ImagePositionPatient")]
        for position in of_frames if isinstance(of_frames, list) else of_image:
            place = _vector(position, 3)
            if place is not None:
                depths.append(sum(p * n for p, n in zip(place, normal, strict=True)))
    return max((b - a for a, b in pairwise(sorted(depths))), default=None)


def kernel_kind(kernel: str, description: str = "") -> str:
    """Return "soft" or "bone" for a reconstruction kernel, "" where it is not known.

    Manufacturers name kernels as they like; the description counts where the name says nothing.

    >>> kernel_kind("H31s"), kernel_kind("BONEPLUS"), kernel_kind("FC30"), kernel_kind("??")
    ('soft', 'bone', 'bone', '')
    """
    name = kernel.strip()
    canon = _CANON_KERNEL.match(name)
    if canon:
        return "bone" if 30 <= int(canon[1]) < 40 or int(canon[1]) >= 50 else "soft"
    siemens = _SIEMENS_KERNEL.match(name)
    if siemens:
        return "bone" if int(siemens[1]) >= 50 else "soft"
    for kind, names, words in (
        ("bone", _BONE_KERNEL, _BONE_WORDS),
        ("soft", _SOFT_KERNEL, _SOFT_WORDS),
    ):
        if names.match(name) or (not name and words.search(description)):
            return kind
    return ""


def _contrast(series: Series) -> bool | None:
    agents = [str(agent) for agent in series.values_of("ContrastBolusAgent")]
    if series.values_of("ContrastBolusAgentSequence"):
        return True
    if agents:
        return not all(_NO_AGENT.match(agent) for agent in agents)
    # The series' own words before those of the study, which speaks of all of its series.
    for keyword in ("SeriesDescription", "ProtocolName", "StudyDescription"):
        text = _text(series, keyword)
        if _WITHOUT_CONTRAST.search(text):
            return None if _WITH_CONTRAST.search(_WITHOUT_CONTRAST.sub(" ", text)) else False
        if _WITH_CONTRAST.search(text):
            return True
    return None


def _b_values(series: Series, sequence: str, description: str) -> tuple[float, ...]:
    stated = _numbers(series, "DiffusionBValue")
    if stated or series.modality != "MR":
        return stated
    found = [
        float(value)
        for name in (sequence, description)
        if re.search(r"dw|diff|ep_b|trace|b[ _=-]?\d", name, re.IGNORECASE)
        for value in _B_VALUE_IN_NAME.findall(name)
    ]
    return tuple(sorted(set(found)))


def _lateralities(series: Series) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for keyword in ("ImageLaterality", "FrameLaterality", "Laterality"):
        found.update(dict.fromkeys(_codes(series, keyword)))
    return tuple(found)


def _orientations(series: Series) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for stated in series.values_of("ImageOrientationPatient"):
        normal = _normal(stated)
        if normal is not None:
            found[_plane(normal)] = None
    return tuple(found)


def _plane(normal: Vector) -> str:
    length = math.sqrt(sum(n * n for n in normal))
    cosines = [abs(n) / length for n in normal]
    nearest = max(range(3), key=cosines.__getitem__)
    return _PLANES[nearest] if cosines[nearest] >= _LEANING_COSINE else "oblique"


def _normal(orientation: Any) -> Vector | None:
    directions = _vector(orientation, 6)
    if directions is None:
        return None
    rx, ry, rz, cx, cy, cz = directions
    normal = (ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx)
    is_direction = all(map(math.isfinite, normal)) and any(abs(n) > 1e-6 for n in normal)
    return normal if is_direction and math.isfinite(sum(n * n for n in normal)) else None


def _vector(value: Any, length: int) -> tuple[float, ...] | None:
    if not isinstance(value, (list, tuple)) or len(value) != length:
        return None
    numbers = tuple(_finite(v) for v in value)
    return tuple(n for n in numbers if n is not None) if None not in numbers else None


def _numbers(series: Series, keyword: str) -> tuple[float, ...]:
    found: dict[float, None] = {}
    for value in series.values_of(keyword):
        for each in value if isinstance(value, (list, tuple)) else [value]:
            number = _finite(each)
            if number is not None:
                found[number] = None
    return tuple(found)


def _first(series: Series, keyword: str) -> float | None:
    return next(iter(_numbers(series, keyword)), None)


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    number = _finite(value)
    return int(number) if number is not None else None


def _text(series: Series, keyword: str) -> str:
    # Those of a mixed series stand one after the other, so that patterns find each.
    values = _flat(series.values_of(keyword))[:_MOST_TEXTS]
    return " ".join(map(str, values)).strip()


def _codes(series: Series, keyword: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(v).strip().upper() for v in _flat(series.values_of(keyword))))


def _flat(values: Sequence[Any]) -> list[Any]:
    return [v for value in values for v in (value if isinstance(value, (list, tuple)) else [value])]
