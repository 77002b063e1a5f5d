"""The grid that a model wants and the way back: steps that each can be undone on a model's output.

Each step takes the array (first, second, third axis) and its affine, which takes (third index,
second index, first index, 1) to LPS. What a model says comes back through the same steps in
reverse order onto the voxels of the source slices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from triage.core.analysis import AnalysisFailedError, InputRefusedError
from triage.core.manifest import VolumeInput
from triage.models.stack import Matrix
from triage.models.tensors import ModelInput, ModelOutput
from triage.models.volume import EvenGrid, Volume

_AIR_HU = -1000.0
_GREATEST_TILT_DEGREES = 45.0  # gantries tilt by 30
_TOWARDS = {"L": 1, "R": -1, "P": 1, "A": -1, "S": 1, "I": -1}
_LPS_AXIS = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}

Kind = TypeVar("Kind", bound=np.generic)


class Step(Protocol):
    """A change of grid that can be undone."""

    def forward(
        self, values: NDArray[np.float32], affine: Matrix
    ) -> tuple[NDArray[np.float32], Matrix]:
        """Return values and affine on the new grid."""
        ...

    def labels_back(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return labels of the new grid on the old one."""
        ...

    def probabilities_back(self, channel: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return one channel of probabilities of the new grid on the old one."""
        ...

    def scores_back(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores (channels, slices) of the new grid's slices for the old one's.

        Raises:
            AnalysisFailedError: its slices are not the old one's.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Evened:
    """Slices at uneven distances, brought to even ones."""

    grid: EvenGrid
    even_affine: Matrix

    @classmethod
    def of(cls, volume: Volume) -> Evened:
        """Return the even grid of the volume."""
        grid = EvenGrid.of(volume)
        return cls(grid, grid.affine(volume))

    def forward(
        self,
        values: NDArray[np.float32],
        affine: Matrix,  # noqa: ARG002 - the grid's is as good
    ) -> tuple[NDArray[np.float32], Matrix]:
        """Interpolate between the two slices beside each."""
        return self.grid.values(values), self.even_affine

    def labels_back(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Take for each slice the nearest."""
        return self.grid.labels_on_source(labels)

    def probabilities_back(self, channel: NDArray[np.float32]) -> NDArray[np.float32]:
        """Interpolate between the two slices beside each."""
        return np.asarray(self.grid.probabilities_on_source(channel[None])[0])

    def scores_back(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Interpolate between the two slices beside each."""
        return np.asarray(self.grid.probabilities_on_source(scores[..., None])[..., 0])


@dataclass(frozen=True, slots=True, eq=False)
class Straightened:
    """Slices of a tilted gantry, shifted to where they belong, by whole pixels.

    Whole pixels keep the values as they were measured and bring each voxel of a mask back to
    itself; a slice then lies half a pixel off at most. What comes into view at the edges is
    `outside`.

    Attributes:
        shifts: (slices, 2), by how many rows and columns each slice is shifted, 0 or more.
        straight: from one slice to the next along the normal, LPS in mm.
        origin_shift: by how many rows and columns the frame begins before or after the first slice.
        outside: the value around the slices.
    """

    shifts: NDArray[np.int64]
    straight: Matrix
    origin_shift: NDArray[np.int64]
    outside: float

    @classmethod
    def of(cls, affine: Matrix, slices: int, outside: float) -> Straightened:
        """Return the shifts that make the third column of `affine` the normal of the slices."""
        right, down, along = affine[:3, 0], affine[:3, 1], affine[:3, 2]
        normal = np.cross(right, down)
        normal /= np.linalg.norm(normal)
        per_slice = [along @ down / (down @ down), along @ right / (right @ right)]
        wanted = np.rint(np.arange(slices)[:, None] * np.array(per_slice)).astype(np.int64)
        least = wanted.min(axis=0)
        return cls(wanted - least, normal * (along @ normal), least, outside)

    def forward(
        self, values: NDArray[np.float32], affine: Matrix
    ) -> tuple[NDArray[np.float32], Matrix]:
        """Shift each slice within a frame that has room for all."""
        slices, rows, columns = values.shape
        more_rows, more_columns = self.shifts.max(axis=0)
        shape = (slices, rows + int(more_rows), columns + int(more_columns))
        shifted = np.full(shape, self.outside, np.float32)
        for target, source, (down, right) in zip(shifted, values, self.shifts, strict=True):
            target[down : down + rows, right : right + columns] = source
        straight = affine.copy()
        straight[:3, 2] = self.straight
        down, right = self.origin_shift
        straight[:3, 3] += down * affine[:3, 1] + right * affine[:3, 0]
        return shifted, straight

    def labels_back(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Shift back."""
        return self._back(labels)

    def probabilities_back(self, channel: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shift back."""
        return self._back(channel)

    def scores_back(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Leave them: a shifted slice is the same slice."""
        return scores

    def _back(self, values: NDArray[Kind]) -> NDArray[Kind]:
        more_rows, more_columns = self.shifts.max(axis=0)
        slices, rows, columns = values.shape
        rows, columns = rows - int(more_rows), columns - int(more_columns)
        back = np.empty((slices, rows, columns), values.dtype)
        for target, source, (down, right) in zip(back, values, self.shifts, strict=True):
            target[...] = source[down : down + rows, right : right + columns]
        return back


@dataclass(frozen=True, slots=True, eq=False)
class Reoriented:
    """Axes exchanged and turned round, so that they point where the model wants them to.

    Attributes:
        order: which of the old axes each new axis is.
        is_flipped: whether each new axis runs backwards.
    """

    order: tuple[int, int, int]
    is_flipped: tuple[bool, bool, bool]

    @classmethod
    def of(cls, affine: Matrix, orientation: str) -> Reoriented:
        """Return the change that makes axes point to `orientation`, such as "RAS".

        An oblique axis counts as the one that it is nearest to, and no two as the same.
        """
        directions = affine[:3, 2::-1] / np.linalg.norm(affine[:3, 2::-1], axis=0)
        wanted = np.zeros((3, 3))
        for axis, letter in enumerate(orientation):
            wanted[_LPS_AXIS[letter], axis] = _TOWARDS[letter]
        agreement = wanted.T @ directions  # (new axis, old axis)
        order = max(permutations(range(3)), key=lambda p: np.abs(agreement[range(3), p]).sum())
        flipped = [bool(agreement[new, old] < 0) for new, old in enumerate(order)]
        return cls((order[0], order[1], order[2]), (flipped[0], flipped[1], flipped[2]))

    def forward(
        self, values: NDArray[np.float32], affine: Matrix
    ) -> tuple[NDArray[np.float32], Matrix]:
        """Exchange and turn round the axes."""
        turned = affine.copy()
        for new, (old, is_flipped) in enumerate(zip(self.order, self.is_flipped, strict=True)):
            column = affine[:3, 2 - old]
            turned[:3, 2 - new] = -column if is_flipped else column
            if is_flipped:
                turned[:3, 3] += column * (values.shape[old] - 1)
        moved = np.flip(values.transpose(self.order), self._flipped_axes)
        return np.ascontiguousarray(moved), turned

    def labels_back(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Exchange the axes back."""
        return self._back(labels)

    def probabilities_back(self, channel: NDArray[np.float32]) -> NDArray[np.float32]:
        """Exchange the axes back."""
        return self._back(channel)

    def scores_back(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn their order round where the slices were."""
        if self.order[0] != 0:
            raise AnalysisFailedError(
                "the model scores images along another axis than that of the slices; leave out "
                "runner.input.orientation"
            )
        return np.ascontiguousarray(scores[:, ::-1]) if self.is_flipped[0] else scores

    @property
    def _flipped_axes(self) -> tuple[int, ...]:
        return tuple(axis for axis, is_flipped in enumerate(self.is_flipped) if is_flipped)

    def _back(self, values: NDArray[Kind]) -> NDArray[Kind]:
        back = np.argsort(self.order)
        return np.ascontiguousarray(np.flip(values, self._flipped_axes).transpose(back))


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A volume on the grid of its model, and the way back.

    Attributes:
        model_input: what the model is given.
        steps: how its grid came about.
    """

    model_input: ModelInput
    steps: tuple[Step, ...]

    def on_source(self, output: ModelOutput) -> ModelOutput:
        """Return what a model said on the voxels of the source slices.

        An output of another shape than the input stays as it is; the gates refuse it.
        """
        labels, probabilities, scores = (
            output.labels,
            output.probabilities,
            output.image_probabilities,
        )
        shape = self.model_input.values.shape
        if labels is not None and labels.shape == shape:
            for step in reversed(self.steps):
                labels = step.labels_back(labels)
        if probabilities is not None and probabilities.shape[1:] == shape:
            probabilities = np.stack([self._channel_back(each) for each in probabilities])
        if scores is not None and scores.shape[1:] == shape[:1]:
            for step in reversed(self.steps):
                scores = step.scores_back(scores)
        return replace(
            output, labels=labels, probabilities=probabilities, image_probabilities=scores
        )

    def _channel_back(self, channel: NDArray[np.float32]) -> NDArray[np.float32]:
        for step in reversed(self.steps):
            channel = step.probabilities_back(channel)
        return channel


def prepare(volume: Volume, wanted: VolumeInput) -> Prepared:
    """Bring a volume to the grid that its model wants.

    Raises:
        InputRefusedError: the tilt is more than any gantry's.
    """
    values, affine = volume.values, volume.affine
    steps: list[Step] = []

    def take(step: Step) -> None:
        nonlocal values, affine
        values, affine = step.forward(values, affine)
        steps.append(step)

    if not volume.is_even:
        take(Evened.of(volume))
    if wanted.tilted_gantry == "shear-correct" and volume.is_tilted:
        outside = _AIR_HU if volume.modality == "CT" else float(values.min())
        if volume.tilt_degrees > _GREATEST_TILT_DEGREES:
            raise InputRefusedError(
                f"a tilt of {volume.tilt_degrees:.1f} degrees is too much to be straightened"
            )
        take(Straightened.of(affine, len(values), outside))
    if wanted.orientation is not None:
        take(Reoriented.of(affine, wanted.orientation))
    return Prepared(ModelInput(values, affine), tuple(steps))
