"""How full the disk of the instances is: a warning first, then no more images, then again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import StrEnum

import structlog

from triage.settings import ReceiverSettings
from triage.store.files import InstanceFiles

log = structlog.get_logger(__name__)

_MB = 1024 * 1024


class DiskLevel(StrEnum):
    """How full the disk is.

    LOW is below the warning; images are taken. REFUSING is below the minimum, and until there is
    more room again: what was accepted is analysed and delivered in what is left.
    """

    ROOMY = "roomy"
    LOW = "low"
    REFUSING = "refusing"


class DiskFullError(Exception):
    """No room for another instance; the message is what its sender is told."""


class Watermarks:
    """Says whether there is room for another instance. All sizes are in bytes.

    It refuses from `minimum` on, and until `resume` is free: without the distance between the two,
    senders would be let in for a few images whenever one file is deleted. What is being written is
    counted as if it were written, so many senders at once do not eat the reserve together.
    """

    def __init__(
        self,
        free_bytes: Callable[[], int],
        *,
        minimum: int,
        resume: int = 0,
        warning: int = 0,
    ) -> None:
        self._free_bytes = free_bytes
        self._minimum = minimum
        self._resume = max(resume, minimum)
        self._warning = warning
        self._lock = threading.Lock()
        self._in_writing = 0
        self._level = DiskLevel.ROOMY

    def hold_room(self, size: int) -> None:
        """Hold room for `size` bytes that are to be written, until `free_room` is called for it.

        Raises:
            DiskFullError: there is none.
        """
        with self._lock:
            free = self._free_bytes() - self._in_writing
            self._look(free)
            if self._level is DiskLevel.REFUSING or free < self._minimum + size:
                raise DiskFullError("disk: less space left than the receiver keeps free")
            self._in_writing += size

    def free_room(self, size: int) -> None:
        """Hold `size` bytes less: they are written, or will not be."""
        with self._lock:
            self._in_writing -= size

    def level(self) -> DiskLevel:
        """Return how full the disk is now."""
        with self._lock:
            self._look(self._free_bytes() - self._in_writing)
            return self._level

    def _look(self, free: int) -> None:
        before, self._level = self._level, self._level_at(free)
        if self._level is before:
            return
        say = log.info if self._level is DiskLevel.ROOMY else log.warning
        say("disk level changed", level=self._level.value, before=before.value, free_bytes=free)

    def _level_at(self, free: int) -> DiskLevel:
        limit = self._resume if self._level is DiskLevel.REFUSING else self._minimum
        if free < limit:
            return DiskLevel.REFUSING
        return DiskLevel.LOW if free < self._warning else DiskLevel.ROOMY


def watermarks_of(files: InstanceFiles, receiver: ReceiverSettings) -> Watermarks:
    """Return the watermarks that the settings name, for the disk of `files`."""
    return Watermarks(
        files.free_bytes,
        minimum=receiver.minimum_free_mb * _MB,
        resume=receiver.resume_free_mb * _MB if receiver.minimum_free_mb else 0,
        warning=receiver.warning_free_mb * _MB,
    )


def disk_level(free_bytes: int, receiver: ReceiverSettings) -> DiskLevel:
    """Return how full a disk with `free_bytes` is by the settings, whatever it was before."""
    if free_bytes < receiver.minimum_free_mb * _MB:
        return DiskLevel.REFUSING
    return DiskLevel.LOW if free_bytes < receiver.warning_free_mb * _MB else DiskLevel.ROOMY
