"""How a package's network is run. Only hosts import this: it needs torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export.passes import move_to_device_pass

from triage.models.packages import ModelPackage
from triage.models.tensors import ModelInput, ModelOutput


class RunnerError(Exception):
    """A package cannot be loaded or run as its manifest says; the message says what to mend."""


class Runner(Protocol):
    """A loaded model."""

    def run(self, model_input: ModelInput) -> ModelOutput:
        """Return what the model says about `model_input`, on its grid."""
        ...


def load_runner(package: ModelPackage, device: str) -> Runner:
    """Load the network of `package` onto `device`: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        RunnerError: the package's configuration or weights do not fit together.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    chosen = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    )
    if package.manifest.runner.kind == "monai-bundle":
        # Imported here because MONAI takes a second, which exported programs do not need.
        from triage.models.monai_runner import MonaiBundleRunner  # noqa: PLC0415

        return MonaiBundleRunner(package, chosen)
    return TorchExportRunner(package, chosen)


class TorchExportRunner:
    """A program saved with `torch.export.save`, as it is.

    An image of shape (1, 1, size, size) gives probabilities of shape (1, channels), alone or
    followed by heat maps of shape (1, channels, height, width). A volume of shape
    (1, 1, slices, rows, columns) gives (1, channels, slices, rows, columns).
    """

    def __init__(self, package: ModelPackage, device: torch.device) -> None:
        self._device = device
        program = torch.export.load(package.weights)
        if device.type != "cpu":
            program = move_to_device_pass(program, device)
        self._module = program.module()

    @torch.inference_mode()
    def run(self, model_input: ModelInput) -> ModelOutput:
        """Return probabilities, and heat maps where the program gives them."""
        values = torch.from_numpy(model_input.values).to(self._device)
        if values.ndim == 3:
            volume = self._module(values[None, None])
            volume = volume[0] if isinstance(volume, (tuple, list)) else volume
            return segmentation_of(volume[0].cpu().numpy())
        answer = self._module(values)
        answers: Sequence[torch.Tensor] = answer if isinstance(answer, (tuple, list)) else [answer]
        named = [a[0].float().cpu().numpy() for a in answers[:2]]
        return ModelOutput(
            probabilities=np.ascontiguousarray(named[0]),
            heat_maps=np.ascontiguousarray(named[1]) if len(named) > 1 else None,
        )


def segmentation_of(prediction: NDArray[Any]) -> ModelOutput:
    """Return a prediction (channels, slices, rows, columns) as labels, or as probabilities."""
    # A bundle that ends in AsDiscreted gives labels as floating-point numbers.
    if prediction.dtype.kind in "biu" or _is_whole(prediction):
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
