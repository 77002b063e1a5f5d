"""Which devices there are, found without loading torch into the worker."""

from __future__ import annotations

import ctypes
from importlib.metadata import PackageNotFoundError, version

CPU = "cpu"


def available_devices(wanted: str) -> tuple[str, ...]:
    """Return the devices that hosts are started on: those of `wanted`, which commas separate.

    "auto" is every CUDA device, or the CPU where there is none.
    """
    if wanted != "auto":
        return tuple(device.strip() for device in wanted.split(","))
    return tuple(f"cuda:{number}" for number in range(_count_cuda_devices())) or (CPU,)


def _count_cuda_devices() -> int:
    """Ask the driver, which heeds CUDA_VISIBLE_DEVICES as torch in the hosts does."""
    try:
        if version("torch").endswith("+cpu"):
            return 0
        driver = ctypes.CDLL("libcuda.so.1")
    except (PackageNotFoundError, OSError):
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
