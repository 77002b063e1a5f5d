"""The outlines of a mask on its plane, between the middles of pixels inside and outside of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import contourpy
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]
_Polygons = tuple[list[Points], list[NDArray[np.uint32]]]

_BETWEEN, _ABOVE = 0.5, 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A connected part of a mask.

    Attributes:
        outer: (points, 2), columns and rows, (0, 0) being the middle of the first pixel. It is
            closed by going back to the first point, which is not repeated.
        holes: of the same form, each within the outer outline.
    """

    outer: Points
    holes: tuple[Points, ...] = ()


def regions_of(mask: Mask) -> list[Region]:
    """Return the regions of `mask` (rows, columns); drawn again they are the same pixels.

    The middle of a pixel is within an outline exactly where the mask is set, also for a region of
    one pixel. Points on a straight line between others are left out.
    """
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return []
    top, left = rows.min(), columns.min()
    cropped = mask[top : rows.max() + 1, left : columns.max() + 1]
    # The rim of zeros closes what touches the edge of the image.
    generator = contourpy.contour_generator(
        z=np.pad(cropped, 1).astype(np.float64),
        name="serial",
        fill_type=contourpy.FillType.OuterOffset,
    )
    polygons, offsets = cast("_Polygons", generator.filled(_BETWEEN, _ABOVE))
    shift = np.array([left - 1, top - 1], np.float64)
    regions = []
    for points, ends in zip(polygons, offsets, strict=True):
        rings = [
            _corners(points[start : end - 1] + shift)  # the last point repeats the first
            for start, end in pairwise(ends)
        ]
        regions.append(Region(rings[0], tuple(rings[1:])))
    return regions


def keyhole(region: Region) -> Points:
    """Return one outline of a region with its holes (DICOM PS3.3 C.8.8.6.3).

    Each hole is entered and left by the same way from the nearest point of what is there. Holes
    are turned the other way round, so that the area is right by every rule of filling.
    """
    ring = region.outer
    for hole in region.holes:
        distances = np.linalg.norm(ring[:, None] - hole[None], axis=-1)
        here, there = np.unravel_index(int(distances.argmin()), distances.shape)
        turned = np.roll(hole, -int(there), axis=0)
        if _signed_area(hole) * _signed_area(region.outer) > 0:
            turned = np.roll(turned[::-1], 1, axis=0)
        way = [ring[: here + 1], turned, turned[:1], ring[here:]]
        ring = np.concatenate(way)
    return ring


def _corners(ring: Points) -> Points:
    before = ring - np.roll(ring, 1, axis=0)
    after = np.roll(ring, -1, axis=0) - ring
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return np.asarray(ring[turn != 0])


def _signed_area(ring: Points) -> float:
    following = np.roll(ring, -1, axis=0)
    return float((ring[:, 0] * following[:, 1] - following[:, 0] * ring[:, 1]).sum() / 2)
