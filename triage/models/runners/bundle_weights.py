"""A bundle's weights in the forms in which they are published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from triage.models.packages import ModelPackage
from triage.models.predictions import RunnerError

_SCRIPTED = (".ts", ".torchscript")
_BELOW = ("model", "state_dict", "network", "net")


def scripted_network(package: ModelPackage, device: torch.device) -> torch.nn.Module | None:
    """Return the network of a bundle that is published as TorchScript (`models/model.ts`)."""
    if package.weights.suffix not in _SCRIPTED:
        return None
    network: torch.nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
        str(package.weights), map_location=device
    )
    return network


def load_weights(network: torch.nn.Module, package: ModelPackage) -> None:
    """Load a state dict, or one that lies below "model" or the like, into `network`.

    The file is read with `weights_only`, so nothing in it is run.

    Raises:
        RunnerError: it is not a state dict of the network.
    """
    content: Any = torch.load(package.weights, map_location="cpu", weights_only=True)
    try:
        network.load_state_dict(_state_dict(content))
    except (RuntimeError, TypeError) as error:
        raise RunnerError(f"{package.weights}: not a state dict of network_def: {error}") from None


def _state_dict(content: Any) -> Any:
    if isinstance(content, Mapping):
        for key in _BELOW:
            if isinstance(content.get(key), Mapping):
                return content[key]
    return content
