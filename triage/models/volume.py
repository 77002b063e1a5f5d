"""The slices of a series as a volume with a geometry that is checked and stated.

The decisions:

- Localizers, objects without pixels, and a few images of another orientation or size are left
  out. Where such images are more than a tenth of the series, it is refused as mixed.
- Slices are sorted along their normal. Of several at one place the one with the lowest Instance
  Number stays.
- A gap that is 1.5 times the usual distance, and 1.5 times what the slices beside it are thick,
  is tissue that nobody imaged: the series is refused, for a lesion could lie there.
- A tilted gantry is stated in the affine as what it is, a shear. What a model makes of it is its
  own affair; MONAI's Spacingd straightens it and Invertd brings the mask back.
- Slices at uneven distances are interpolated to an even grid for the model, because no array
  with one spacing can state them; what the model says is brought back to the slices themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triage.core.analysis import InputRefusedError
from triage.models.sources import (
    ReadInstance,
    Source,
    decode,
    in_parallel,
    input_sha256,
    padding_mask,
    read_instance,
    stating_reasons,
)

_AIR_HU = -1000.0
_MISSING_SLICE = 1.5
_UNEVEN = 0.05  # of the usual distance: below it, rounding of positions and table feed
_STRAY_SHARE = 0.1
_SAME_DIRECTION = 1e-3
_SAME_PLACE_MM = 0.01
_OFF_LINE_MM = 1.0
_TILT_DEGREES = 0.5

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A checked volume.

    Attributes:
        values: float32 (slices, rows, columns), after the rescale of each slice; HU for CT.
        affine: (4, 4), takes (column, row, slice, 1) to LPS coordinates in mm. With a tilted
            gantry its third column is not normal to the slices. Where the slices are uneven it is
            that of the first and last slice, and `slice_positions_mm` says the truth.
        slice_positions_mm: (slices,), ascending, along the normal of the slices.
        spacing_mm: (slice, row, column); the first is the usual distance along the normal.
        modality: Modality (0008,0060).
        sop_instance_uids, instances: what each slice was read from, in the same order.
        tilt_degrees: between the normal and the direction in which the slices follow one another.
        remarks: what was left out or is unusual, for people.
    """

    values: NDArray[np.float32]
    affine: Matrix
    slice_positions_mm: Matrix
    spacing_mm: tuple[float, float, float]
    modality: str
    instances: tuple[ReadInstance, ...]
    tilt_degrees: float
    remarks: tuple[str, ...]

    @property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """The SOP Instance UID of each slice."""
        return tuple(i.sop_instance_uid for i in self.instances)

    @property
    def input_sha256(self) -> str:
        """Digest of the instances in order."""
        return input_sha256(self.instances)

    @property
    def is_even(self) -> bool:
        """Whether all slices have the same distance."""
        return _are_even(self.slice_positions_mm)

    @property
    def voxel_volumes_ml(self) -> Matrix:
        """(slices,): what a voxel of each slice stands for, half way to its neighbours.

        The first and last slice reach as far outwards as inwards.
        """
        gaps = np.diff(self.slice_positions_mm)
        extents = (np.append(gaps[0], gaps) + np.append(gaps, gaps[-1])) / 2
        return np.asarray(extents * self.spacing_mm[1] * self.spacing_mm[2] / 1000.0)


@stating_reasons
def load_volume(sources: Sequence[Source]) -> Volume:
    """Read, check, sort and decode the slices of a series.

    Raises:
        InputRefusedError: they are no volume; the message is the stated reason.
    """
    remarks: list[str] = []
    read = [i for i in in_parallel(read_instance, sources) if i.is_image]
    images = [i for i in read if "LOCALIZER" not in i.image_type]
    if len(images) < 2:
        raise InputRefusedError(f"the series has {len(images)} images; a volume needs at least 2")
    images = _of_one_orientation(images, remarks)
    directions = _directions(images[0])
    images = _one_at_each_place(images, directions[2], remarks)
    positions = np.array([_position(i) for i in images])
    depths = positions @ directions[2]
    _check_stack(images, positions, depths)
    row_mm, column_mm = _pixel_spacing(images[0])
    affine = np.eye(4)
    affine[:3, 0] = directions[0] * column_mm
    affine[:3, 1] = directions[1] * row_mm
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(images) - 1)
    affine[:3, 3] = positions[0]
    tilt = _tilt_degrees(positions, directions[2])
    if tilt > _TILT_DEGREES:
        remarks.append(f"gantry tilted by {tilt:.1f} degrees")
    if not _are_even(depths):
        gaps = np.diff(depths)
        remarks.append(f"slices at uneven distances, {gaps.min():.3g} to {gaps.max():.3g} mm")
    return Volume(
        values=_decoded(images),
        affine=affine,
        slice_positions_mm=depths,
        spacing_mm=(float(np.median(np.diff(depths))), row_mm, column_mm),
        modality=str(images[0].dataset.get("Modality", "")),
        instances=tuple(images),
        tilt_degrees=tilt,
        remarks=tuple(remarks),
    )


@dataclass(frozen=True, slots=True, eq=False)
class EvenGrid:
    """Slices at even distances over the extent of a volume, and the way back to its own slices.

    Attributes:
        positions_mm: (slices,) of the even grid, first and last being those of the volume.
        source_positions_mm: (slices,) of the volume.
    """

    positions_mm: Matrix
    source_positions_mm: Matrix

    @classmethod
    def of(cls, volume: Volume) -> EvenGrid:
        """Return the even grid whose distance is as near as can be to the volume's usual one."""
        positions = volume.slice_positions_mm
        extent = positions[-1] - positions[0]
        count = max(2, round(extent / volume.spacing_mm[0]) + 1)
        return cls(np.linspace(positions[0], positions[-1], count), positions)

    def affine(self, volume: Volume) -> Matrix:
        """Return the affine of the even grid."""
        affine = volume.affine.copy()
        affine[:3, 2] *= (len(self.source_positions_mm) - 1) / (len(self.positions_mm) - 1)
        return affine

    def values(self, source: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return values (slices, ...) on the even grid, between the two slices beside each."""
        return _between(source, self.source_positions_mm, self.positions_mm)

    def probabilities_on_source(self, even: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (channels, slices, ...) of the even grid on the volume's own slices."""
        back = [_between(c, self.positions_mm, self.source_positions_mm) for c in even]
        return np.stack(back)

    def labels_on_source(self, even: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return labels (slices, ...) on the volume's own slices, each from the nearest."""
        distances = np.abs(self.source_positions_mm[:, None] - self.positions_mm[None])
        return np.ascontiguousarray(even[np.argmin(distances, axis=1)])


def _between(values: NDArray[np.float32], positions: Matrix, wanted: Matrix) -> NDArray[np.float32]:
    upper = np.clip(np.searchsorted(positions, wanted), 1, len(positions) - 1)
    gaps = positions[upper] - positions[upper - 1]
    weights = np.clip((wanted - positions[upper - 1]) / gaps, 0.0, 1.0).astype(np.float32)
    out = np.empty((len(wanted), *values.shape[1:]), np.float32)
    for target, above, weight in zip(out, upper, weights, strict=True):
        np.multiply(values[above - 1], 1 - weight, out=target)
        np.add(target, weight * values[above], out=target)
    return out


def _of_one_orientation(images: list[ReadInstance], remarks: list[str]) -> list[ReadInstance]:
    groups: list[list[ReadInstance]] = []
    for image in images:
        if _orientation(image) is None or image.floats("ImagePositionPatient", 3) is None:
            continue
        fitting = (group for group in groups if _fits(image, group[0]))
        group = next(fitting, None)
        if group is None:
            groups.append([image])
        else:
            group.append(image)
    if not groups:
        raise InputRefusedError("no image states its position and orientation (PS3.3 C.7.6.2)")
    largest = max(groups, key=len)
    others = len(images) - len(largest)
    if others > _STRAY_SHARE * len(images):
        raise InputRefusedError(
            f"the series is mixed: {others} of {len(images)} images have another orientation, "
            "size or pixel spacing than the rest, or none"
        )
    if others:
        remarks.append(f"{others} stray images of another orientation or size left out")
    if len(largest) < 2:
        raise InputRefusedError("the series has 1 image with a position; a volume needs 2")
    return largest


def _fits(image: ReadInstance, other: ReadInstance) -> bool:
    return (
        (image.dataset.Rows, image.dataset.Columns) == (other.dataset.Rows, other.dataset.Columns)
        and np.allclose(_pixel_spacing(image), _pixel_spacing(other), rtol=1e-3)
        and np.allclose(_required(image), _required(other), atol=_SAME_DIRECTION)
    )


def _orientation(image: ReadInstance) -> Matrix | None:
    return image.floats("ImageOrientationPatient", 6)


def _required(image: ReadInstance) -> Matrix:
    orientation = _orientation(image)
    assert orientation is not None, "images without an orientation were left out before"
    return orientation


def _position(image: ReadInstance) -> Matrix:
    position = image.floats("ImagePositionPatient", 3)
    assert position is not None, "images without a position were left out before"
    return position


def _pixel_spacing(image: ReadInstance) -> tuple[float, float]:
    spacing = image.floats("PixelSpacing", 2)
    if spacing is None or (spacing <= 0).any():
        raise InputRefusedError(f"instance {image.sop_instance_uid} states no Pixel Spacing")
    return float(spacing[0]), float(spacing[1])


def _directions(image: ReadInstance) -> tuple[Matrix, Matrix, Matrix]:
    """Return the directions in which columns and rows count up, and the normal, as unit vectors.

    The first three values of Image Orientation (Patient) are the direction of a row, along which
    the column index grows (PS3.3 C.7.6.2.1.1).
    """
    orientation = _required(image)
    lengths = np.linalg.norm(orientation[:3]), np.linalg.norm(orientation[3:])
    normal = np.cross(orientation[:3], orientation[3:])
    if not np.allclose([*lengths, np.linalg.norm(normal)], 1.0, atol=0.01):
        raise InputRefusedError(
            f"Image Orientation (Patient) of instance {image.sop_instance_uid} is not two "
            "perpendicular unit vectors"
        )
    return (
        orientation[:3] / lengths[0],
        orientation[3:] / lengths[1],
        normal / np.linalg.norm(normal),
    )


def _one_at_each_place(
    images: list[ReadInstance], normal: Matrix, remarks: list[str]
) -> list[ReadInstance]:
    depths = {id(i): float(_position(i) @ normal) for i in images}
    ordered = sorted(images, key=lambda i: (depths[id(i)], i.number, i.sop_instance_uid))
    kept: list[ReadInstance] = []
    for image in ordered:
        if kept and depths[id(image)] - depths[id(kept[-1])] < _SAME_PLACE_MM:
            kept[-1] = min(kept[-1], image, key=lambda i: (i.number, i.sop_instance_uid))
        else:
            kept.append(image)
    if len(kept) < 2:
        raise InputRefusedError("all images lie at the same place; a volume needs at least 2")
    if len(kept) < len(images):
        remarks.append(f"{len(images) - len(kept)} images at the place of another left out")
    return kept


def _check_stack(images: Sequence[ReadInstance], positions: Matrix, depths: Matrix) -> None:
    share = (depths - depths[0]) / (depths[-1] - depths[0])
    on_line = positions[0] + share[:, None] * (positions[-1] - positions[0])
    off = float(np.linalg.norm(positions - on_line, axis=1).max())
    if off > _OFF_LINE_MM:
        raise InputRefusedError(
            f"the slices are not one stack: one lies {off:.1f} mm beside the line of the others"
        )
    gaps = np.diff(depths)
    usual = float(np.median(gaps))
    for index, gap in enumerate(gaps):
        thick = [i.floats("SliceThickness", 1) for i in images[index : index + 2]]
        imaged = float(np.mean([t[0] for t in thick if t is not None] or [usual]))
        if gap > _MISSING_SLICE * max(usual, imaged):
            raise InputRefusedError(
                f"slices are missing: a gap of {gap:.3g} mm after slice {index + 1} of "
                f"{len(images)}, where the usual distance is {usual:.3g} mm"
            )


def _are_even(depths: Matrix) -> bool:
    gaps = np.diff(depths)
    usual = np.median(gaps)
    return bool((np.abs(gaps - usual) <= _UNEVEN * usual).all())


def _tilt_degrees(positions: Matrix, normal: Matrix) -> float:
    along = positions[-1] - positions[0]
    cosine = float(along @ normal / np.linalg.norm(along))
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _decoded(images: Sequence[ReadInstance]) -> NDArray[np.float32]:
    first = images[0].dataset
    values = np.empty((len(images), int(first.Rows), int(first.Columns)), np.float32)

    def fill(index: int) -> None:
        values[index] = rescaled(images[index])

    in_parallel(fill, range(len(images)))
    return values


def rescaled(image: ReadInstance) -> NDArray[np.float32]:
    """Return slope and intercept applied (PS3.3 C.11.1); what is padding becomes air."""
    stored = decode(image)
    slope = image.floats("RescaleSlope", 1)
    intercept = image.floats("RescaleIntercept", 1)
    values = stored.astype(np.float32)
    if slope is not None and slope[0] not in (0.0, 1.0):
        values *= np.float32(slope[0])
    if intercept is not None and intercept[0]:
        values += np.float32(intercept[0])
    padding = padding_mask(image, stored)
    if padding is not None and padding.any():
        is_ct = image.dataset.get("Modality") == "CT"
        values[padding] = _AIR_HU if is_ct else values[~padding].min(initial=0.0)
    return values
