"""What makes a name, or a file that others wrote, durable."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

_SYNC_FILE_RANGE_WRITE = 2


def sync(path: str | Path) -> None:
    """Return once what is written to a file, or the names in a folder, outlast a power failure.

    Raises:
        OSError: it is not there, or the disk failed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: str | Path) -> None:
    """Return once all that is written to the file system of `path` outlasts a power failure.

    Raises:
        OSError: it is not there, or the disk failed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def begin_writing(descriptor: int, position: int, length: int) -> None:
    """Let the disk begin to write a part of a file, so that a sync a little later finds it done.

    A hint, and no more: where the system has no such call (Linux: sync_file_range(2)), or refuses
    it, the sync does all of it.
    """
    call = _sync_file_range()
    if call is not None:
        call(descriptor, position, length, _SYNC_FILE_RANGE_WRITE)


@cache
def _sync_file_range() -> Any:
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call
