"""How a worker and a model host talk: small JSON messages, arrays in shared memory.

An array travels as the descriptor of an anonymous memory file that both processes map, so nothing
is pickled or copied through a pipe, nothing is left behind by a process that is killed, and the
64 MB that a container grants to /dev/shm are no limit.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAXIMUM_MESSAGE_BYTES = 64 * 1024
_MAXIMUM_ARRAYS = 8
_NUMBERS = "biuf"
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW if hasattr(fcntl, "F_SEAL_SHRINK") else 0

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Message:
    """A message: what is said, and the arrays that go with it by name."""

    content: Mapping[str, Any]
    arrays: Mapping[str, Array] = field(default_factory=dict)


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a channel. Message boundaries are kept (SOCK_SEQPACKET)."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, message: Message) -> None:
    """Send `message`, its arrays by descriptor.

    Raises:
        OSError: the other side is gone.
    """
    described = []
    descriptors = []
    try:
        for name, values in message.arrays.items():
            described.append({"name": name, "shape": values.shape, "dtype": values.dtype.str})
            descriptors.append(_shared_copy(values))
        envelope = {"content": message.content, "arrays": described}
        data = json.dumps(envelope).encode()
        socket.send_fds(channel, [data], descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def receive(channel: socket.socket) -> Message | None:
    """Return the next message, or None once the other side is gone.

    Raises:
        TimeoutError: nothing came within the timeout of the channel.
        ValueError: what came is no message.
    """
    try:
        data, descriptors, _, _ = socket.recv_fds(channel, _MAXIMUM_MESSAGE_BYTES, _MAXIMUM_ARRAYS)
    except ConnectionError:
        return None
    try:
        if not data:
            return None
        return _message(data, descriptors)
    except (LookupError, TypeError) as error:
        raise ValueError(f"no message: {error!r}") from error
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _message(data: bytes, descriptors: Sequence[int]) -> Message:
    envelope = json.loads(data)
    arrays = {
        described["name"]: _mapped(descriptor, described["shape"], described["dtype"])
        for described, descriptor in zip(envelope["arrays"], descriptors, strict=True)
    }
    return Message({**envelope["content"]}, arrays)


def _shared_copy(values: Array) -> int:
    descriptor = _anonymous_file()
    try:
        if values.nbytes:
            os.ftruncate(descriptor, values.nbytes)
            memory = mmap.mmap(descriptor, values.nbytes)
            np.ndarray(values.shape, values.dtype, buffer=memory)[...] = values
            _seal(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _seal(descriptor: int) -> None:
    """Fix the size: a file that shrinks under a map ends the process that reads it (SIGBUS)."""
    if _SEALS:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)


def _is_sealed(descriptor: int) -> bool:
    return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS == _SEALS if _SEALS else True


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("triage-array", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:  # other systems than Linux
        return os.dup(file.fileno())


def _mapped(descriptor: int, shape: list[int], dtype: str) -> Array:
    kind = np.dtype(dtype)
    if kind.kind not in _NUMBERS:  # an object's bytes would be taken for an address
        raise ValueError(f"an array of {kind} came; only numbers may")
    size = math.prod(shape) * kind.itemsize
    if size == 0:
        return np.empty(shape, kind)
    if os.fstat(descriptor).st_size < size:
        raise ValueError(f"an array of {size} bytes came in {os.fstat(descriptor).st_size}")
    if not _is_sealed(descriptor):
        raise ValueError("an array came whose size may still change")
    # The array keeps the map alive, and the map keeps the memory after its descriptor is closed.
    return np.ndarray(tuple(shape), kind, buffer=mmap.mmap(descriptor, size))
