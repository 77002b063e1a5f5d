"""Ways to run a network faster, each kept only if its answers stay what they were.

Only hosts import this: it needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from triage.core.manifest import RunnerSpec, VolumeInput
from triage.models.tensors import ModelInput, ModelOutput

_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


class Runs(Protocol):
    """A loaded model."""

    def run(self, model_input: ModelInput) -> ModelOutput:
        """Return what the model says about `model_input`."""
        ...


_Runner = TypeVar("_Runner", bound=Runs)


@dataclass(frozen=True, slots=True)
class Acceleration:
    """How a network is run: in which precision and memory layout, and whether it is compiled."""

    precision: str = "float32"
    channels_last: bool = False
    compiled: bool = False


PLAIN = Acceleration()


class AcceleratedNetwork(nn.Module):
    """A network that is run in another precision or layout, and still speaks float32."""

    def __init__(self, network: nn.Module, acceleration: Acceleration, device: torch.device):
        super().__init__()
        if acceleration.channels_last:
            _lay_channels_last(network)
        self._acceleration = acceleration
        self._device_type = device.type
        self._network = torch.compile(network) if acceleration.compiled else network

    def forward(self, values: torch.Tensor) -> Any:
        """Return what the network says, its floating-point tensors as float32."""
        if self._acceleration.channels_last and values.ndim in _LAYOUTS:
            values = values.contiguous(memory_format=_LAYOUTS[values.ndim])
        with self._autocast():
            return _as_float32(self._network(values))

    def _autocast(self) -> Any:
        if self._acceleration.precision == "float32":
            return nullcontext()
        dtype = getattr(torch, self._acceleration.precision)
        return torch.autocast(self._device_type, dtype=dtype)


def load_fastest(
    load: Callable[[Acceleration], _Runner],
    spec: RunnerSpec,
    read_samples: Callable[[], Sequence[ModelInput]],
) -> tuple[_Runner, tuple[str, ...]]:
    """Return the runner with all that the manifest asks for and that keeps its answers.

    Layout, precision and compilation are added one by one. Each is kept if it runs and if no
    answer to a sample differs from plain float32 by more than `runner.tolerance`. What is not kept
    is stated in the second value. `read_samples` is called where something is to be compared.
    """
    kept = _plain(spec)
    runner = load(kept)
    asked = list(_asked(spec))
    if not asked:
        return runner, ()
    samples = read_samples()
    expected = [runner.run(sample) for sample in samples]
    remarks = []
    for name, change in asked:
        candidate = replace(kept, **change)
        try:
            tried = load(candidate)
            answers = [tried.run(sample) for sample in samples]
        except Exception as error:  # noqa: BLE001 - whatever a compiler or kernel raises
            remarks.append(f"{name} is not used, because it failed: {str(error)[:200]}")
            continue
        pairs = zip(expected, answers, strict=True)
        difference = max(greatest_difference(before, after) for before, after in pairs)
        if difference <= spec.tolerance:
            kept, runner = candidate, tried
        else:
            remarks.append(
                f"{name} is not used, because answers differ by {difference:.3g} from plain "
                f"float32; runner.tolerance is {spec.tolerance:g}"
            )
    return runner, tuple(remarks)


def greatest_difference(before: ModelOutput, after: ModelOutput) -> float:
    """Return by how much two outputs differ: numbers by value, labels by the share that differs.

    What cannot be compared, such as other shapes or values that are not numbers, differs without
    bound.
    """
    names = [field.name for field in fields(ModelOutput)]
    return max(_difference(getattr(before, name), getattr(after, name)) for name in names)


def _difference(before: Any, after: Any) -> float:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        if before.keys() != after.keys():
            return float("inf")
        pairs = [(float(before[name]), float(after[name])) for name in before]
        return max((_of_numbers(np.array(one), np.array(other)) for one, other in pairs), default=0)
    if not (isinstance(before, np.ndarray) and isinstance(after, np.ndarray)):
        return 0.0 if before is None and after is None else float("inf")
    if before.shape != after.shape:
        return float("inf")
    if before.dtype.kind != "f":
        return float(np.mean(before != after)) if before.size else 0.0
    return _of_numbers(before, after)


def _of_numbers(before: NDArray[Any], after: NDArray[Any]) -> float:
    greatest = float(np.abs(before - after).max(initial=0.0))
    return greatest if np.isfinite(greatest) else float("inf")


def _plain(spec: RunnerSpec) -> Acceleration:
    # With the channels last, the CPU kernels of a 3D network take half the time.
    is_volume = isinstance(spec.input, VolumeInput)
    return Acceleration(channels_last=spec.channels_last == "auto" and is_volume)


def _asked(spec: RunnerSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    if spec.channels_last is True:
        yield "channels_last", {"channels_last": True}
    if spec.precision != "float32":
        yield spec.precision, {"precision": spec.precision}
    if spec.compile:
        yield "compile", {"compiled": True}


def _lay_channels_last(network: nn.Module) -> None:
    # Module.to(memory_format=...) refuses a network that has weights of both 4 and 5 dimensions.
    for parameter in network.parameters():
        if parameter.ndim in _LAYOUTS:
            parameter.data = parameter.data.contiguous(memory_format=_LAYOUTS[parameter.ndim])


def _as_float32(answer: Any) -> Any:
    if isinstance(answer, torch.Tensor):
        return answer.float() if answer.is_floating_point() else answer
    if isinstance(answer, (tuple, list)):
        return type(answer)(_as_float32(part) for part in answer)
    if isinstance(answer, dict):
        return {name: _as_float32(part) for name, part in answer.items()}
    return answer
