"""Outlines that are the mask again when they are filled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path
from numpy.typing import NDArray

from triage.results.contours import Points, keyhole, regions_of

SHAPE = (9, 11)
masks = arrays(np.bool_, SHAPE)


def filled(ring: Points, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which middles of pixels lie within a closed ring (even-odd rule)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    x, y = columns.ravel().astype(float), rows.ravel().astype(float)
    inside = np.zeros(x.shape, np.bool_)
    for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if y1 == y2:
            continue
        crosses = (y1 > y) != (y2 > y)
        inside ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside.reshape(shape)


@given(masks)
def test_a_mask_filled_again_is_the_same_mask(mask: NDArray[np.bool_]) -> None:
    again = np.zeros(SHAPE, np.bool_)
    for region in regions_of(mask):
        again ^= filled(region.outer, SHAPE)
        for hole in region.holes:
            again ^= filled(hole, SHAPE)
    np.testing.assert_array_equal(again, mask)


@given(masks)
def test_so_it_is_with_holes_reached_by_keyholes(mask: NDArray[np.bool_]) -> None:
    again = np.zeros(SHAPE, np.bool_)
    for region in regions_of(mask):
        again ^= filled(keyhole(region), SHAPE)
    np.testing.assert_array_equal(again, mask)


def test_a_ring_is_one_region_with_a_hole_that_turns_the_other_way() -> None:
    mask = np.ones((5, 5), np.bool_)
    mask[2, 2] = False
    [region] = regions_of(mask)
    assert len(region.holes) == 1
    ring = keyhole(region)
    winding = Path(np.concatenate([ring, ring[:1]])).contains_point((2.0, 2.0))
    assert not winding  # also by the rule that fills whatever is turned around


def test_a_straight_edge_has_no_points_between_its_ends() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[5:30, 10:35] = True
    [region] = regions_of(mask)
    assert len(region.outer) == 8  # corners are cut between the middles of two pixels


@pytest.mark.parametrize("place", [(0, 0), (0, 10), (8, 10), (4, 5)])
def test_a_single_pixel_is_outlined_also_at_the_rim(place: tuple[int, int]) -> None:
    mask = np.zeros(SHAPE, np.bool_)
    mask[place] = True
    [region] = regions_of(mask)
    np.testing.assert_array_equal(region.outer.mean(axis=0), place[::-1])


def test_nothing_has_no_outline() -> None:
    assert regions_of(np.zeros(SHAPE, np.bool_)) == []
