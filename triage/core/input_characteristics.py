"""What kind of images went into a run, without anything that says whose they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triage.core.characteristics import largest_slice_gap_mm
from triage.core.studies import Series, age_in_years

CATEGORIES = ("modality", "manufacturer", "scanner", "kernel", "age", "sex")
"""The characteristics that are names."""
NUMBERS = (
    "images",
    "slice_thickness_mm",
    "slice_distance_mm",
    "pixel_spacing_mm",
    "values_mean",
    "values_p05",
    "values_p50",
    "values_p95",
)
"""The characteristics that are numbers; `values_` are of the array that the model was given."""

_LONGEST_TEXT = 64
_VALUES_LOOKED_AT = 100_000
_SEXES = {"F", "M", "O"}


def characteristics_of(
    series: Series, *, sex: str = "", birth_date: str = "", study_date: str = ""
) -> dict[str, str | float]:
    """Return the characteristics of a series by the names of CATEGORIES and NUMBERS.

    What the headers do not state is left out. Dates are DICOM's (YYYYMMDD); of the age only the
    decade is kept, and from 90 on not that (45 CFR 164.514(b)(2)).
    """
    found: dict[str, str | float | None] = {
        "modality": series.modality,
        "manufacturer": _text(series, "Manufacturer"),
        "scanner": _text(series, "ManufacturerModelName"),
        "kernel": _text(series, "ConvolutionKernel"),
        "age": _age_band(_text(series, "PatientAge"), birth_date, study_date),
        "sex": sex.strip().upper() if sex.strip().upper() in _SEXES else "",
        "images": float(len(series.instances)),
        "slice_thickness_mm": _middle(series, "SliceThickness"),
        "slice_distance_mm": largest_slice_gap_mm(series),
        "pixel_spacing_mm": _middle(series, "PixelSpacing")
        or _middle(series, "ImagerPixelSpacing"),
    }
    return {name: value for name, value in found.items() if value is not None and value != ""}


def values_of(array: NDArray[Any]) -> dict[str, float]:
    """Return mean and percentiles of what a model is given, from an even sample of its values."""
    step = max(1, array.size // _VALUES_LOOKED_AT)
    sample = np.asarray(array.reshape(-1)[::step], dtype=np.float64)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return {}
    low, middle, high = np.percentile(sample, (5, 50, 95))
    numbers = {"mean": sample.mean(), "p05": low, "p50": middle, "p95": high}
    return {f"values_{name}": float(f"{value:.6g}") for name, value in numbers.items()}


def as_numbers(characteristics: Mapping[str, Any]) -> dict[str, float]:
    """Return those that are finite numbers."""
    return {
        name: float(characteristics[name])
        for name in NUMBERS
        if isinstance(characteristics.get(name), (int, float))
        and math.isfinite(characteristics[name])
    }


def as_categories(characteristics: Mapping[str, Any]) -> dict[str, str]:
    """Return those that are names; "not stated" is one too, because it can become frequent."""
    return {name: str(characteristics.get(name) or "not stated") for name in CATEGORIES}


def _text(series: Series, keyword: str) -> str:
    values = series.values_of(keyword)
    if not values:
        return ""
    parts = values[0] if isinstance(values[0], (list, tuple)) else [values[0]]
    return " ".join("\\".join(map(str, parts)).split())[:_LONGEST_TEXT]


def _middle(series: Series, keyword: str) -> float | None:
    numbers: list[float] = []
    for value in series.values_of(keyword):
        for part in value if isinstance(value, (list, tuple)) else [value]:
            try:
                numbers.append(float(part))
            except (TypeError, ValueError):
                continue
    numbers = [number for number in numbers if math.isfinite(number)]
    return float(median(numbers)) if numbers else None


def _age_band(stated: str, birth_date: str, study_date: str) -> str:
    """Return the decade of the age, such as "60-69", from Patient's Age (AS, PS3.5 6.2) or dates.

    >>> _age_band("067Y", "", ""), _age_band("", "19590301", "20260228"), _age_band("091Y", "", "")
    ('60-69', '60-69', '90 and over')
    """
    years = age_in_years(stated, birth_date, study_date)
    if years is None or not 0 <= years < 150:
        return ""
    decade = int(years) // 10 * 10
    return "90 and over" if decade >= 90 else f"{decade}-{decade + 9}"
