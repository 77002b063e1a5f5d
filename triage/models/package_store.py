"""Where registered packages are kept: each once, under the digest of its content, and unchanged."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from triage.models.packages import (
    ModelPackage,
    PackageError,
    load_package,
    package_files,
)
from triage.store.syncing import sync

_FILE_MODE, _FOLDER_MODE = 0o444, 0o555
_CHUNK = 1 << 20


class PackageStore:
    """The folder `models/sha256/` of the data directory: a subfolder for each digest.

    A package is copied to a temporary folder beside its place, synced, made read-only and renamed,
    so what has its name is whole, whenever the power fails.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def staged(self, source: Path) -> Iterator[ModelPackage]:
        """Give a checked copy of the package in `source`, gone afterwards unless it is kept.

        Content that is kept already is given from its place.

        Raises:
            PackageError: the package is broken, or holds a link or a device.
        """
        place = self._folder / load_package(source).sha256
        if place.is_dir():
            yield self._unchanged(place)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix="incoming-", dir=self._folder.parent))
        try:
            _copy(source, staging / "package")
            yield load_package(staging / "package")
        finally:
            _discard(staging)

    def keep(self, staged: ModelPackage) -> ModelPackage:
        """Give the staged copy its place; a package that has it already stays as it is.

        Raises:
            PackageError: what lies there was changed.
        """
        place = self._folder / staged.sha256
        if not place.exists():
            _seal(staged.path)
            try:
                staged.path.rename(place)
            except OSError:
                if not place.exists():  # else another process was faster, with the same content
                    raise
            place.chmod(_FOLDER_MODE)  # only now: a read-only folder cannot be moved
            sync(self._folder)
        return self._unchanged(place)

    def _unchanged(self, place: Path) -> ModelPackage:
        kept = load_package(place)
        if kept.sha256 != place.name:
            raise PackageError(
                f"{place}: the content was changed since it was registered; move the folder away "
                "and register the package again"
            )
        return kept


def _copy(source: Path, destination: Path) -> None:
    """Copy the files that make up the package, and nothing else."""
    for path in source.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise PackageError(
                f"{path}: a package holds files and folders only, no links and no devices; put the "
                "file itself there"
            )
    destination.mkdir()
    for relative in package_files(source):
        target = destination / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        with (source / relative).open("rb") as read, target.open("xb") as written:
            shutil.copyfileobj(read, written, _CHUNK)
            written.flush()
            os.fsync(written.fileno())


def _seal(folder: Path) -> None:
    """Make everything read-only and durable, the innermost first."""
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files:
            Path(parent, name).chmod(_FILE_MODE)
        for name in folders:
            Path(parent, name).chmod(_FOLDER_MODE)
        sync(Path(parent))


def _discard(staging: Path) -> None:
    for parent, folders, _ in os.walk(staging):
        for name in folders:
            Path(parent, name).chmod(0o755)
    shutil.rmtree(staging, ignore_errors=True)
