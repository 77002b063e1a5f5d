"""What goes into a model and what comes out, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class ModelInput:
    """The arrays of one run.

    Attributes:
        values: float32; a volume of shape (slices, rows, columns), or an image of shape
            (1, 1, size, size) from 0 to 1.
        affine: for a volume: (4, 4), takes (column, row, slice, 1) to patient coordinates in mm
            (LPS: left, posterior and superior are positive, DICOM PS3.3 C.7.6.2.1.1).
    """

    values: NDArray[np.float32]
    affine: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ModelOutput:
    """What a model said, on the grid of its input.

    Attributes:
        labels: uint8 of shape (slices, rows, columns), of models that say which label a voxel has.
        probabilities: float32; of shape (channels, slices, rows, columns) from models that
            segment, or (channels,) from models that classify.
        heat_maps: float32 of shape (channels, height, width), of models that classify and say
            where they looked.
    """

    labels: NDArray[np.uint8] | None = None
    probabilities: NDArray[np.float32] | None = None
    heat_maps: NDArray[np.float32] | None = None
