"""Packages in archives: what is unpacked, and what is refused before it can do harm."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triage.models import archives
from triage.models.archives import open_package, safe_path, unpack
from triage.models.packages import PackageError, load_package


def zip_of(path: Path, *entries: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def tar_of(path: Path, *entries: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def pack(folder: Path, path: Path, top: str) -> Path:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    make = zip_of if path.suffix == ".zip" else tar_of
    return make(path, *((f"{top}{p.relative_to(folder)}", p.read_bytes()) for p in files))


@pytest.mark.parametrize("name", ["tiny.zip", "tiny.tar.gz", "tiny.TGZ"])
@pytest.mark.parametrize("top", ["", "tiny-1.0.0/", "./"])
def test_archive_gives_the_same_package_as_its_folder(
    segmentation: object, tmp_path: Path, name: str, top: str
) -> None:
    folder = segmentation.path  # type: ignore[attr-defined]
    archive = pack(folder, tmp_path / name, top)
    with open_package(archive) as opened:
        assert load_package(opened).sha256 == segmentation.sha256  # type: ignore[attr-defined]
    assert not opened.exists()


def with_links(path: Path, kind: bytes) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("models/model.pt")
        entry.type, entry.linkname = kind, "/etc/shadow"
        archive.addfile(entry)
    return path


def zip_with_link(path: Path) -> Path:
    entry = zipfile.ZipInfo("models/model.pt")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, "/etc/shadow")
    return path


def encrypted_zip(path: Path) -> Path:
    zip_of(path, ("model.yaml", b"secret"))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    return path


def tar_with_long_header(path: Path) -> Path:
    """An extended header that says it has a gigabyte, which tarfile would read at once."""
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 1 << 30
    path.write_bytes(gzip.compress(entry.tobuf() + bytes(1 << 21)))
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: zip_of(p / "a.zip", ("../x", b"")), r"entry '\.\./x': its name leads out"),
        (lambda p: tar_of(p / "a.tgz", ("a/../../x", b"")), r"'a/\.\./\.\./x': its name leads out"),
        (lambda p: zip_of(p / "a.zip", ("/etc/x", b"")), "'/etc/x': its name is an absolute path"),
        (lambda p: tar_of(p / "a.tgz", ("/etc/x", b"")), "'/etc/x': its name is an absolute path"),
        (lambda p: zip_of(p / "a.zip", ("C:\\x", b"")), "a backslash or a colon"),
        (lambda p: zip_of(p / "a.zip", ("a", b""), ("A", b"")), "'A': its name collides .*file a"),
        (lambda p: zip_of(p / "a.zip", ("a", b""), ("a/b", b"")), "'a/b': its name collides"),
        (lambda p: tar_of(p / "a.tgz", ("ﬁ", b""), ("fi", b"")), "'fi': its name collides"),
        (lambda p: tar_of(p / "a.tgz", ("a", b""), ("a", b"")), "'a': it is there twice"),
        (lambda p: with_links(p / "a.tgz", tarfile.SYMTYPE), "'models/model.pt': it is a link"),
        (lambda p: with_links(p / "a.tgz", tarfile.LNKTYPE), "'models/model.pt': it is a link"),
        (lambda p: with_links(p / "a.tgz", tarfile.CHRTYPE), "'models/model.pt': it is a link"),
        (lambda p: with_links(p / "a.tgz", tarfile.FIFOTYPE), "'models/model.pt': it is a link"),
        (lambda p: zip_with_link(p / "a.zip"), "'models/model.pt': it is a link or a device"),
        (lambda p: encrypted_zip(p / "a.zip"), "'model.yaml': it is encrypted"),
        (lambda p: tar_with_long_header(p / "a.tgz"), "longer than a megabyte"),
        (lambda p: zip_of(p / "a.zip", ("readme", b"")), "there is no model.yaml at its top"),
        (lambda p: (p / "a.rar").write_bytes(b"Rar") and p / "a.rar", "neither a folder nor"),
        (lambda p: (p / "a.zip").write_bytes(b"PK") and p / "a.zip", "cannot be unpacked"),
        (lambda p: (p / "a.tgz").write_bytes(b"no") and p / "a.tgz", "cannot be unpacked"),
    ],
)
def test_dangerous_archive_is_refused_with_the_entry(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(PackageError, match=message), open_package(make(tmp_path)):
        pass


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_bomb_is_stopped_while_it_expands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Path]
) -> None:
    monkeypatch.setattr(archives, "_SMALL_BYTES", 1 << 20)
    archive = make(tmp_path / ("a.zip" if make is zip_of else "a.tgz"), ("zeros", bytes(8 << 20)))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(PackageError, match="expands to more than is allowed"):
        unpack(archive, out)
    assert sum(p.stat().st_size for p in out.rglob("*")) <= 4 << 20


def test_archive_with_too_many_entries_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAXIMUM_FILES", 10)
    archive = zip_of(tmp_path / "a.zip", *((f"f{i}", b"") for i in range(11)))
    with pytest.raises(PackageError, match="more than 10 entries"), open_package(archive):
        pass


names = st.one_of(
    st.text(min_size=1, max_size=40),
    st.lists(
        st.sampled_from(["..", ".", "", "a", "A", "b.txt", "~", "C:", "\\", "\x00", "con", "ä"]),
        min_size=1,
        max_size=6,
    ).map("/".join),
)


@given(name=names)
def test_accepted_name_stays_below_its_folder(name: str) -> None:
    try:
        path = safe_path(name)
    except ValueError:
        return
    assert not path.is_absolute()
    assert path.parts
    assert ".." not in path.parts


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(entries=st.lists(st.tuples(names, st.binary(max_size=8)), max_size=5), is_zip=st.booleans())
def test_nothing_is_ever_written_outside(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, bytes]], is_zip: bool
) -> None:
    outer = tmp_path_factory.mktemp("outer")
    inner = outer / "one" / "two" / "three"
    inner.mkdir(parents=True)
    archive = outer / ("a.zip" if is_zip else "a.tgz")
    try:
        (zip_of if is_zip else tar_of)(archive, *entries)
    except (ValueError, UnicodeError):
        return  # no archive can hold this
    with contextlib.suppress(PackageError):
        unpack(archive, inner)
    outside = [p for p in outer.rglob("*") if p.is_file() and inner not in p.parents]
    assert outside == [archive]
