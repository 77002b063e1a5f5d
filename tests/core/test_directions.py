"""Letters for the directions of an image, against the geometry of the standard."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from triage.core.directions import (
    OBLIQUE_FROM_DEGREES,
    directions_of,
    opposite,
    stated_directions,
)

# DICOM PS3.3 C.7.6.2.1.1: x grows to the left hand side, y to the posterior, z towards the head.
SIDES = {
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "H": (0, 0, 1),
    "F": (0, 0, -1),
}
angles = st.floats(-math.pi, math.pi)
planes = st.tuples(angles, angles, angles)


def turned(plane: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the directions of rows and columns, two unit vectors at right angles."""
    (cx, sx), (cy, sy), (cz, sz) = ((math.cos(a), math.sin(a)) for a in plane)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return (about_x @ about_y @ about_z).T[:2]


def letters(row: NDArray[np.float64], column: NDArray[np.float64]) -> tuple[str, str]:
    found = directions_of([*row.tolist(), *column.tolist()])
    assert found is not None
    return found


@given(planes)
def test_letters_name_the_sides_that_a_direction_is_nearest_to(
    plane: tuple[float, float, float],
) -> None:
    for direction, said in zip(turned(plane), letters(*turned(plane)), strict=True):
        nearness = sorted((float(np.dot(direction, SIDES[side])) for side in SIDES), reverse=True)
        shown = [float(np.dot(direction, SIDES[letter])) for letter in said]
        assert shown == pytest.approx(nearness[: len(said)])
        leaning = math.degrees(math.asin(min(1.0, nearness[1])))
        if abs(leaning - OBLIQUE_FROM_DEGREES) > 1e-6:
            assert len(said) == (2 if leaning > OBLIQUE_FROM_DEGREES else 1)


@given(planes)
def test_what_runs_the_other_way_has_the_opposite_letters(
    plane: tuple[float, float, float],
) -> None:
    row, column = turned(plane)
    right, lower = letters(row, column)
    assert letters(-row, column) == (opposite(right), lower)
    assert letters(row, -column) == (right, opposite(lower))
    assert letters(column, row) == (lower, right)
    assert opposite(opposite(right)) == right


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        ([1, 0, 0, 0, 1, 0], ("L", "P")),  # axial
        ([1, 0, 0, 0, 0, -1], ("L", "F")),  # coronal
        ([0, 1, 0, 0, 0, -1], ("P", "F")),  # sagittal
        ([-1, 0, 0, 0, -1, 0], ("R", "A")),  # prone
        ([1, 0, 0, 0, math.cos(0.35), -math.sin(0.35)], ("L", "PF")),  # a gantry tilted by 20°
        ([0.9986, 0.0523, 0, -0.0523, 0.9986, 0], ("L", "P")),  # a head turned by 3°
    ],
)
def test_usual_planes(orientation: list[float], expected: tuple[str, str]) -> None:
    assert directions_of(orientation) == expected


@pytest.mark.parametrize(
    "orientation",
    [
        [0, 0, 0, 0, 0, 0],
        [1, 0, 0, 1, 0, 0],
        [1, 0, 0, 0, math.nan, 0],
        [math.inf, 0, 0, 0, 1, 0],
        [512, 0, 0, 0, 512, 0],
    ],
)
def test_numbers_that_are_no_directions_have_no_letters(orientation: list[float]) -> None:
    assert directions_of(orientation) is None


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (["L", "F"], ("L", "F")),
        (["AR", "FL "], ("AR", "FL")),
        (["L", "R"], None),
        (["L"], None),
        (["L", ""], None),
        (["RL", "F"], None),
        (["RT", "CD"], None),  # a quadruped's
        ("LF", None),
        (None, None),
    ],
)
def test_patient_orientation_is_taken_where_it_says_something(
    stated: object, expected: tuple[str, str] | None
) -> None:
    assert stated_directions(stated) == expected
