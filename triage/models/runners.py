"""How a package's network is run. Only hosts import this: it needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch.export.passes import move_to_device_pass

from triage.models.acceleration import PLAIN, AcceleratedNetwork, Acceleration
from triage.models.packages import ModelPackage
from triage.models.predictions import segmentation_of
from triage.models.tensors import ModelInput, ModelOutput


class Runner(Protocol):
    """A loaded model."""

    def run(self, model_input: ModelInput) -> ModelOutput:
        """Return what the model says about `model_input`, on its grid."""
        ...


def load_runner(package: ModelPackage, device: str, acceleration: Acceleration = PLAIN) -> Runner:
    """Load the network of `package` onto `device`: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        RunnerError: the package's configuration or weights do not fit together.
    """
    chosen = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    )
    if package.manifest.runner.kind == "monai-bundle":
        # Imported here because MONAI takes a second, which exported programs do not need.
        from triage.models.monai_runner import MonaiBundleRunner  # noqa: PLC0415

        return MonaiBundleRunner(package, chosen, acceleration)
    return TorchExportRunner(package, chosen, acceleration)


class TorchExportRunner:
    """A program saved with `torch.export.save`, as it is.

    An image of shape (1, 1, size, size) gives probabilities of shape (1, channels), alone or
    followed by heat maps of shape (1, channels, height, width). A volume of shape
    (1, 1, slices, rows, columns) gives (1, channels, slices, rows, columns).
    """

    def __init__(
        self,
        package: ModelPackage,
        device: torch.device,
        acceleration: Acceleration = PLAIN,
    ) -> None:
        self._device = device
        program = torch.export.load(package.weights)
        if device.type != "cpu":
            program = move_to_device_pass(program, device)
        self._module = AcceleratedNetwork(program.module(), acceleration, device)

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
