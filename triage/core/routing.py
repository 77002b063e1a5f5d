"""Which series of a study a model gets, or the reason why it gets none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from triage.core.manifest import InputSpec, Range
from triage.core.studies import Instance, Series, Study

_NON_DIAGNOSTIC_IMAGE_TYPES = {
    "LOCALIZER": "it is a localizer",
    "SCREEN SAVE": "it is a screen capture",
    "SECONDARY": "its images are secondary, not acquired",
}
_VOLUME_MODALITIES = {"CT", "MR", "PT", "NM"}
_PHANTOM = re.compile(r"phantom|quality\s*(assurance|control)|\bQA\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen series, or None with the reasons of every series that was refused."""

    series: Series | None
    reasons: tuple[str, ...]

    @property
    def reason(self) -> str:
        """All refusals in one sentence."""
        return "; ".join(self.reasons)


def select_series(study: Study, accepts: InputSpec) -> Selection:
    """Return the series of `study` that fits `accepts` best, or the reasons why none does.

    Among those that fit, the one with the most images wins, and of equal ones the one that sorts
    first by UID, so that the choice is repeatable. A localizer (Image Type value 3 LOCALIZER,
    DICOM PS3.3 C.8.2.1.1.1) is never selected, nor a secondary or a phantom series.
    """
    fitting: list[Series] = []
    reasons: list[str] = []
    for series in study.series:
        refusal = refusal_of(series, accepts)
        if refusal is None:
            fitting.append(series)
        else:
            reasons.append(f"series {_name_of(series)}: {refusal}")
    if not study.series:
        reasons.append("the study has no series")
    best = min(fitting, key=lambda s: (-len(s.instances), s.series_instance_uid), default=None)
    return Selection(series=best, reasons=tuple(reasons))


def refusal_of(series: Series, accepts: InputSpec) -> str | None:
    """Return why `series` does not fit `accepts`, in words, or None if it fits."""
    if series.modality not in accepts.modalities:
        return (
            f"modality {series.modality or 'not stated'}, model accepts {_or(accepts.modalities)}"
        )
    images = image_instances(series)
    for check in (
        _refuse_sop_class,
        _refuse_image_type,
        _refuse_phantom,
        _refuse_description,
        _refuse_view,
        _refuse_geometry,
    ):
        refusal = check(images, accepts)
        if refusal is not None:
            return refusal
    return None


def image_instances(series: Series) -> Series:
    """Return `series` without the stray localizers and objects that carry no pixels."""
    kept = tuple(
        i for i in series.instances if i.headers.get("Rows") and "LOCALIZER" not in image_type_of(i)
    )
    has_images = bool(kept)
    return Series(
        series.series_instance_uid, series.modality, kept if has_images else series.instances
    )


def image_type_of(instance: Instance) -> tuple[str, ...]:
    """Return Image Type (0008,0008) in upper case."""
    value = instance.headers.get("ImageType") or ()
    return tuple(str(v).upper() for v in ([value] if isinstance(value, str) else value))


def _refuse_sop_class(series: Series, accepts: InputSpec) -> str | None:
    if not accepts.sop_class_uids:
        return None
    others = {i.sop_class_uid for i in series.instances} - set(accepts.sop_class_uids)
    return f"SOP class {_or(sorted(others))} is not accepted" if others else None


def _refuse_image_type(series: Series, _: InputSpec) -> str | None:
    for value, words in _NON_DIAGNOSTIC_IMAGE_TYPES.items():
        if all(value in image_type_of(instance) for instance in series.instances):
            return words
    # A radiograph for presentation is rightly DERIVED PRIMARY; a reformatted volume is not what
    # the scanner acquired.
    if series.modality in _VOLUME_MODALITIES and all(
        "DERIVED" in image_type_of(instance) for instance in series.instances
    ):
        return "its images are derived, not original"
    return None


def _refuse_phantom(series: Series, _: InputSpec) -> str | None:
    for text in _descriptions(series) + [str(v) for v in series.values_of("BodyPartExamined")]:
        if _PHANTOM.search(text):
            return "it shows a phantom, not a patient"
    return None


def _refuse_description(series: Series, accepts: InputSpec) -> str | None:
    descriptions = " | ".join(_descriptions(series))
    excluded = accepts.excluded_description_pattern
    if excluded and re.search(excluded, descriptions, re.IGNORECASE):
        return f"its description is excluded by {excluded!r}"
    if not accepts.body_parts:
        return None
    stated = {str(v).upper() for v in series.values_of("BodyPartExamined")}
    if stated & set(accepts.body_parts):
        return None
    pattern = accepts.description_pattern
    if pattern and re.search(pattern, descriptions, re.IGNORECASE):
        return None
    return (
        f"body part {_or(sorted(stated)) or 'not stated'}, model accepts {_or(accepts.body_parts)}"
    )


def _refuse_view(series: Series, accepts: InputSpec) -> str | None:
    stated = {str(v).upper() for v in series.values_of("ViewPosition")}
    if accepts.view_positions and stated and not stated & set(accepts.view_positions):
        return f"view {_or(sorted(stated))}, model accepts {_or(accepts.view_positions)}"
    return None


def _refuse_geometry(series: Series, accepts: InputSpec) -> str | None:
    count = sum(int(i.headers.get("NumberOfFrames") or 1) for i in series.instances)
    if not accepts.images.holds(count):
        return f"{count} images, model accepts {_range(accepts.images)}"
    for keyword, name, wanted in (
        ("SliceThickness", "slices", accepts.slice_thickness_mm),
        ("PixelSpacing", "pixels", accepts.pixel_spacing_mm),
    ):
        for number in _numbers(series, keyword):
            if not wanted.holds(number):
                return f"{name} of {number:g} mm, model accepts {_range(wanted)} mm"
    gap = largest_slice_gap_mm(series)
    if gap is not None and not accepts.slice_spacing_mm.holds(gap):
        accepted = _range(accepts.slice_spacing_mm)
        return f"slice distance up to {gap:.3g} mm, model accepts {accepted} mm"
    return None


def largest_slice_gap_mm(series: Series) -> float | None:
    """Return the largest distance between neighbouring slices in mm, along the slice normal.

    None where fewer than two slices state Image Position and Image Orientation (Patient),
    DICOM PS3.3 C.7.6.2.1.1.
    """
    depths: list[float] = []
    for instance in series.instances:
        position = instance.headers.get("ImagePositionPatient")
        orientation = instance.headers.get("ImageOrientationPatient")
        if not position or not orientation or len(position) != 3 or len(orientation) != 6:
            continue
        (rx, ry, rz, cx, cy, cz), (x, y, z) = map(float, orientation), map(float, position)
        normal = (ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx)
        depths.append(x * normal[0] + y * normal[1] + z * normal[2])
    return max((b - a for a, b in pairwise(sorted(depths))), default=None)


def _numbers(series: Series, keyword: str) -> list[float]:
    numbers: list[float] = []
    for value in series.values_of(keyword):
        numbers += [float(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
    return numbers


def _descriptions(series: Series) -> list[str]:
    return [
        str(value)
        for keyword in ("StudyDescription", "SeriesDescription", "ProtocolName")
        for value in series.values_of(keyword)
    ]


def _name_of(series: Series) -> str:
    described = series.values_of("SeriesDescription")
    return str(described[0]) if described else series.series_instance_uid


def _or(values: Sequence[str]) -> str:
    return " or ".join(values)


def _range(wanted: Range) -> str:
    if wanted.minimum is not None and wanted.maximum is not None:
        return f"{wanted.minimum:g} to {wanted.maximum:g}"
    return (
        f"at least {wanted.minimum:g}"
        if wanted.minimum is not None
        else f"up to {wanted.maximum:g}"
    )
