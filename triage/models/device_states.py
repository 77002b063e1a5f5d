"""How full and how busy the devices are, without loading torch into the worker."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pynvml

from triage.core.devices import DeviceState
from triage.models.devices import CPU

_KIB = 1024
_PATIENCE_S = 2.0


class DeviceWatch:
    """Looks at the devices in a thread of its own: a driver may hang, and nobody waits for it."""

    def __init__(
        self, names: Sequence[str], look: Callable[[Sequence[str]], list[DeviceState]] | None = None
    ) -> None:
        self._names = names
        self._look = look or device_states
        self._thread: threading.Thread | None = None
        self._seen: list[DeviceState] = []

    def states(self, patience_s: float = _PATIENCE_S) -> list[DeviceState]:
        """Return the present state of each device, or what is wrong with looking at it."""
        if self._thread is None or not self._thread.is_alive():
            self._seen = []
            self._thread = threading.Thread(target=self._see, name="device-watch", daemon=True)
            self._thread.start()
        self._thread.join(patience_s)
        problem = "its driver does not answer"
        return self._seen or [DeviceState(name=name, problem=problem) for name in self._names]

    def _see(self) -> None:
        self._seen = self._look(self._names)


def device_states(names: Sequence[str]) -> list[DeviceState]:
    """Return the state of each device that hosts are started on, by its name ("cpu", "cuda:0").

    An error of the driver is said as the device's `problem`.
    """
    gpus = [name for name in names if name != CPU]
    states = {CPU: _cpu()} if CPU in names else {}
    if gpus:
        try:
            pynvml.nvmlInit()
            try:
                states |= {name: _gpu(name) for name in gpus}
            finally:
                pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            states |= {name: DeviceState(name=name, problem=str(error)) for name in gpus}
    return [states[name] for name in names]


def _cpu() -> DeviceState:
    cores = len(os.sched_getaffinity(0))
    total, free = _memory_bytes()
    return DeviceState(
        name=CPU,
        title=f"{cores} cores",
        memory_used_bytes=total - free,
        memory_total_bytes=total,
        busy=round(min(1.0, os.getloadavg()[0] / cores), 3),
    )


def _memory_bytes() -> tuple[int, int]:
    """Return how much memory the machine has, and how much could be had."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    values = dict(line.split(":", 1) for line in lines)
    total, free = (int(values[key].split()[0]) * _KIB for key in ("MemTotal", "MemAvailable"))
    return total, free


def _gpu(name: str) -> DeviceState:
    try:
        handle = _handle(int(name.partition(":")[2] or 0))
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        title = pynvml.nvmlDeviceGetName(handle)
        return DeviceState(
            name=name,
            title=title if isinstance(title, str) else title.decode(),
            memory_used_bytes=int(memory.used),
            memory_total_bytes=int(memory.total),
            busy=_busy(handle),
        )
    except (pynvml.NVMLError, ValueError) as error:
        return DeviceState(name=name, problem=str(error))


def _handle(number: int) -> object:
    """Return the driver's handle of torch's device `number`, which counts the visible ones only."""
    visible = [one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    if not visible:
        return pynvml.nvmlDeviceGetHandleByIndex(number)
    if number >= len(visible):
        raise ValueError(f"CUDA_VISIBLE_DEVICES names no device {number}")
    if visible[number].isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(visible[number]))
    return pynvml.nvmlDeviceGetHandleByUUID(visible[number])


def _busy(handle: object) -> float | None:
    try:
        return float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
    except pynvml.NVMLError:  # a part of a device (MIG) does not say
        return None
