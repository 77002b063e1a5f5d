"""Which series a model gets, and the reasons why it gets none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triage.core.characteristics import image_instances, largest_slice_gap_mm
from triage.core.conditions import refusal_of
from triage.core.manifest import InputSpec
from triage.core.routing import select_series
from triage.core.studies import IMAGE_HEADER_KEYWORDS, Instance, Series, Study

CT = "1.2.840.10008.5.1.4.1.1.2"
HEAD = InputSpec(modalities=("CT",), body_parts=("HEAD",), description_pattern=r"head|brain")


def instance(number: int, **headers: Any) -> Instance:
    """Return a slice; None removes a header."""
    values: dict[str, Any] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "BodyPartExamined": "HEAD",
        "Rows": 512,
        "SliceThickness": 5.0,
        "PixelSpacing": [0.5, 0.5],
        "ImagePositionPatient": [0.0, 0.0, 5.0 * number],
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        **headers,
    }
    kept = {k: v for k, v in values.items() if v is not None}
    return Instance(f"1.2.{number}", CT, "1.2.840.10008.1.2.1", f"{number}.dcm", kept)


def series(uid: str = "1.1", images: int = 20, modality: str = "CT", **headers: Any) -> Series:
    """Return a series of slices 5 mm apart."""
    return Series(uid, modality, tuple(instance(n, **headers) for n in range(images)))


@pytest.mark.parametrize(
    ("headers", "accepts", "refusal"),
    [
        ({}, {}, None),
        ({"BodyPartExamined": "CHEST"}, {}, "body part CHEST, model accepts HEAD"),
        ({"BodyPartExamined": None}, {}, "body part not stated, model accepts HEAD"),
        ({"BodyPartExamined": None, "StudyDescription": "CT Brain"}, {}, None),
        ({"BodyPartExamined": None, "ProtocolName": "HEAD routine"}, {}, None),
        (
            {"SeriesDescription": "bone"},
            {"excluded_description_pattern": "bone"},
            "its description is excluded by 'bone'",
        ),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, {}, "it is a localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, {}, "its images are secondary, not acquired"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MPR"]}, {}, "its images are derived, not original"),
        ({"ImageType": None}, {}, None),
        ({"StudyDescription": "Daily QA"}, {}, "it shows a phantom, not a patient"),
        (
            {"SliceThickness": 8.0},
            {"slice_thickness_mm": {"maximum": 5}},
            "slices of 8 mm, model accepts up to 5 mm",
        ),
        (
            {"PixelSpacing": [0.5, 1.5]},
            {"pixel_spacing_mm": {"minimum": 0.3, "maximum": 1.0}},
            "pixels of 1.5 mm, model accepts 0.3 to 1 mm",
        ),
        ({}, {"images": {"minimum": 21}}, "20 images, model accepts at least 21"),
        ({"NumberOfFrames": 2}, {"images": {"minimum": 40, "maximum": 40}}, None),
        (
            {},
            {"slice_spacing_mm": {"maximum": 2}},
            "slice distance up to 5 mm, model accepts up to 2 mm",
        ),
        ({}, {"sop_class_uids": ["1.2.3"]}, f"SOP class {CT} is not accepted"),
        (
            {"ViewPosition": "LL"},
            {"view_positions": ["PA", "AP"]},
            "view LL, model accepts PA or AP",
        ),
        ({}, {"view_positions": ["PA"]}, None),
    ],
)
def test_refusals_are_said_in_words(
    headers: dict[str, Any], accepts: dict[str, Any], refusal: str | None
) -> None:
    spec = InputSpec.model_validate({**HEAD.model_dump(), **accepts})
    assert refusal_of(series(**headers), spec) == refusal


def test_another_modality_is_refused_first() -> None:
    assert refusal_of(series(modality="MR"), HEAD) == "modality MR, model accepts CT"
    assert refusal_of(series(modality=""), HEAD) == "modality not stated, model accepts CT"


def test_derived_radiograph_is_accepted() -> None:
    spec = InputSpec(modalities=("DX",))
    assert refusal_of(series(modality="DX", ImageType=["DERIVED", "PRIMARY"]), spec) is None


def test_series_with_most_images_wins_and_the_others_give_reasons() -> None:
    study = Study(
        "1",
        (
            series("1.1", 20),
            series("1.2", 30),
            series("1.3", 99, BodyPartExamined="CHEST", SeriesDescription="thorax"),
        ),
    )
    selection = select_series(study, HEAD)
    assert selection.series is not None
    assert selection.series.series_instance_uid == "1.2"
    assert selection.reason == "series thorax: body part CHEST, model accepts HEAD"


def test_study_without_series_says_so() -> None:
    assert select_series(Study("1", ()), HEAD).reason == "the study has no series"


def test_stray_localizer_in_a_series_is_left_out() -> None:
    stray = instance(99, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SliceThickness=500.0)
    report = Instance("1.2.100", CT, "1.2.840.10008.1.2.1", "100.dcm", {})
    mixed = Series("1.1", "CT", (*series().instances, stray, report))
    assert len(image_instances(mixed).instances) == 20
    thin = InputSpec.model_validate({**HEAD.model_dump(), "slice_thickness_mm": {"maximum": 5}})
    assert refusal_of(mixed, thin) is None


def test_missing_slice_shows_as_a_gap() -> None:
    whole = series()
    with_hole = Series("1.1", "CT", whole.instances[:5] + whole.instances[6:])
    assert largest_slice_gap_mm(whole) == pytest.approx(5)
    assert largest_slice_gap_mm(with_hole) == pytest.approx(10)
    assert largest_slice_gap_mm(series(images=1)) is None


@given(st.floats(-0.5, 0.5), st.permutations(range(8)))
def test_slice_gap_is_measured_along_the_normal_whatever_order_images_come_in(
    shift: float, order: list[int]
) -> None:
    slices = [instance(n, ImagePositionPatient=[shift * n, -shift * n, 5.0 * n]) for n in order]
    # Moved within their planes, as with a tilted gantry: the distance of the planes stays 5 mm.
    assert largest_slice_gap_mm(Series("1", "CT", tuple(slices))) == pytest.approx(5)


@given(st.permutations(["1.1", "1.2", "1.3"]))
def test_choice_does_not_depend_on_the_order_of_arrival(order: list[str]) -> None:
    study = Study("1", tuple(series(uid) for uid in order))
    selection = select_series(study, HEAD)
    assert selection.series is not None
    assert selection.series.series_instance_uid == "1.1"


# The values that a receiver may hand over: by keyword, a number, a text or a list of them.
plausible = {
    "ImageType": st.lists(st.text(max_size=9), max_size=4),
    "NumberOfFrames": st.integers(-5, 10**6),
    "Rows": st.integers(0, 65535),
    "SliceThickness": st.floats(-1e9, 1e9),
    "PixelSpacing": st.lists(st.floats(-1e9, 1e9), max_size=4),
    "ImagePositionPatient": st.lists(st.floats(-1e9, 1e9), max_size=4),
    "ImageOrientationPatient": st.lists(st.floats(-1e9, 1e9), max_size=7),
    "BodyPartExamined": st.text(max_size=16),
    "StudyDescription": st.text(max_size=64),
    "ViewPosition": st.text(max_size=4),
}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.fixed_dictionaries({}, optional=plausible), max_size=5))
def test_no_header_that_a_sender_may_write_breaks_routing(headers: list[dict[str, Any]]) -> None:
    assert plausible.keys() <= set(IMAGE_HEADER_KEYWORDS)
    images = tuple(
        Instance(f"1.{n}", CT, "1.2.840.10008.1.2.1", "", h) for n, h in enumerate(headers)
    )
    selection = select_series(Study("1", (Series("1.1", "CT", images),)), HEAD)
    assert (selection.series is None) == bool(selection.reasons)
