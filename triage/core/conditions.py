"""Whether a series is what a model accepts, and if not, why, in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from triage.core.characteristics import Characteristics, image_instances, of_study
from triage.core.expressions import UndecidedError, holds, values_of
from triage.core.kinds import kinds_of
from triage.core.manifest.inputs import InputSpec
from triage.core.manifest.parts import Range
from triage.core.studies import Series, Study

_Check = Callable[[Characteristics, InputSpec], str | None]


def refusal_of(series: Series, accepts: InputSpec, study: Study | None = None) -> str | None:
    """Return why `series` does not fit `accepts`, in words, or None if it fits.

    Args:
        series: the series.
        accepts: what a model accepts.
        study: the study of the series, for its patient and what expressions say of it.
    """
    study = study or Study("", (series,))
    if series.modality not in accepts.modalities:
        return _not_among("modality", [series.modality], accepts.modalities)
    if not series.instances:
        return "none of its images is here"
    images = image_instances(series)
    stated = of_study(study, series)
    refusal = _first_refusal(_CHECKS_OF_KIND, stated, accepts)
    if refusal is not None:
        return refusal
    for rule in kinds_of(images, accepts.image_types, accepts.sop_class_uids):
        return rule.words
    refusal = _first_refusal(_CHECKS, stated, accepts)
    return refusal if refusal is not None else _refuse_expression(stated, accepts, study)


def _first_refusal(
    checks: Sequence[_Check], stated: Characteristics, accepts: InputSpec
) -> str | None:
    refusals = (check(stated, accepts) for check in checks)
    return next((refusal for refusal in refusals if refusal is not None), None)


def _refuse_sop_class(stated: Characteristics, accepts: InputSpec) -> str | None:
    if not accepts.sop_class_uids:
        return None
    others = set(stated.sop_class_uids) - set(accepts.sop_class_uids)
    return f"SOP class {_or(sorted(others))} is not accepted" if others else None


def _refuse_image_type(stated: Characteristics, accepts: InputSpec) -> str | None:
    wanted = accepts.image_types
    if not wanted or stated.common_image_types & set(wanted):
        return None
    found = "\\".join(stated.image_types)
    return f"image type {found or 'not stated'}, model accepts {_or(wanted)}"


def _refuse_description(stated: Characteristics, accepts: InputSpec) -> str | None:
    excluded = accepts.excluded_description_pattern
    if excluded and _finds(excluded, stated.descriptions):
        return f"its description is excluded by {excluded!r}"
    pattern = accepts.description_pattern
    is_described = pattern is not None and _finds(pattern, stated.descriptions)
    if accepts.body_parts:
        if is_described or set(stated.body_parts) & set(accepts.body_parts):
            return None
        return _not_among("body part", sorted(stated.body_parts), accepts.body_parts)
    if pattern is not None and not is_described:
        return f"its description does not match {pattern!r}"
    return None


def _refuse_view(stated: Characteristics, accepts: InputSpec) -> str | None:
    # A series may hold several views; the image that fits is then taken.
    found, wanted = stated.view_positions, accepts.view_positions
    if set(found) & set(wanted):
        return None
    return _of_values("view", found, wanted, accepts, "view_positions")


def _refuse_images(stated: Characteristics, accepts: InputSpec) -> str | None:
    if accepts.images.holds(stated.images):
        return None
    return f"{stated.images} images, model accepts {_range(accepts.images)}"


def _refuse_lengths(stated: Characteristics, accepts: InputSpec) -> str | None:
    gap = () if stated.slice_spacing_mm is None else (stated.slice_spacing_mm,)
    for key, name, found, wanted in (
        ("slice_thickness_mm", "slices of", stated.slice_thickness_mm, accepts.slice_thickness_mm),
        ("pixel_spacing_mm", "pixels of", stated.pixel_spacing_mm, accepts.pixel_spacing_mm),
        ("slice_spacing_mm", "slice distance up to", gap, accepts.slice_spacing_mm),
    ):
        if not found and key in accepts.must_state:
            return f"{key.removesuffix('_mm').replace('_', ' ')} not stated"
        for number in found:
            if not wanted.holds(number):
                return f"{name} {number:.3g} mm, model accepts {_range(wanted)} mm"
    return None


def _refuse_orientation(stated: Characteristics, accepts: InputSpec) -> str | None:
    found, wanted = stated.orientations, accepts.orientations
    return _of_values("orientation", found, wanted, accepts, "orientations")


def _refuse_contrast(stated: Characteristics, accepts: InputSpec) -> str | None:
    if stated.contrast is None and "contrast" in accepts.must_state:
        return "contrast not stated"
    if accepts.contrast is None:
        return None
    found = "with" if stated.contrast else "without"
    if found == accepts.contrast:
        return None
    known = "contrast not stated" if stated.contrast is None else f"{found} contrast"
    return f"{known}, model accepts images {accepts.contrast} contrast"


def _refuse_kernel(stated: Characteristics, accepts: InputSpec) -> str | None:
    found = (stated.kernel_kind,) if stated.kernel_kind else ()
    refusal = _of_values("kernel", found, accepts.kernels, accepts, "kernels")
    if refusal is not None:
        return refusal
    pattern = accepts.kernel_pattern
    if pattern is None or _finds(pattern, stated.kernel):
        return None
    return f"kernel {stated.kernel or 'not stated'}, model accepts what matches {pattern!r}"


def _refuse_laterality(stated: Characteristics, accepts: InputSpec) -> str | None:
    found, wanted = stated.lateralities, accepts.lateralities
    return _of_values("laterality", found, wanted, accepts, "lateralities")


def _refuse_patterns(stated: Characteristics, accepts: InputSpec) -> str | None:
    for key, name, found, pattern in (
        ("manufacturer_pattern", "manufacturer", stated.manufacturer, accepts.manufacturer_pattern),
        ("model_name_pattern", "model name", stated.model_name, accepts.model_name_pattern),
        (
            "sequence_name_pattern",
            "sequence",
            stated.sequence_name,
            accepts.sequence_name_pattern,
        ),
    ):
        if not found:
            if key in accepts.must_state:
                return f"{name} not stated"
        elif pattern is not None and not _finds(pattern, found):
            return f"{name} {found}, model accepts what matches {pattern!r}"
    return None


def _refuse_patient(stated: Characteristics, accepts: InputSpec) -> str | None:
    age = stated.patient.age_years
    if age is None and "patient_age_years" in accepts.must_state:
        return "age of the patient not stated"
    if age is not None and not accepts.patient_age_years.holds(age):
        wanted = _range(accepts.patient_age_years)
        return f"patient of {age:.3g} years, model accepts {wanted} years"
    sex = (stated.patient.sex,) if stated.patient.sex else ()
    return _of_values("patient's sex", sex, accepts.patient_sexes, accepts, "patient_sexes")


def _refuse_b_values(stated: Characteristics, accepts: InputSpec) -> str | None:
    found, wanted = stated.b_values, accepts.b_values
    if not found:
        return "b-value not stated" if "b_values" in accepts.must_state else None
    if any(map(wanted.holds, found)):
        return None
    values = _or([f"{value:g}" for value in found])
    return f"b-value {values} s/mm², model accepts {_range(wanted)} s/mm²"


_CHECKS_OF_KIND: tuple[_Check, ...] = (_refuse_sop_class, _refuse_image_type)
_CHECKS: tuple[_Check, ...] = (
    _refuse_description,
    _refuse_view,
    _refuse_images,
    _refuse_lengths,
    _refuse_orientation,
    _refuse_contrast,
    _refuse_kernel,
    _refuse_laterality,
    _refuse_patterns,
    _refuse_patient,
    _refuse_b_values,
)


def _refuse_expression(stated: Characteristics, accepts: InputSpec, study: Study) -> str | None:
    if accepts.when is None:
        return None
    try:
        is_met = holds(accepts.when, values_of(stated, study))
    except UndecidedError as error:
        return f"{accepts.when!r} cannot be decided: {error}"
    return None if is_met else f"{accepts.when!r} is not true of it"


def _of_values(
    name: str, found: Sequence[str], wanted: Sequence[str], accepts: InputSpec, key: str
) -> str | None:
    """Refuse a value that is not wanted, or none where the manifest's `key` must be stated."""
    if not found:
        return f"{name} not stated" if key in accepts.must_state else None
    if not wanted or set(found) <= set(wanted):
        return None
    return _not_among(name, found, wanted)


def _not_among(name: str, found: Sequence[str], wanted: Sequence[str]) -> str:
    return f"{name} {_or(list(filter(None, found))) or 'not stated'}, model accepts {_or(wanted)}"


def _finds(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None


def _or(values: Sequence[str]) -> str:
    return " or ".join(values)


def _range(wanted: Range) -> str:
    if wanted.minimum is not None and wanted.maximum is not None:
        return f"{wanted.minimum:g} to {wanted.maximum:g}"
    if wanted.minimum is not None:
        return f"at least {wanted.minimum:g}"
    return f"up to {wanted.maximum:g}" if wanted.maximum is not None else "any"
