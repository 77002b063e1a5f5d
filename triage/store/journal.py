"""A journal: what is written to it is durable after one sync that all who wait share.

A new file is durable after a sync of its content and one of its folder, its row after a third. An
entry of the journal holds content and description together, so a single sync is enough for them;
file and row then follow without one. When a segment of the journal is full, everything that it
holds is made durable where it belongs, and the segment is used again. After a power failure the
entries are read back and put where they belong (`Journal.open`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import queue
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import structlog

from triage.store.syncing import begin_writing, sync
from triage.store.writing import Piece, write_all

log = structlog.get_logger(__name__)

# Magic, generation of the segment, number in it, length of description and content, SHA-256 of the
# content; then the CRC-32 of all that and the description.
_HEAD = struct.Struct("<8s16sQIQ32s")
_CHECKSUM = struct.Struct("<I")
_MAGIC = b"TRIAGEJ1"
_SUFFIX = ".journal"
_SEGMENTS = 2
_MEGABYTE = 1 << 20
_LONGEST_WAIT_S = 2.0
_TRY_AGAIN_AFTER_S = 1.0


class JournalError(OSError):
    """The journal does not take an entry; what it was to hold must become durable another way."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What was journaled: a description in the writer's own form, and the content."""

    description: bytes
    content: bytes


class Held:
    """An entry in the journal. It is kept until `release` says that it is where it belongs."""

    __slots__ = ("_journal", "_segment")

    def __init__(self, journal: Journal, segment: _Segment) -> None:
        self._journal = journal
        self._segment: _Segment | None = segment

    def release(self) -> None:
        """Say that the entry is where it belongs, or that nobody was told that it would be."""
        segment, self._segment = self._segment, None
        if segment is not None:
            self._journal._release(segment)


class Journal:
    """The journal of one process, in a folder that several may share."""

    def __init__(
        self, folder: Path, *, segment_bytes: int, make_durable: Callable[[], None]
    ) -> None:
        """Prepare a journal; it takes entries from `open` on.

        Args:
            folder: where the segments are.
            segment_bytes: how large each of the two is.
            make_durable: returns once everything is durable that released entries were for.
        """
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._make_durable = make_durable
        self._writing = threading.Lock()
        self._changed = threading.Condition(self._writing)
        self._current: _Segment | None = None
        self._clean: list[_Segment] = []
        self._full: queue.SimpleQueue[_Segment | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._emptying: threading.Thread | None = None

    def open(self, put_back: Callable[[Entry], None]) -> None:
        """Take entries from now on, after putting back what journals of dead processes hold.

        `put_back` gets each entry whose writer is no more, in the order of writing. It must bear
        to get one that is where it belongs already. A journal with which it fails stays until the
        next start.

        Raises:
            OSError: there is no room for the segments, or the folder cannot be written.
        """
        self._folder.mkdir(exist_ok=True)
        # Nobody else begins meanwhile: neither with the same entries, nor before they are back.
        with _locked(self._folder / "lock"):
            for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
                self._take_over(path, put_back)
            if self._segment_bytes:
                segments = [_Segment(self._folder, self._segment_bytes) for _ in range(_SEGMENTS)]
                sync(self._folder)
                self._current, *self._clean = segments
                self._emptying = threading.Thread(
                    target=self._empty_full_ones, name="triage-journal", daemon=True
                )
                self._emptying.start()

    def _take_over(self, path: Path, put_back: Callable[[Entry], None]) -> None:
        with path.open("rb") as segment:
            try:
                fcntl.flock(segment, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # its writer lives
                return
            count = 0
            try:
                for entry in entries_of(segment.fileno()):
                    put_back(entry)
                    count += 1
                self._make_durable()
            except Exception as error:  # noqa: BLE001 - the receiver is needed all the same
                log.error(
                    "journal not put back; it is kept for the next start",
                    journal=path.name,
                    error=type(error).__name__,
                )
                return
            path.unlink()
        if count:
            log.info("journal of an ended receiver read back", entries=count)

    @property
    def is_open(self) -> bool:
        """Whether entries are taken."""
        return self._current is not None

    def append(
        self,
        description: bytes,
        content: Sequence[Piece],
        sha256: bytes,
        *,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Held:
        """Return once an entry is durable; its pieces of `content` have the digest `sha256`.

        `meanwhile` is called while the disk writes the entry.

        Raises:
            JournalError: it is not, and never will be.
            Exception: what `meanwhile` raised; the entry is not durable either.
        """
        with self._writing:
            segment = self._segment_for(_size_of(description, content))
            end = self._written_to(segment, description, content, sha256)
            segment.unfinished += 1
        try:
            segment.begin_writing(end)
            meanwhile()
        except BaseException:
            self._release(segment)
            raise
        try:
            segment.sync(end)
        except OSError as error:
            # What a failed sync has lost is not to be known: no more of this disk's promises.
            log.error("journal cannot be synced; going on without one", error=error.strerror)
            self._release(segment)
            self._current = None
            raise JournalError(error.errno, "the journal cannot be synced") from error
        return Held(self, segment)

    def _written_to(
        self,
        segment: _Segment,
        description: bytes,
        content: Sequence[Piece],
        sha256: bytes,
    ) -> int:
        try:
            return segment.write(description, content, sha256)
        except OSError as error:
            raise JournalError(error.errno, "the journal cannot be written") from error

    def _segment_for(self, size: int) -> _Segment:
        """Return a segment with room, after a wait for one to be emptied if need be."""
        if self._current is None or size > self._segment_bytes:
            raise JournalError("no journal is open that has room for it")
        if self._current.has_room_for(size):
            return self._current
        deadline = time.monotonic() + _LONGEST_WAIT_S
        while not self._clean:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._changed.wait(left_s):
                raise JournalError("the journal is full")
            if self._current is None:
                raise JournalError("the journal is closed")
            if self._current.has_room_for(size):  # another writer went on to the next segment
                return self._current
        self._full.put(self._current)
        self._current = self._clean.pop()
        self._current.begin()
        return self._current

    def _release(self, segment: _Segment) -> None:
        with self._writing:
            segment.unfinished -= 1
            if not segment.unfinished:
                self._changed.notify_all()

    def _empty_full_ones(self) -> None:
        while (segment := self._full.get()) is not None:
            while not self._empty(segment):
                if self._closing.wait(_TRY_AGAIN_AFTER_S):
                    return
            with self._writing:
                self._clean.append(segment)
                self._changed.notify_all()

    def _empty(self, segment: _Segment) -> bool:
        """Make durable where it belongs what a segment holds; return whether that was possible."""
        with self._writing:
            while segment.unfinished:
                self._changed.wait()
        try:
            self._make_durable()
            segment.clear()
        except Exception as error:  # noqa: BLE001 - tried again; until then nothing is forgotten
            log.warning("journal cannot be emptied yet", error=type(error).__name__)
            return False
        return True

    def close(self) -> None:
        """Take no more entries, and remove the journal if all that it holds is where it belongs."""
        self._closing.set()
        with self._writing:
            current, self._current = self._current, None
            self._changed.notify_all()
        if self._emptying is None:
            return
        self._full.put(current)
        self._full.put(None)
        self._emptying.join(_LONGEST_WAIT_S)
        # A segment that could not be emptied stays: the next start reads it back.
        for segment in self._clean:
            segment.remove()
        self._clean = []


class _Segment:
    """A file of fixed size with room on the disk, so that a sync has nothing to write but data."""

    def __init__(self, folder: Path, size: int) -> None:
        self._path = folder / f"{uuid4().hex}{_SUFFIX}"
        self._size = size
        self._descriptor = os.open(
            self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640
        )
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            # Written, not only reserved: a sync would then have to note that blocks are in use.
            for position in range(0, size, _MEGABYTE):
                os.pwrite(self._descriptor, bytes(min(_MEGABYTE, size - position)), position)
            os.fsync(self._descriptor)
        except OSError:
            self.remove()
            raise
        self._syncing = threading.Lock()
        self.unfinished = 0
        self.begin()

    def begin(self) -> None:
        """Start from the front; what was written under an earlier generation is void."""
        self._generation = uuid4().bytes
        self._count = 0
        self._written = self._synced = 0

    def has_room_for(self, size: int) -> bool:
        return self._written + size <= self._size

    def write(self, description: bytes, content: Sequence[Piece], sha256: bytes) -> int:
        """Append an entry and return where it ends."""
        length = sum(map(len, content))
        head = _HEAD.pack(_MAGIC, self._generation, self._count, len(description), length, sha256)
        front = head + description
        pieces = [front + _CHECKSUM.pack(zlib.crc32(front)), *content]
        write_all(self._descriptor, pieces, self._written)
        self._count += 1
        self._written += len(pieces[0]) + length
        return self._written

    def begin_writing(self, end: int) -> None:
        """Let the disk begin to write up to `end`; the sync then has less to wait for."""
        begin_writing(self._descriptor, self._synced, end - self._synced)

    def sync(self, end: int) -> None:
        """Return once what was written up to `end` is durable; one sync serves all who wait."""
        with self._syncing:
            if self._synced < end:
                written = self._written
                os.fdatasync(self._descriptor)
                self._synced = written

    def clear(self) -> None:
        """Make sure that nothing is read back from it."""
        os.pwrite(self._descriptor, bytes(_HEAD.size), 0)
        os.fdatasync(self._descriptor)

    def remove(self) -> None:
        """Delete the file and let go of its lock."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._descriptor)


def entries_of(descriptor: int) -> Iterator[Entry]:
    """Yield the entries of a segment, up to the first that is not whole."""
    size = os.fstat(descriptor).st_size
    position, generation, count = 0, None, 0
    while True:
        head = os.pread(descriptor, _HEAD.size, position)
        if len(head) < _HEAD.size:
            return
        magic, found, number, description_length, length, sha256 = _HEAD.unpack(head)
        if magic != _MAGIC or number != count or found != (generation or found):
            return
        # Room is made for no more than the file can hold, whatever a damaged head says.
        if description_length + length > size - position:
            return
        rest = os.pread(descriptor, description_length + _CHECKSUM.size, position + _HEAD.size)
        description, checksum = rest[:description_length], rest[description_length:]
        if checksum != _CHECKSUM.pack(zlib.crc32(head + description)):
            return
        position += _HEAD.size + len(rest)
        content = os.pread(descriptor, length, position)
        if len(content) != length or hashlib.sha256(content).digest() != sha256:
            return
        position += length
        generation, count = found, count + 1
        yield Entry(description, content)


def _size_of(description: bytes, content: Sequence[Piece]) -> int:
    return _HEAD.size + len(description) + _CHECKSUM.size + sum(map(len, content))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
