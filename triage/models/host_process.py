"""The child process of a model host: one loaded model, run after run until its worker is gone.

Started as `python -m triage.models.host_process CHANNEL LIFELINE` by `triage.models.starting`, or
forked.
"""

from __future__ import annotations

import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from triage.core.manifest import VolumeInput
from triage.models.channel import Channel, Message
from triage.models.lifeline import end_with
from triage.models.packages import ModelPackage, load_package
from triage.models.room import device_memory, is_out_of_memory, run_within_memory, use_threads
from triage.models.tensors import ModelInput

if TYPE_CHECKING:
    from triage.models.runners import Runner

_LONGEST_REASON = 4000
_TYPICAL_VOLUME = (32, 512, 512)
_TYPICAL_SPACING_MM = (0.45, 0.45, 5.0)


def main(descriptor: int, lifeline: int) -> None:
    """Serve the worker at the other end of `descriptor`; end with it, by the pipe `lifeline`."""
    end_with(lifeline)
    # Ctrl-C reaches the whole process group; the worker decides when its hosts end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=descriptor))
    runner: Runner | None = None
    while (message := channel.receive()) is not None:
        started = time.perf_counter()
        try:
            if message.content["do"] == "load":
                runner, said = _load(message)
                answer = Message({"ok": True, **said})
            else:
                assert runner is not None, "a run was asked for before the model was loaded"
                answer = _run(runner, message)
        except Exception as error:  # noqa: BLE001 - whatever a model does is the worker's to know
            full = is_out_of_memory(error)
            answer = Message({"ok": False, "reason": _reason(error), "out_of_memory": full})
        seconds = time.perf_counter() - started
        channel.send(Message({**answer.content, "seconds": seconds}, answer.arrays))


def _load(message: Message) -> tuple[Runner, dict[str, Any]]:
    """Return the loaded model; why its trial run failed ("" if it did not); and what it cannot."""
    # Imported here because they take seconds, in which the worker is already served.
    from triage.models.acceleration import load_fastest  # noqa: PLC0415
    from triage.models.runners import load_runner  # noqa: PLC0415

    package = load_package(Path(message.content["package"]))
    if package.sha256 != message.content["sha256"]:
        raise ValueError(f"{package.path}: the package changed on disk while it was in use")
    device = message.content["device"]
    use_threads(message.content["threads"])
    runner, remarks = load_fastest(
        lambda acceleration: load_runner(package, device, acceleration),
        package.manifest.runner,
        lambda: _samples(package),
    )
    warm_up_failed = ""
    if message.content["warm_up"]:
        try:
            runner.run(_typical_input(package))
        except Exception as error:  # noqa: BLE001 - made-up images prove nothing about the model
            warm_up_failed = _reason(error)
    return runner, {"warm_up_failed": warm_up_failed, "remarks": remarks}


def _samples(package: ModelPackage) -> list[ModelInput]:
    from triage.models.samples import sample_inputs  # noqa: PLC0415 - what decodes DICOM

    return list(sample_inputs(package)) or [_typical_input(package)]


def _typical_input(package: ModelPackage) -> ModelInput:
    # The first run of a process compiles kernels and grows its memory; no patient waits for it.
    wanted = package.manifest.runner.input
    if isinstance(wanted, VolumeInput):
        values = np.full(_TYPICAL_VOLUME, -1000.0, np.float32)
        values[:, 128:384, 128:384] = 30.0
        return ModelInput(values, np.diag([*_TYPICAL_SPACING_MM, 1.0]))
    return ModelInput(np.full((1, 1, wanted.size, wanted.size), 0.5, np.float32))


def _reason(error: BaseException) -> str:
    # MONAI wraps what goes wrong in a transform; the cause is what a person can act on.
    parts = [f"{type(error).__name__}: {error}"]
    while error.__cause__ is not None:
        error = error.__cause__
        parts.append(f"{type(error).__name__}: {error}")
    return ", because of ".join(parts)[:_LONGEST_REASON]


def _run(runner: Runner, message: Message) -> Message:
    use_threads(message.content["threads"])
    output, remark = run_within_memory(runner, ModelInput.from_arrays(message.arrays))
    memory = device_memory(message.content["device"])
    content = {"ok": True, "device_memory": memory, "remark": remark}
    return Message(content, output.to_arrays())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
