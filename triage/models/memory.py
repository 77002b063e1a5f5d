"""How much memory the hosts hold, and which of them end when it is too much."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_GREATEST_SHARE = 0.9
"""Of a device's memory: a run needs room beside the models that wait."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What a host said of its device's memory after its last run, in bytes.

    Attributes:
        used: by all that is on the device.
        total: of the device.
        held: by this host; it comes free when the host ends.
    """

    used: int
    total: int
    held: int

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> DeviceMemory | None:
        """Return what the answer of a host says, or None for a host on the CPU."""
        said = content.get("device_memory")
        return cls(*map(int, said)) if said else None


@dataclass(frozen=True, slots=True)
class HostMemory:
    """What one host holds: `resident_bytes` of the machine's memory, and its device's."""

    device: str
    resident_bytes: int
    on_device: DeviceMemory | None = None


def is_short(hosts: Sequence[HostMemory], budget_bytes: int) -> bool:
    """Return whether the hosts hold more than the budget of the machine's memory."""
    return sum(host.resident_bytes for host in hosts) > budget_bytes


def full_devices(hosts: Sequence[HostMemory], ended: Sequence[HostMemory]) -> frozenset[str]:
    """Return the devices on which too little is free, as the newest answer from each says.

    The hosts are in the order of their last use, the newest last; `ended` are those that have
    ended since that answer.
    """
    newest = {h.device: h.on_device for h in hosts if h.on_device is not None}
    freed = Counter[str]()
    for host in ended:
        freed[host.device] += host.on_device.held if host.on_device else 0
    return frozenset(
        device
        for device, said in newest.items()
        if said.used - freed[device] > _GREATEST_SHARE * said.total
    )


def resident_bytes(pid: int | None) -> int:
    """Return the memory that a process holds, or 0 where the system does not say."""
    try:
        statm = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(statm[1]) * os.sysconf("SC_PAGE_SIZE")
