"""A network's prediction, whatever form it has, as labels or probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triage.models.tensors import ModelOutput


class RunnerError(Exception):
    """A package cannot be loaded or run as its manifest says; the message says what to mend."""


def segmentation_of(prediction: NDArray[Any], *, are_labels: bool | None = None) -> ModelOutput:
    """Return a prediction (channels, slices, rows, columns) as labels, or as probabilities.

    Args:
        prediction: what the model gave.
        are_labels: whether floating-point numbers are labels; without it, their being whole
            numbers tells. Integers are labels always.

    Raises:
        RunnerError: labels that are not whole numbers from 0 to 255.
    """
    if are_labels and prediction.dtype.kind == "f" and not _is_whole(prediction):
        raise RunnerError("labels that are not whole numbers; a label map has 0 to 255")
    # A bundle that ends in AsDiscreted gives labels as floating-point numbers.
    look = are_labels is None
    if are_labels or prediction.dtype.kind in "biu" or (look and _is_whole(prediction)):
        return ModelOutput(labels=_labels(prediction))
    # Not made contiguous here: it is copied once, into the memory that the worker maps.
    return ModelOutput(probabilities=prediction.astype(np.float32, copy=False))


def _is_whole(values: NDArray[Any]) -> bool:
    # A few slices tell nearly always; a prediction that looks whole there is looked at in full.
    few = values[:, :: max(1, values.shape[1] // 4)]
    return bool((few == np.rint(few)).all()) and bool((values == np.rint(values)).all())


def _labels(prediction: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = float(prediction.min()), float(prediction.max())
    if low < 0 or high > 255:
        raise RunnerError(f"labels from {low:g} to {high:g}; a label map has 0 to 255")
    if len(prediction) == 1:
        return np.asarray(prediction[0], np.uint8)
    labels = np.zeros(prediction.shape[1:], np.uint8)
    # One channel for each label. Where the first is the background it is 1 wherever no other is.
    has_background = bool((prediction.astype(bool).sum(axis=0) == 1).all())
    for number, channel in enumerate(prediction, start=0 if has_background else 1):
        labels[channel > 0] = number
    return labels
