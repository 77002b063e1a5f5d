"""How a worker and a model host talk: small JSON messages, arrays in shared memory.

An array travels in an anonymous memory file that both processes map, so nothing is pickled or
copied through a pipe, nothing is left behind by a process that is killed, and the 64 MB that a
container grants to /dev/shm are no limit. The files are used again for the next message: new
memory costs its pages, and for a head CT these took longer than the model's first layers.
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
_MAXIMUM_ARRAYS = 64
_LARGEST_KEPT_BYTES = 512 << 20
_PLAIN = "biufU"
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW if hasattr(fcntl, "F_SEAL_SHRINK") else 0

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Message:
    """A message: what is said, and the arrays that go with it by name."""

    content: Mapping[str, Any]
    arrays: Mapping[str, Array] = field(default_factory=dict)


class Channel:
    """One end of a conversation in which question and answer take turns."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._outgoing = [_MemoryFile() for _ in range(_MAXIMUM_ARRAYS)]
        self._incoming = _Maps()

    def settimeout(self, seconds: float) -> None:
        """Let `send` and `receive` wait no longer than this."""
        self._socket.settimeout(seconds)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def send(self, message: Message) -> None:
        """Send `message`. The arrays of the message before it are overwritten.

        Raises:
            OSError: the other side is gone.
            ValueError: there are too many arrays.
        """
        if len(message.arrays) > _MAXIMUM_ARRAYS:
            raise ValueError(f"{len(message.arrays)} arrays; a message has {_MAXIMUM_ARRAYS}")
        described = []
        descriptors = []
        try:
            for (name, values), file in zip(message.arrays.items(), self._outgoing, strict=False):
                described.append({"name": name, "shape": values.shape, "dtype": values.dtype.str})
                descriptors.append(file.descriptor_with(values))
            envelope = {"content": message.content, "arrays": described}
            socket.send_fds(self._socket, [json.dumps(envelope).encode()], descriptors)
        finally:
            for file in self._outgoing:
                file.let_go_if_large()

    def receive(self) -> Message | None:
        """Return the next message, or None once the other side is gone.

        Its arrays hold until the other side sends again.

        Raises:
            TimeoutError: nothing came within the timeout of the channel.
            ValueError: what came is no message.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, _MAXIMUM_MESSAGE_BYTES, _MAXIMUM_ARRAYS
            )
        except ConnectionError:
            return None
        try:
            return self._message(data, descriptors) if data else None
        except (LookupError, TypeError) as error:
            raise ValueError(f"no message: {error!r}") from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _message(self, data: bytes, descriptors: Sequence[int]) -> Message:
        envelope = json.loads(data)
        pairs = zip(envelope["arrays"], descriptors, strict=True)
        arrays = {
            described["name"]: self._incoming.array(place, descriptor, described)
            for place, (described, descriptor) in enumerate(pairs)
        }
        return Message({**envelope["content"]}, arrays)


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Return the sockets of a channel's ends. Message boundaries are kept (SOCK_SEQPACKET)."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class _MemoryFile:
    """A memory file for the arrays that are sent one after the other in one place."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._memory: mmap.mmap | None = None

    def descriptor_with(self, values: Array) -> int:
        """Return the descriptor of the file, with `values` in it."""
        if self._descriptor is None or self._memory is None or len(self._memory) < values.nbytes:
            self._make(max(values.nbytes, mmap.PAGESIZE))
        assert self._descriptor is not None, "made above"
        np.ndarray(values.shape, values.dtype, buffer=self._memory)[...] = values
        return self._descriptor

    def let_go_if_large(self) -> None:
        """Keep no memory for the rare array that is large."""
        if self._memory is not None and len(self._memory) > _LARGEST_KEPT_BYTES:
            self._let_go()

    def _make(self, size: int) -> None:
        self._let_go()
        self._descriptor = _anonymous_file()
        os.ftruncate(self._descriptor, size)
        self._memory = mmap.mmap(self._descriptor, size)
        if _SEALS:
            # A file that shrinks under a map ends the process that reads it (SIGBUS).
            fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _SEALS)

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = self._memory = None

    __del__ = _let_go


class _Maps:
    """The memory files of the other side, each mapped once."""

    def __init__(self) -> None:
        self._by_place: dict[int, tuple[int, mmap.mmap]] = {}

    def array(self, place: int, descriptor: int, described: Mapping[str, Any]) -> Array:
        """Return the described array in the file; raise ValueError if it cannot be there."""
        shape, kind = tuple(described["shape"]), np.dtype(described["dtype"])
        if kind.kind not in _PLAIN:  # an object's bytes would be taken for an address
            raise ValueError(f"an array of {kind} came; only numbers and texts may")
        size = math.prod(shape) * kind.itemsize
        memory = self._map(place, descriptor)
        if len(memory) < size:
            raise ValueError(f"an array of {size} bytes came in {len(memory)}")
        # The array keeps the map alive, and the map keeps the memory.
        return np.ndarray(shape, kind, buffer=memory)

    def _map(self, place: int, descriptor: int) -> mmap.mmap:
        status = os.fstat(descriptor)
        inode, memory = self._by_place.pop(place, (0, None))
        if memory is None or inode != status.st_ino:
            if _SEALS and fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
                raise ValueError("an array came whose size may still change")
            memory = mmap.mmap(descriptor, status.st_size)
        if status.st_size <= _LARGEST_KEPT_BYTES:
            self._by_place[place] = (status.st_ino, memory)
        return memory


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("triage-array", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:  # other systems than Linux
        return os.dup(file.fileno())
