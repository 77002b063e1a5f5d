"""What is kept of the images that went into a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from triage.core.input_characteristics import (
    as_categories,
    as_numbers,
    characteristics_of,
    values_of,
)
from triage.core.studies import Instance, Series


def series_of(count: int = 3, **headers: Any) -> Series:
    orientation = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    return Series(
        "1.2.3",
        "CT",
        tuple(
            Instance(
                f"1.2.3.{n}",
                "1.2.840.10008.5.1.4.1.1.2",
                "1.2.840.10008.1.2.1",
                f"{n}.dcm",
                {
                    "ImagePositionPatient": [0.0, 0.0, 5.0 * n],
                    "ImageOrientationPatient": orientation,
                    **headers,
                },
            )
            for n in range(count)
        ),
    )


def test_headers_become_characteristics() -> None:
    said = characteristics_of(
        series_of(
            Manufacturer="Alpha Medical",
            ManufacturerModelName="A 64",
            ConvolutionKernel=["H30s", "2"],
            SliceThickness=5.0,
            PixelSpacing=[0.5, 0.5],
            PatientAge="067Y",
        ),
        sex="f",
    )
    assert said == {
        "modality": "CT",
        "manufacturer": "Alpha Medical",
        "scanner": "A 64",
        "kernel": "H30s\\2",
        "age": "60-69",
        "sex": "F",
        "images": 3.0,
        "slice_thickness_mm": 5.0,
        "slice_distance_mm": 5.0,
        "pixel_spacing_mm": 0.5,
    }


@pytest.mark.parametrize("birth_date", ["", "1959", "unknown", "21000101"])
def test_an_age_that_is_not_known_is_left_out(birth_date: str) -> None:
    said = characteristics_of(series_of(), birth_date=birth_date, study_date="20260301")
    assert "age" not in said
    assert as_categories(said)["age"] == "not stated"


def test_headers_that_are_no_numbers_never_fail_a_run() -> None:
    said = characteristics_of(
        series_of(SliceThickness="thin", PixelSpacing=[None], ImagePositionPatient=["a", "b", "c"])
    )
    assert as_numbers(said) == {"images": 3.0}


def test_values_are_summed_up_whatever_their_size() -> None:
    large = np.linspace(0, 1, 1_000_003, dtype=np.float32).reshape(1, 1, -1)
    said = values_of(large)
    assert said["values_mean"] == pytest.approx(0.5, abs=0.01)
    assert said["values_p95"] == pytest.approx(0.95, abs=0.01)
    assert values_of(np.array([np.nan])) == {}
