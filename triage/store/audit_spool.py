"""Events on their way into the audit trail: a file that outlives the process.

An event is in the file before the answer that it is about leaves, and in the trail a moment later.
So no page waits for a writer's lock, and neither a database that is away nor a killed process loses
an event.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from triage.core.audit import AuditEvent, AuditKind, Outcome

_PIECE = 256 * 1024


class AuditSpool:
    """This process's file in the folder; those of processes that are gone can be read too.

    Usable from all threads; `take` and `done` belong to one of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._path = folder / f"{uuid.uuid4().hex}.ndjson"
        self._done = 0
        self._taken = 0

    def append(self, event: AuditEvent) -> None:
        """Put an event into the file.

        Raises:
            OSError: the disk refused.
        """
        line = json.dumps(asdict(event.shortened()), default=_plain).encode() + b"\n"
        with self._lock:
            if self._descriptor is None:
                self._descriptor = self._open()
            if os.write(self._descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, "no room for an audit event")

    def _open(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o640)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # as long as we live, it is no orphan
        return descriptor

    def take(self) -> list[AuditEvent]:
        """Return the next events, which stay in the file until `done`."""
        with self._lock:
            if self._descriptor is None:
                return []
            content = os.pread(self._descriptor, _PIECE, self._done)
        whole = content[: content.rfind(b"\n") + 1]
        self._taken = len(whole)
        return _events(whole)

    def done(self) -> None:
        """Let go of what `take` returned last: it is in the trail."""
        with self._lock:
            if self._descriptor is None:
                return
            self._done += self._taken
            self._taken = 0
            if self._done == os.fstat(self._descriptor).st_size:
                os.ftruncate(self._descriptor, 0)
                self._done = 0

    @property
    def is_empty(self) -> bool:
        """Whether all is in the trail."""
        with self._lock:
            return self._descriptor is None or os.fstat(self._descriptor).st_size == self._done

    def orphans(self) -> Iterator[list[AuditEvent]]:
        """Yield the events of processes that are gone; a file goes when the next is asked for."""
        for path in sorted(self._folder.glob("*.ndjson")):
            with suppress(BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield _events(file.read())
                path.unlink()

    def close(self) -> None:
        """Close the file, and delete it if all of it is in the trail."""
        with self._lock:
            if self._descriptor is None:
                return
            if os.fstat(self._descriptor).st_size == self._done:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def _plain(value: object) -> str:
    assert isinstance(value, datetime)
    return value.isoformat()


def _events(content: bytes) -> list[AuditEvent]:
    # The last line of a process that was killed may be half of one.
    return [_event(line) for line in content.splitlines(keepends=True) if line.endswith(b"\n")]


def _event(line: bytes) -> AuditEvent:
    values: dict[str, Any] = json.loads(line)
    values["at"] = datetime.fromisoformat(values["at"])
    values["kind"] = AuditKind(values["kind"])
    values["outcome"] = Outcome(values["outcome"])
    values["studies"] = tuple(values["studies"])
    return AuditEvent(**values)
