"""What a worker says of a device that it computes on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class DeviceState(BaseModel):
    """A GPU, or the CPU, as its worker saw it last; what cannot be known is None.

    Memory is in bytes, `busy` a share from 0 to 1 of the time since it was last asked.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    title: str = ""
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    busy: float | None = None
    problem: str = ""
