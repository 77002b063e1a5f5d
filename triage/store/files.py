"""The files of instances: written whole and durable, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


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

        The content's digest is part of the name, so an instance that comes again with other
        content never overwrites the first.

        Raises:
            OSError: the disk refused; nothing is left behind.
        """
        folder = self.root / _digest(study_instance_uid)[:32]
        is_new_folder = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{_digest(sop_instance_uid)[:24]}.{os.getpid()}.{id(chunks):x}.part"
        content = hashlib.sha256()
        size = 0
        try:
            with temporary.open("wb", buffering=0) as file:
                for chunk in chunks:
                    view = memoryview(chunk)
                    content.update(view)
                    while view:
                        written = file.write(view)
                        view = view[written:]
                        size += written
                os.fsync(file.fileno())
            name = f"{_digest(sop_instance_uid)[:24]}-{content.hexdigest()[:16]}.dcm"
            temporary.replace(folder / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _fsync_folder(folder)
        if is_new_folder:
            _fsync_folder(self.root)
        return StoredFile(f"{folder.name}/{name}", size, content.hexdigest())

    def free_bytes(self) -> int:
        """Return how many bytes the disk of the store has left."""
        return shutil.disk_usage(self.root).free


def _digest(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()


def _fsync_folder(folder: Path) -> None:
    # A file's name is durable only once its folder is (POSIX fsync on the directory).
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
