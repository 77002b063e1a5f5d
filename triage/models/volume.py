"""The slices of a series as a volume with a geometry that is checked and stated.

The decisions:

- Localizers, objects without pixels, and a few images of another orientation or size are left
  out. Where such images are more than a tenth of the series, it is refused as mixed.
- Where the images are several volumes (stacks, times, b-values, echoes), the manifest says which
  is meant; otherwise it is the first, which is stated (`selection.py`).
- Slices are sorted along their normal. Of several at one place the one with the lowest Instance
  Number stays.
- A gap that is 1.5 times the usual distance, and 1.5 times what the slices beside it are thick,
  is tissue that nobody imaged: the series is refused, for a lesion could lie there. A manifest
  may ask to interpolate instead.
- A tilted gantry is stated in the affine as what it is, a shear. What a model makes of it is its
  own affair, unless its manifest has it straightened; MONAI's Spacingd straightens it and Invertd
  brings the mask back.
- Slices at uneven distances are interpolated to an even grid for the model, because no array
  with one spacing can state them; what the model says is brought back to the slices themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triage.core.analysis import InputRefusedError
from triage.core.manifest import VolumeInput
from triage.models.selection import frames_of_one_volume
from triage.models.sources import (
    Frame,
    Reader,
    ReadInstance,
    Source,
    frames_of,
    in_parallel,
    input_sha256,
    read_instance,
    stating_reasons,
)
from triage.models.stack import Matrix, Stack, are_even, is_tilt, stack_of
from triage.models.values import value_reader

_AS_ACQUIRED = VolumeInput()
_MOST_VOXELS = 4 * 1024**3  # 16 GiB as float32


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A checked volume.

    Attributes:
        values: float32 (slices, rows, columns), in the units that the manifest asks for; after
            the rescale of each slice, HU for CT.
        affine: (4, 4), takes (column, row, slice, 1) to LPS coordinates in mm. With a tilted
            gantry its third column is not normal to the slices. Where the slices are uneven it is
            that of the first and last slice, and `slice_positions_mm` says the truth.
        slice_positions_mm: (slices,), ascending, along the normal of the slices.
        spacing_mm: (slice, row, column); the first is the usual distance along the normal.
        modality: Modality (0008,0060).
        frames: what each slice was read from, in the same order.
        tilt_degrees: between the normal and the direction in which the slices follow one another.
        remarks: what was left out or is unusual, for people.
    """

    values: NDArray[np.float32]
    affine: Matrix
    slice_positions_mm: Matrix
    spacing_mm: tuple[float, float, float]
    modality: str
    frames: tuple[Frame, ...]
    tilt_degrees: float
    remarks: tuple[str, ...]

    @property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """The SOP Instance UID of each slice."""
        return tuple(frame.instance.sop_instance_uid for frame in self.frames)

    @property
    def frame_numbers(self) -> tuple[int, ...]:
        """The Referenced Frame Number of each slice; empty where each is an image of its own."""
        return tuple(frame.number for frame in self.frames if frame.number is not None)

    @property
    def instances(self) -> tuple[ReadInstance, ...]:
        """The images: one for each slice, or the multi-frame image that has them all."""
        return tuple({f.instance.path: f.instance for f in self.frames}.values())

    @property
    def input_sha256(self) -> str:
        """Digest of the instances and frames in order."""
        return input_sha256(self.frames)

    @property
    def is_even(self) -> bool:
        """Whether all slices have the same distance."""
        return are_even(self.slice_positions_mm)

    @property
    def is_tilted(self) -> bool:
        """Whether the slices follow one another askew."""
        return is_tilt(self.tilt_degrees)

    @property
    def voxel_volumes_ml(self) -> Matrix:
        """(slices,): what a voxel of each slice stands for, half way to its neighbours.

        The first and last slice reach as far outwards as inwards.
        """
        gaps = np.diff(self.slice_positions_mm)
        extents = (np.append(gaps[0], gaps) + np.append(gaps, gaps[-1])) / 2
        return np.asarray(extents * self.spacing_mm[1] * self.spacing_mm[2] / 1000.0)


@stating_reasons
def load_volume(
    sources: Sequence[Source],
    wanted: VolumeInput = _AS_ACQUIRED,
    read: Reader = read_instance,
) -> Volume:
    """Read, check, sort and decode the slices of a series, as `runner.input` asks for them.

    Raises:
        InputRefusedError: they are no volume; the message is the stated reason.
    """
    remarks: list[str] = []
    frames = _frames(sources, read)
    chosen = frames_of_one_volume(frames, wanted, remarks)
    stack = stack_of(chosen, wanted, remarks)
    return Volume(
        values=_decoded(stack, wanted),
        affine=stack.affine,
        slice_positions_mm=stack.depths,
        spacing_mm=(float(np.median(np.diff(stack.depths))), *stack.spacing_mm),
        modality=str(stack.frames[0].instance.dataset.get("Modality", "")),
        frames=stack.frames,
        tilt_degrees=stack.tilt_degrees,
        remarks=tuple(remarks),
    )


def _frames(sources: Sequence[Source], read: Reader) -> list[Frame]:
    images = [image for image in in_parallel(read, sources) if image.is_image]
    slices = [image for image in images if "LOCALIZER" not in image.image_type]
    frames = [frame for image in slices for frame in frames_of(image)]
    if len(frames) < 2:
        raise InputRefusedError(f"the series has {len(frames)} images; a volume needs at least 2")
    return frames


def _decoded(stack: Stack, wanted: VolumeInput) -> NDArray[np.float32]:
    first = stack.frames[0].instance.dataset
    shape = (len(stack.frames), int(first.Rows), int(first.Columns))
    if math.prod(shape) > _MOST_VOXELS:
        raise InputRefusedError(f"a volume of {' x '.join(map(str, shape))} voxels is too large")
    values = np.empty(shape, np.float32)
    values_of = value_reader(stack.frames, wanted)

    def fill(index: int) -> None:
        values[index] = values_of(stack.frames[index])

    in_parallel(fill, range(len(stack.frames)))
    return values


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
