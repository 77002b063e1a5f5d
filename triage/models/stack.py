"""Slices in order along their normal, with every gap, tilt and stray image found out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triage.core.analysis import InputRefusedError
from triage.core.manifest import VolumeInput
from triage.models.sources import Frame

_MISSING_SLICE = 1.5
_MOST_TO_INTERPOLATE = 3.5  # two slices in a row are missing
_UNEVEN = 0.05  # of the usual distance: below it, rounding of positions and table feed
_STRAY_SHARE = 0.1
_SAME_DIRECTION = 1e-3
_SAME_PLACE_MM = 0.01
_OFF_LINE_MM = 1.0
_TILT_DEGREES = 0.5  # below it, rounding of positions

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Slices of one orientation and size, in ascending order along their normal.

    Attributes:
        frames: the slices.
        row, column, normal: unit vectors in LPS; the column index grows along `row`.
        positions: (slices, 3), the centre of each slice's first pixel, LPS in mm.
        depths: (slices,), along the normal.
        spacing_mm: between rows and between columns.
    """

    frames: tuple[Frame, ...]
    row: Matrix
    column: Matrix
    normal: Matrix
    positions: Matrix
    depths: Matrix
    spacing_mm: tuple[float, float]

    @property
    def affine(self) -> Matrix:
        """(4, 4), takes (column, row, slice, 1) to LPS in mm, through the first and last slice."""
        affine = np.eye(4)
        affine[:3, 0] = self.row * self.spacing_mm[1]
        affine[:3, 1] = self.column * self.spacing_mm[0]
        affine[:3, 2] = (self.positions[-1] - self.positions[0]) / (len(self.frames) - 1)
        affine[:3, 3] = self.positions[0]
        return affine

    @property
    def tilt_degrees(self) -> float:
        """Between the normal and the direction in which the slices follow one another."""
        along = self.positions[-1] - self.positions[0]
        cosine = float(along @ self.normal / np.linalg.norm(along))
        return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def stack_of(frames: Sequence[Frame], wanted: VolumeInput, remarks: list[str]) -> Stack:
    """Return the slices in order; what was left out or is unusual is added to `remarks`.

    Raises:
        InputRefusedError: they are no stack, or one that the manifest refuses.
    """
    alike = _of_one_orientation(frames, remarks)
    row, column, normal = _directions(alike[0])
    ordered = _one_at_each_place(alike, normal, remarks)
    positions = np.array([_position(frame) for frame in ordered])
    spacing = _pixel_spacing(ordered[0])
    depths = positions @ normal
    stack = Stack(tuple(ordered), row, column, normal, positions, depths, spacing)
    _check_line(stack)
    _check_gaps(stack, wanted, remarks)
    _check_tilt(stack, wanted, remarks)
    _check_evenness(stack, wanted, remarks)
    return stack


def is_tilt(degrees: float) -> bool:
    """Return whether the slices follow one another askew, but for rounding."""
    return degrees > _TILT_DEGREES


def are_even(depths: Matrix) -> bool:
    """Return whether all slices have the same distance, but for rounding."""
    gaps = np.diff(depths)
    usual = np.median(gaps)
    return bool((np.abs(gaps - usual) <= _UNEVEN * usual).all())


def _of_one_orientation(frames: Sequence[Frame], remarks: list[str]) -> list[Frame]:
    groups: list[list[Frame]] = []
    for frame in frames:
        if _orientation(frame) is None or frame.floats("ImagePositionPatient", 3) is None:
            continue
        fitting = (group for group in groups if _fits(frame, group[0]))
        group = next(fitting, None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    if not groups:
        raise InputRefusedError("no image states its position and orientation (PS3.3 C.7.6.2)")
    largest = max(groups, key=len)
    others = len(frames) - len(largest)
    if others > _STRAY_SHARE * len(frames):
        raise InputRefusedError(
            f"the series is mixed: {others} of {len(frames)} images have another orientation, "
            "size or pixel spacing than the rest, or none"
        )
    if others:
        remarks.append(f"{others} stray images of another orientation or size left out")
    if len(largest) < 2:
        raise InputRefusedError("the series has 1 image with a position; a volume needs 2")
    return largest


def _fits(frame: Frame, other: Frame) -> bool:
    one, two = frame.instance.dataset, other.instance.dataset
    return (
        (one.Rows, one.Columns) == (two.Rows, two.Columns)
        and np.allclose(_pixel_spacing(frame), _pixel_spacing(other), rtol=1e-3)
        and np.allclose(_required(frame), _required(other), atol=_SAME_DIRECTION)
    )


def _orientation(frame: Frame) -> Matrix | None:
    return frame.floats("ImageOrientationPatient", 6)


def _required(frame: Frame) -> Matrix:
    orientation = _orientation(frame)
    assert orientation is not None, "images without an orientation were left out before"
    return orientation


def _position(frame: Frame) -> Matrix:
    position = frame.floats("ImagePositionPatient", 3)
    assert position is not None, "images without a position were left out before"
    return position


def _pixel_spacing(frame: Frame) -> tuple[float, float]:
    spacing = frame.floats("PixelSpacing", 2)
    if spacing is None or (spacing <= 0).any():
        raise InputRefusedError(f"{frame.name} states no Pixel Spacing")
    return float(spacing[0]), float(spacing[1])


def _directions(frame: Frame) -> tuple[Matrix, Matrix, Matrix]:
    """Return the directions in which columns and rows count up, and the normal, as unit vectors.

    The first three values of Image Orientation (Patient) are the direction of a row, along which
    the column index grows (PS3.3 C.7.6.2.1.1).
    """
    orientation = _required(frame)
    lengths = np.linalg.norm(orientation[:3]), np.linalg.norm(orientation[3:])
    normal = np.cross(orientation[:3], orientation[3:])
    if not np.allclose([*lengths, np.linalg.norm(normal)], 1.0, atol=0.01):
        raise InputRefusedError(
            f"Image Orientation (Patient) of {frame.name} is not two perpendicular unit vectors"
        )
    return (
        orientation[:3] / lengths[0],
        orientation[3:] / lengths[1],
        normal / np.linalg.norm(normal),
    )


def _one_at_each_place(frames: list[Frame], normal: Matrix, remarks: list[str]) -> list[Frame]:
    depths = {id(frame): float(_position(frame) @ normal) for frame in frames}
    ordered = sorted(frames, key=lambda frame: (depths[id(frame)], frame.rank))
    kept: list[Frame] = []
    for frame in ordered:
        if kept and depths[id(frame)] - depths[id(kept[-1])] < _SAME_PLACE_MM:
            kept[-1] = min(kept[-1], frame, key=lambda each: each.rank)
        else:
            kept.append(frame)
    if len(kept) < 2:
        raise InputRefusedError("all images lie at the same place; a volume needs at least 2")
    if len(kept) < len(frames):
        remarks.append(f"{len(frames) - len(kept)} images at the place of another left out")
    return kept


def _check_line(stack: Stack) -> None:
    positions, depths = stack.positions, stack.depths
    share = (depths - depths[0]) / (depths[-1] - depths[0])
    on_line = positions[0] + share[:, None] * (positions[-1] - positions[0])
    off = float(np.linalg.norm(positions - on_line, axis=1).max())
    if off > _OFF_LINE_MM:
        raise InputRefusedError(
            f"the slices are not one stack: one lies {off:.1f} mm beside the line of the others"
        )


def _check_gaps(stack: Stack, wanted: VolumeInput, remarks: list[str]) -> None:
    gaps = np.diff(stack.depths)
    usual = float(np.median(gaps))
    for index, gap in enumerate(gaps):
        thick = [frame.floats("SliceThickness", 1) for frame in stack.frames[index : index + 2]]
        imaged = float(np.mean([t[0] for t in thick if t is not None] or [usual]))
        if gap <= _MISSING_SLICE * max(usual, imaged):
            continue
        said = (
            f"slices are missing: a gap of {gap:.3g} mm after slice {index + 1} of "
            f"{len(stack.frames)}, where the usual distance is {usual:.3g} mm"
        )
        if wanted.missing_slices == "refuse" or gap > _MOST_TO_INTERPOLATE * max(usual, imaged):
            raise InputRefusedError(said)
        remarks.append(f"{said}; interpolated")


def _check_tilt(stack: Stack, wanted: VolumeInput, remarks: list[str]) -> None:
    tilt = stack.tilt_degrees
    if not is_tilt(tilt):
        return
    if wanted.tilted_gantry == "refuse":
        raise InputRefusedError(f"the gantry is tilted by {tilt:.1f} degrees")
    straightened = ", straightened" if wanted.tilted_gantry == "shear-correct" else ""
    remarks.append(f"gantry tilted by {tilt:.1f} degrees{straightened}")


def _check_evenness(stack: Stack, wanted: VolumeInput, remarks: list[str]) -> None:
    if are_even(stack.depths):
        return
    gaps = np.diff(stack.depths)
    said = f"slices at uneven distances, {gaps.min():.3g} to {gaps.max():.3g} mm"
    if wanted.uneven_slices == "refuse":
        raise InputRefusedError(said)
    remarks.append(said)
