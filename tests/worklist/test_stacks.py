"""Where the images of a series lie: what two stacks are scrolled together by."""

from __future__ import annotations

from typing import Any

import pytest

from triage.core.studies import FRAME_POSITIONS
from triage.store.tables import InstanceRow, SeriesRow
from triage.worklist.stacks import SeriesView, series_view

AXIAL = [1, 0, 0, 0, 1, 0]
OBLIQUE = [1, 0, 0, 0, 0.8, 0.6]


def view(*headers: dict[str, Any]) -> SeriesView:
    """Return a series of images with these headers."""
    instances = [
        InstanceRow(
            id=number,
            sop_instance_uid=f"1.2.{number}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            number=number,
            headers={"Rows": 4, "Columns": 4, **one},
        )
        for number, one in enumerate(headers, start=1)
    ]
    return series_view(
        SeriesRow(
            series_instance_uid="1.2",
            number=1,
            modality="CT",
            description="",
            body_part="",
            is_result=False,
            instances=instances,
        ),
        None,
    )


def slice_at(
    position: list[float], orientation: list[float] = AXIAL, **more: Any
) -> dict[str, Any]:
    return {"ImagePositionPatient": position, "ImageOrientationPatient": orientation, **more}


def test_slices_tell_their_place_along_the_normal_in_order() -> None:
    stack = view(slice_at([3, 4, 10]), slice_at([3, 4, -5]), slice_at([3, 4, 2.5]))
    assert stack.normal == (0, 0, 1)
    assert [image.depths_mm for image in stack.images] == [(-5,), (2.5,), (10,)]


def test_an_oblique_stack_counts_along_its_own_normal() -> None:
    stack = view(slice_at([0, 0, 0], OBLIQUE), slice_at([7, -3, 4], OBLIQUE))
    assert stack.normal == pytest.approx((0, -0.6, 0.8))
    assert stack.images[1].depths_mm == pytest.approx((5,))


def test_frames_of_a_multi_frame_image_each_have_a_place() -> None:
    positions = [[0, 0, 0], [0, 0, 1.5], [0, 0, 3]]
    stack = view(
        {"NumberOfFrames": 3, "ImageOrientationPatient": AXIAL, FRAME_POSITIONS: positions}
    )
    assert stack.images[0].depths_mm == (0, 1.5, 3)


@pytest.mark.parametrize(
    "headers",
    [
        [{}, {}],
        [slice_at([0, 0, 0]), slice_at([0, 0, 5], [0, 1, 0, 0, 0, -1])],
        [slice_at([0, 0, 0], ["a", 0, 0, 0, 1, 0])],  # type: ignore[list-item]
        [{"NumberOfFrames": 3, "ImageOrientationPatient": AXIAL, FRAME_POSITIONS: [[0, 0, 0]]}],
    ],
)
def test_what_has_no_common_place_is_scrolled_by_number(headers: list[dict[str, Any]]) -> None:
    assert all(image.depths_mm == () for image in view(*headers).images)


def test_a_frame_of_reference_is_the_series_only_if_all_images_share_it() -> None:
    one, other = {"FrameOfReferenceUID": "1.3"}, {"FrameOfReferenceUID": "1.4"}
    assert view(one, one).frame_of_reference_uid == "1.3"
    assert view(one, other).frame_of_reference_uid == ""


def test_a_spacing_at_the_detector_is_told_from_one_in_the_patient() -> None:
    radiograph = view({"ImagerPixelSpacing": [0.2, 0.2]}).images[0]
    assert (radiograph.pixel_spacing_mm, radiograph.is_spacing_at_detector) == ((0.2, 0.2), True)
    calibrated = view({"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.15, 0.15]}).images[0]
    assert (calibrated.pixel_spacing_mm, calibrated.is_spacing_at_detector) == (
        (0.15, 0.15),
        False,
    )


def test_edges_are_named_by_image_orientation_or_else_as_the_radiograph_states_them() -> None:
    stack = view(
        slice_at([0, 0, 0], OBLIQUE, PatientOrientation=["R", "F"]),
        {"PatientOrientation": ["L", "F"]},
        {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0], "PatientOrientation": ["R", "F"]},
        {"ImageOrientationPatient": AXIAL, "NumberOfFrames": 2},
        {},
    )
    assert [image.directions for image in stack.images] == [
        ("L", "PH"),
        ("L", "F"),
        ("R", "F"),
        ("L", "P"),
        None,
    ]
