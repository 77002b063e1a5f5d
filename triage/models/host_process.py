"""The child process of a model host: one loaded model, run after run until its worker is gone.

Started as `python -m triage.models.host_process DESCRIPTOR` by `triage.models.host`.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from triage.core.manifest import VolumeInput
from triage.models.channel import Message, receive, send
from triage.models.packages import ModelPackage, load_package
from triage.models.tensors import ModelInput

if TYPE_CHECKING:
    from triage.models.runners import Runner

_LONGEST_REASON = 4000
_POLLRDHUP = getattr(select, "POLLRDHUP", 0)
_TYPICAL_VOLUME = (32, 512, 512)
_TYPICAL_SPACING_MM = (0.45, 0.45, 5.0)


def main(descriptor: int) -> None:
    """Serve the worker at the other end of `descriptor` until it is gone."""
    # Ctrl-C reaches the whole process group; the worker decides when its hosts end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=descriptor)
    threading.Thread(target=_end_with_worker, args=(descriptor,), daemon=True).start()
    runner: Runner | None = None
    while (message := receive(channel)) is not None:
        started = time.perf_counter()
        try:
            if message.content["do"] == "load":
                runner, warm_up_failed = _load(message)
                answer = Message({"ok": True, "warm_up_failed": warm_up_failed})
            else:
                assert runner is not None, "a run was asked for before the model was loaded"
                answer = _run(runner, message)
        except Exception as error:  # noqa: BLE001 - whatever a model does is the worker's to know
            answer = Message({"ok": False, "reason": _reason(error)})
        seconds = time.perf_counter() - started
        send(channel, Message({**answer.content, "seconds": seconds}, answer.arrays))


def _end_with_worker(descriptor: int) -> None:
    # A worker that was killed closes its end of the channel. Waiting for that here, and not with
    # PR_SET_PDEATHSIG, because that signal comes when the thread ends that started the host.
    poll = select.poll()
    poll.register(descriptor, _POLLRDHUP)
    while not any(event & (select.POLLHUP | _POLLRDHUP) for _, event in poll.poll()):
        pass
    os._exit(0)


def _load(message: Message) -> tuple[Runner, str]:
    """Return the loaded model, and why its trial run failed ("" if it did not)."""
    from triage.models.runners import load_runner  # noqa: PLC0415 - the import that takes seconds

    package = load_package(Path(message.content["package"]))
    if package.sha256 != message.content["sha256"]:
        raise ValueError(f"{package.path}: the package changed on disk while it was in use")
    runner = load_runner(package, message.content["device"])
    if message.content["warm_up"]:
        try:
            runner.run(_typical_input(package))
        except Exception as error:  # noqa: BLE001 - made-up images prove nothing about the model
            return runner, _reason(error)
    return runner, ""


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
    output = runner.run(ModelInput.from_arrays(message.arrays))
    return Message({"ok": True}, output.to_arrays())


if __name__ == "__main__":
    main(int(sys.argv[1]))
