"""The files of instances: written whole and durable, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import mmap
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

from triage.store.syncing import begin_writing, sync, sync_file_system
from triage.store.writing import Piece, write_all

_INCOMING = "incoming"
# In containers that share a disk, processes have the same numbers.
_ours = uuid.uuid4().hex[:16]
_numbers = itertools.count()
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A durable file: its path below the folder of the store, its size and its SHA-256."""

    path: str
    size_bytes: int
    sha256: str


class InstanceFiles:
    """The folder of received instances and results, one subfolder a study.

    Names are digests of the UIDs: a UID comes from outside and could be a path.
    """

    def __init__(self, data_directory: Path) -> None:
        self.root = data_directory.absolute() / "instances"
        self.root.mkdir(parents=True, exist_ok=True)

    def absolute(self, path: str) -> Path:
        """Return the place on disk of a stored file."""
        return self.root / path

    def exists(self, path: str) -> bool:
        """Return whether a stored file is there."""
        return bool(path) and self.absolute(path).is_file()

    def write(
        self, study_instance_uid: str, sop_instance_uid: str, chunks: Iterable[bytes | memoryview]
    ) -> StoredFile:
        """Write `chunks` as the file of an instance and return once it is durable.

        Raises:
            OSError: the disk refused; nothing is left behind.
        """
        with self.begin() as file:
            for chunk in chunks:
                file.write(chunk)
            return file.keep(study_instance_uid, sop_instance_uid)

    def put(
        self,
        study_instance_uid: str,
        sop_instance_uid: str,
        pieces: Sequence[Piece],
        sha256: str,
    ) -> StoredFile:
        """Write the file of an instance whose bytes are durable elsewhere until `make_durable`.

        Raises:
            OSError: the disk refused; nothing is left behind.
        """
        with self.begin() as file:
            file.append(pieces)
            return file.name(study_instance_uid, sop_instance_uid, sha256)

    def make_durable(self) -> None:
        """Return once all files that were put are durable, and their names.

        One sync of the file system instead of one for each file and folder: the device writes in
        the order that suits it.

        Raises:
            OSError: the disk refused.
        """
        sync_file_system(self.root)

    def begin(self) -> GrowingFile:
        """Return a new file that takes bytes before it is known whose they are.

        Raises:
            OSError: the disk refused.
        """
        return GrowingFile(self.root)

    def remove_abandoned(self) -> int:
        """Remove the growing files of writers that are no more, and return how many.

        A writer locks its file; the lock ends with the process, however that ends.
        """
        removed = 0
        for file in (self.root / _INCOMING).glob("*.part"):
            # Gone meanwhile, or being written.
            with (
                contextlib.suppress(FileNotFoundError, BlockingIOError),
                file.open("rb") as abandoned,
            ):
                fcntl.flock(abandoned, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink()
                removed += 1
        return removed

    def free_bytes(self) -> int:
        """Return how many bytes the disk of the store has left."""
        disk = os.statvfs(self.root)
        return disk.f_bavail * disk.f_frsize


class GrowingFile:
    """A file below the store's root that gets its name, and becomes durable, when it is whole.

    As a context manager it removes what was not kept. Paths are plain strings here: this runs for
    every image.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._path = f"{self._root}/{_INCOMING}/{_ours}-{os.getpid()}-{next(_numbers)}.part"
        try:
            self._descriptor = os.open(self._path, _NEW_FILE, 0o640)
        except FileNotFoundError:
            (root / _INCOMING).mkdir(exist_ok=True)
            self._descriptor = os.open(self._path, _NEW_FILE, 0o640)
        # Says that somebody is still writing. Who looks between the two lines takes it for
        # abandoned: it then gets no name, and its sender sends it again.
        fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self._content = hashlib.sha256()
        self._is_open = True
        self.size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def write(self, chunk: Piece) -> None:
        """Append `chunk`.

        Raises:
            OSError: the disk refused.
        """
        self._content.update(chunk)
        self.append([chunk])

    def append(self, pieces: Sequence[Piece]) -> None:
        """Append `pieces`, whose digest is taken care of elsewhere.

        Raises:
            OSError: the disk refused.
        """
        write_all(self._descriptor, pieces, self.size_bytes)
        self.size_bytes += sum(map(len, pieces))

    def begin_writing(self) -> None:
        """Let the disk begin with what was written, so that making it durable takes less time."""
        begin_writing(self._descriptor, 0, self.size_bytes)

    def mapped(self) -> mmap.mmap:
        """Return what was written, mapped into memory; only what is looked at takes any."""
        return mmap.mmap(self._descriptor, self.size_bytes, access=mmap.ACCESS_READ)

    def keep(self, study_instance_uid: str, sop_instance_uid: str) -> StoredFile:
        """Name the file after its instance and return once content and name are durable.

        The content's digest is part of the name, so an instance that comes again with other
        content never overwrites the first.

        Raises:
            OSError: the disk refused.
        """
        sha256 = self._content.hexdigest()
        path = _path_of(study_instance_uid, sop_instance_uid, sha256)
        place = f"{self._root}/{path}"
        if os.path.exists(place):  # noqa: PTH110
            # It may be one that was acknowledged: only what is durable may take its place.
            os.fsync(self._descriptor)
            is_first = self._move_to(place)
        else:
            # Named first, so that a journal takes the content and the name in one commit.
            is_first = self._move_to(place)
            os.fsync(self._descriptor)
        if is_first:
            sync(self._root)
        # A file's name is durable only once its folder is (POSIX fsync on the directory).
        sync(os.path.dirname(place))  # noqa: PTH120
        self._close()
        return StoredFile(path, self.size_bytes, sha256)

    def name(self, study_instance_uid: str, sop_instance_uid: str, sha256: str) -> StoredFile:
        """Name the file as `keep` does, and leave it to others to make it durable.

        Raises:
            OSError: the disk refused.
        """
        path = _path_of(study_instance_uid, sop_instance_uid, sha256)
        self._move_to(f"{self._root}/{path}")
        self._close()
        return StoredFile(path, self.size_bytes, sha256)

    def discard(self) -> None:
        """Remove the file, unless it was kept."""
        if self._is_open:
            self._close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108

    def _move_to(self, place: str) -> bool:
        """Name the file; return whether it is the first of its study, whose folder is then made."""
        try:
            os.rename(self._path, place)  # noqa: PTH104
        except FileNotFoundError:
            Path(place).parent.mkdir(exist_ok=True)
            os.rename(self._path, place)  # noqa: PTH104
            return True
        return False

    def _close(self) -> None:
        self._is_open = False
        os.close(self._descriptor)


def _path_of(study_instance_uid: str, sop_instance_uid: str, sha256: str) -> str:
    folder = _folder_of(study_instance_uid)
    return f"{folder}/{_digest(sop_instance_uid)[:24]}-{sha256[:16]}.dcm"


@lru_cache(maxsize=256)
def _folder_of(study_instance_uid: str) -> str:
    return _digest(study_instance_uid)[:32]


def _digest(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()
