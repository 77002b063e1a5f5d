"""How a package's network is run. Only hosts import this: it needs torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch.export.passes import move_to_device_pass

from triage.models.packages import ModelPackage
from triage.models.predictions import segmentation_of
from triage.models.tensors import ModelInput, ModelOutput


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
    (1, 1, slices, rows, columns) gives (1, channels, slices, rows, columns). Each further image of
    the input is a further channel of what the program is given.
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
        arrays = [model_input.values, *(other.values for other in model_input.others.values())]
        if len({values.shape for values in arrays}) > 1:
            raise ValueError("the inputs are on different grids; align them to the first")
        if model_input.values.ndim == 3:
            volumes = torch.from_numpy(np.stack(arrays)).to(self._device)
            volume = self._module(volumes[None])
            volume = volume[0] if isinstance(volume, (tuple, list)) else volume
            return segmentation_of(volume[0].cpu().numpy())
        images = torch.from_numpy(np.concatenate(arrays, axis=1)).to(self._device)
        answer = self._module(images)
        answers: Sequence[torch.Tensor] = answer if isinstance(answer, (tuple, list)) else [answer]
        named = [a[0].float().cpu().numpy() for a in answers[:2]]
        return ModelOutput(
            probabilities=np.ascontiguousarray(named[0]),
            heat_maps=np.ascontiguousarray(named[1]) if len(named) > 1 else None,
        )
