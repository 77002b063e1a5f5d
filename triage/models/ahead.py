"""Images decoded while their study still arrives, so that the first model does not wait for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triage.core.analysis import InputRefusedError
from triage.models.sources import (
    ReadInstance,
    Source,
    decode,
    frames_of,
    is_colour,
    read_instance,
)

_PIXEL_DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    study_id: int
    signature: tuple[int, int]
    instance: ReadInstance
    size_bytes: int


class DecodedAhead:
    """Decoded images in a bounded memory. Safe to use from several threads at once.

    An image is known by its file: its path, which names its content's digest, its size and its
    time. When the memory is full no further image is taken, because a study needs all of its
    images at once; the images of a study go when it is no longer of use, all together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._entries: dict[Path, _Entry] = {}
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """How much memory the decoded images take."""
        return self._used

    @property
    def has_room(self) -> bool:
        """Whether another image may be taken."""
        return self._used < self._limit

    @property
    def study_ids(self) -> frozenset[int]:
        """The studies of which images are here."""
        with self._lock:
            return frozenset(entry.study_id for entry in self._entries.values())

    def add(self, study_id: int, source: Source) -> bool:
        """Read and decode an image, unless there is no room for it; return whether it was taken.

        What cannot be read or decoded is left to the run, which states the reason.
        """
        if not self.has_room or source[1] in self._entries:
            return False
        try:
            signature = _signature(source[1])
            instance = _decoded(read_instance(source))
        except (InputRefusedError, OSError):
            return False
        if instance is None:
            return False
        size = sum(values.nbytes for values in instance.decoded.values())
        entry = _Entry(study_id, signature, instance, size)
        with self._lock:
            if self._used + size > self._limit or source[1] in self._entries:
                return False
            self._entries[source[1]] = entry
            self._used += size
        return True

    def read(self, source: Source) -> ReadInstance:
        """Return the instance with its decoded frames if it is here, or read its file.

        Raises:
            InputRefusedError: the file is gone or is no DICOM file.
        """
        entry = self._entries.get(source[1])
        if entry is not None:
            try:
                if _signature(source[1]) == entry.signature:
                    return replace(entry.instance, sop_instance_uid=source[0])
            except OSError:
                pass  # reading it states the reason
        return read_instance(source)

    def forget(self, study_ids: frozenset[int]) -> None:
        """Drop the images of studies that need them no more."""
        with self._lock:
            for path, entry in list(self._entries.items()):
                if entry.study_id in study_ids:
                    del self._entries[path]
                    self._used -= entry.size_bytes


def _signature(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _decoded(instance: ReadInstance) -> ReadInstance | None:
    """Return the instance with decoded frames in place of its pixel data, or None if it has none.

    A colour image is turned to grey when it is asked for; it stays as it is.
    """
    if not instance.is_image or is_colour(instance):
        return None
    decoded: Mapping[int, NDArray[Any]] = {
        frame.index: np.asarray(decode(instance, frame.index)) for frame in frames_of(instance)
    }
    for keyword in _PIXEL_DATA:
        if keyword in instance.dataset:
            del instance.dataset[keyword]
    return replace(instance, decoded=decoded)
