"""Networks that come without code, as something that takes a tensor and gives tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export.passes import move_to_device_pass

from triage.models.acceleration import PLAIN, AcceleratedNetwork, Acceleration
from triage.models.packages import ModelPackage
from triage.models.predictions import RunnerError

Program = Callable[[torch.Tensor], Sequence[torch.Tensor]]


def load_program(
    package: ModelPackage, device: torch.device, acceleration: Acceleration = PLAIN
) -> Program:
    """Return the network of a package of the kind torch-export, torchscript or onnx.

    Raises:
        RunnerError: the file of the weights is not of that kind.
    """
    kind = package.manifest.runner.kind
    load = {"torch-export": _torch_export, "torchscript": _torchscript, "onnx": _onnx}[kind]
    try:
        return load(package, device, acceleration)
    except Exception as error:
        raise RunnerError(
            f"{package.weights}: cannot be loaded as {kind}: {type(error).__name__}: {error}"
        ) from error


def _torch_export(
    package: ModelPackage, device: torch.device, acceleration: Acceleration
) -> Program:
    program = torch.export.load(package.weights)
    if device.type != "cpu":
        program = move_to_device_pass(program, device)
    return _tensors_of(AcceleratedNetwork(program.module(), acceleration, device))


def _torchscript(
    package: ModelPackage, device: torch.device, acceleration: Acceleration
) -> Program:
    module: torch.nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
        str(package.weights), map_location=device
    )
    return _tensors_of(AcceleratedNetwork(module.eval(), acceleration, device))


def _tensors_of(module: Callable[[torch.Tensor], Any]) -> Program:
    def run(values: torch.Tensor) -> Sequence[torch.Tensor]:
        answer = module(values)
        if isinstance(answer, dict):
            return list(answer.values())
        return list(answer) if isinstance(answer, (tuple, list)) else [answer]

    return run


def _onnx(
    package: ModelPackage,
    device: torch.device,
    _: Acceleration,  # ONNX Runtime has its own
) -> Program:
    import onnxruntime  # noqa: PLC0415 - a second that other kinds need not wait for

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    # As for OpenMP's threads in `triage.models.host`: threads that spin slow all else down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    session = onnxruntime.InferenceSession(str(package.weights), options, providers=providers)
    name = session.get_inputs()[0].name

    def run(values: torch.Tensor) -> Sequence[torch.Tensor]:
        answers = session.run(None, {name: values.contiguous().cpu().numpy()})
        return [torch.as_tensor(answer).to(values.device) for answer in answers]

    return run
