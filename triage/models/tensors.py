"""What goes into a model and what comes out, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

_OTHER = "others."


@dataclass(frozen=True, slots=True, eq=False)
class ModelImage:
    """A further image of a run, beside the first.

    Attributes:
        values: float32; a volume of shape (slices, rows, columns), or an image of shape
            (1, 1, rows, columns).
        affine: for a volume: (4, 4), takes (column, row, slice, 1) to patient coordinates in mm
            (LPS: left, posterior and superior are positive, DICOM PS3.3 C.7.6.2.1.1).
    """

    values: NDArray[np.float32]
    affine: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ModelInput:
    """The arrays of one run.

    Attributes:
        values: float32; a volume of shape (slices, rows, columns), or an image of shape
            (1, 1, size, size) from 0 to 1.
        affine: for a volume: (4, 4), takes (column, row, slice, 1) to patient coordinates in mm
            (LPS: left, posterior and superior are positive, DICOM PS3.3 C.7.6.2.1.1).
        others: further images by the name of their input in the manifest, in its order; each has
            a grid of its own.
    """

    values: NDArray[np.float32]
    affine: NDArray[np.float64] | None = None
    others: Mapping[str, ModelImage] = field(default_factory=dict)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays by name, for the channel to a model host."""
        named: dict[str, NDArray[Any] | None] = {"values": self.values, "affine": self.affine}
        for name, image in self.others.items():
            named[f"{_OTHER}{name}.values"] = image.values
            named[f"{_OTHER}{name}.affine"] = image.affine
        return {name: values for name, values in named.items() if values is not None}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Return what `to_arrays` took apart."""
        names = [
            name.removeprefix(_OTHER).removesuffix(".values")
            for name in arrays
            if name.startswith(_OTHER) and name.endswith(".values")
        ]
        others = {
            name: ModelImage(arrays[f"{_OTHER}{name}.values"], arrays.get(f"{_OTHER}{name}.affine"))
            for name in names
        }
        return cls(arrays["values"], arrays.get("affine"), others)


@dataclass(frozen=True, slots=True, eq=False)
class ModelOutput:
    """What a model said, on the grid of its input. Several kinds may come at once.

    Attributes:
        labels: uint8 of shape (slices, rows, columns), of models that say which label a voxel has.
        probabilities: float32; of shape (channels, slices, rows, columns) from models that
            segment, or (channels,) from models that classify.
        heat_maps: float32 of shape (channels, height, width), of models that classify and say
            where they looked.
        image_probabilities: float32 of shape (channels, slices), from models that classify each
            image of a volume.
        boxes: float64 of shape (boxes, 6) in patient coordinates in mm for a volume, the lesser
            corner (x, y, z) and then the greater one, edges along the axes of the patient (LPS);
            or of shape (boxes, 4) for an image, in its pixels as the model was given them:
            (column, row) of the upper left corner and then of the lower right one, where
            (0, 0) is the upper left corner of the first pixel.
        box_labels: int64 of shape (boxes,), what each box holds; numbers are the model's own.
        box_scores: float32 of shape (boxes,), 0 to 1.
        measurements: numbers by name.
    """

    labels: NDArray[np.uint8] | None = None
    probabilities: NDArray[np.float32] | None = None
    heat_maps: NDArray[np.float32] | None = None
    image_probabilities: NDArray[np.float32] | None = None
    boxes: NDArray[np.float64] | None = None
    box_labels: NDArray[np.int64] | None = None
    box_scores: NDArray[np.float32] | None = None
    measurements: Mapping[str, float] = field(default_factory=dict)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays by name, for the channel to a worker."""
        named = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name != "measurements" and getattr(self, each.name) is not None
        }
        if self.measurements:
            named["measurement_names"] = np.array(list(self.measurements))
            named["measurement_values"] = np.array(list(self.measurements.values()), np.float64)
        return named

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Return what `to_arrays` took apart."""
        named = dict(arrays)
        names = named.pop("measurement_names", np.array([]))
        values = named.pop("measurement_values", np.array([]))
        measurements = {str(n): float(v) for n, v in zip(names, values, strict=True)}
        return cls(**named, measurements=measurements)
