"""Packages in archives: unpacked so that nothing in them can reach out of their folder."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from triage.models.packages import MANIFEST_NAME, PackageError

MAXIMUM_FILES = 20_000
MAXIMUM_BYTES = 16 << 30
MAXIMUM_RATIO = 200
"""How much larger than its archive a package may be, from `_SMALL_BYTES` on."""

_SMALL_BYTES = 64 << 20
_CHUNK = 1 << 20
_LONGEST_PART, _LONGEST_NAME = 255, 1024
_TAR_ENDINGS = (".tar.gz", ".tgz")
ARCHIVE_ENDINGS = (".zip", *_TAR_ENDINGS)
_ENCRYPTED = 0x1
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_REGULAR_IN_TAR = (tarfile.REGTYPE, tarfile.AREGTYPE)


@contextmanager
def open_package(path: Path) -> Iterator[Path]:
    """Give the folder of the package at `path`: a folder as it is, an archive unpacked for a while.

    An archive is a `.zip`, `.tar.gz` or `.tgz` with `model.yaml` at its top or in its only folder.

    Raises:
        PackageError: it is neither, or an entry would be written elsewhere, is a link, is encrypted
            or expands without measure; the message names the entry.
    """
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="triage-package-") as temporary:
        unpack(path, Path(temporary))
        yield only_folder(path, Path(temporary), MANIFEST_NAME)


def unpack(archive: Path, destination: Path, *, maximum_bytes: int = MAXIMUM_BYTES) -> None:
    """Unpack `archive` into the empty folder `destination`, `maximum_bytes` at most.

    Raises:
        PackageError: as `open_package`.
    """
    try:
        if archive.name.lower().endswith(".zip"):
            _unpack_zip(archive, _Unpacking.of(archive, destination, maximum_bytes))
        elif archive.name.lower().endswith(_TAR_ENDINGS):
            _unpack_tar(archive, _Unpacking.of(archive, destination, maximum_bytes))
        else:
            raise PackageError(f"{archive}: neither a folder nor a .zip, .tar.gz or .tgz")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise PackageError(f"{archive}: cannot be unpacked: {error}") from None
    except (OSError, ValueError, RuntimeError, NotImplementedError) as error:
        raise PackageError(f"{archive}: cannot be unpacked: {error}") from None


def safe_path(name: str) -> PurePosixPath:
    """Return the relative path that the entry `name` of an archive stands for.

    Raises:
        ValueError: it could be taken for a place outside the folder, here or on another system.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise ValueError("its name has control characters")
    if "\\" in name or ":" in name:
        raise ValueError("its name has a backslash or a colon")
    if name.startswith("/"):
        raise ValueError("its name is an absolute path")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ValueError("its name leads out of the folder")
    if not parts:
        raise ValueError("it has no name")
    if any(part != part.rstrip(". ") for part in parts):
        raise ValueError("a part of its name ends in a dot or a space")
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise ValueError("its name is not text") from None
    if max(lengths) > _LONGEST_PART or sum(lengths) + len(lengths) > _LONGEST_NAME:
        raise ValueError("its name is too long")
    return PurePosixPath(*parts)


@dataclass(slots=True)
class _Unpacking:
    """The folder that an archive is unpacked into, and what may still come."""

    archive: Path
    destination: Path
    bytes_left: int
    _kinds: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, archive: Path, destination: Path, maximum_bytes: int) -> _Unpacking:
        allowed = max(_SMALL_BYTES, archive.stat().st_size * MAXIMUM_RATIO)
        return cls(archive, destination, min(maximum_bytes, allowed))

    def refuse(self, name: str, why: str) -> PackageError:
        return PackageError(f"{self.archive}: entry {name!r}: {why}; pack the files of it only")

    def folder(self, name: str) -> None:
        self._claim(name, "folder").mkdir(parents=True, exist_ok=True)

    def file(self, name: str, content: BinaryIO) -> None:
        target = self._claim(name, "file")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            while chunk := content.read(_CHUNK):
                self.bytes_left -= len(chunk)
                if self.bytes_left < 0:
                    raise self.refuse(name, "the archive expands to more than is allowed")
                file.write(chunk)

    def _claim(self, name: str, kind: str) -> Path:
        """Return where the entry goes; two that some system takes for one are refused."""
        try:
            path = safe_path(name)
        except ValueError as error:
            raise self.refuse(name, str(error)) from None
        for parent in [*path.parents][:-1]:
            self._note(name, parent, "folder")
        self._note(name, path, kind)
        return self.destination / path

    def _note(self, name: str, path: PurePosixPath, kind: str) -> None:
        key = unicodedata.normalize("NFKC", str(path)).casefold()
        described = f"folder {path}" if kind == "folder" else f"file {path}"
        known = self._kinds.setdefault(key, described)
        is_repeated_file = kind == "file" and path == PurePosixPath(known.partition(" ")[2])
        if len(self._kinds) > MAXIMUM_FILES:
            raise self.refuse(name, f"the archive has more than {MAXIMUM_FILES} entries")
        if known != described:
            raise self.refuse(name, f"its name collides with that of the {known}")
        if is_repeated_file and not self._is_new(path):
            raise self.refuse(name, "it is there twice")

    def _is_new(self, path: PurePosixPath) -> bool:
        return not (self.destination / path).exists()


def _unpack_zip(archive: Path, unpacking: _Unpacking) -> None:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            name = entry.orig_filename  # `filename` is cut at a NUL
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise unpacking.refuse(name, "it is a link or a device")
            if entry.flag_bits & _ENCRYPTED:
                raise unpacking.refuse(name, "it is encrypted")
            if entry.compress_type not in _COMPRESSIONS:
                raise unpacking.refuse(name, "it is compressed in another way than deflate")
            if name.endswith("/"):
                unpacking.folder(name)
                continue
            with opened.open(entry) as content:
                unpacking.file(name, content)  # type: ignore[arg-type]


def _unpack_tar(archive: Path, unpacking: _Unpacking) -> None:
    with (
        gzip.open(archive) as expanded,
        tarfile.open(fileobj=_Metered(expanded, unpacking.bytes_left), mode="r:") as opened,
    ):
        for entry in opened:
            if entry.isdir():
                if entry.name.strip("./"):
                    unpacking.folder(entry.name)
            elif entry.type not in _REGULAR_IN_TAR or entry.sparse is not None:
                raise unpacking.refuse(entry.name, "it is a link, a device or a sparse file")
            else:
                content = opened.extractfile(entry)
                assert content is not None, "a regular file has content"
                unpacking.file(entry.name, content)  # type: ignore[arg-type]


class _Metered(io.RawIOBase):
    """The expanded archive, read in pieces and to a limit.

    `tarfile` reads an extended header at once, however long it says that it is.
    """

    def __init__(self, expanded: gzip.GzipFile, limit: int) -> None:
        self._expanded = expanded
        # Headers and padding come on top of the files.
        self._limit = limit + MAXIMUM_FILES * 2048

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise tarfile.ReadError("a header says that it is longer than a megabyte")
        if self._expanded.tell() > self._limit:
            raise tarfile.ReadError("the archive expands to more than is allowed")
        return self._expanded.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if offset > self._limit:
            raise tarfile.ReadError("the archive expands to more than is allowed")
        return self._expanded.seek(offset, whence)

    def tell(self) -> int:
        return self._expanded.tell()


def only_folder(archive: Path, unpacked: Path, marker: str) -> Path:
    """Return the folder that holds the file `marker`: `unpacked` itself, or the only folder in it.

    Raises:
        PackageError: neither does.
    """
    if (unpacked / marker).is_file():
        return unpacked
    inside = list(unpacked.iterdir())
    if len(inside) == 1 and (inside[0] / marker).is_file():
        return inside[0]
    raise PackageError(
        f"{archive}: there is no {marker} at its top or in its only folder; pack the folder that "
        "holds it"
    )
