"""Files that grow while their instance arrives."""

from __future__ import annotations

import subprocess
import sys

from tests.tools import PROJECT
from triage.store.files import InstanceFiles


def test_a_file_is_named_after_its_instance_when_it_is_whole(files: InstanceFiles) -> None:
    with files.begin() as growing:
        growing.write(b"first ")
        growing.write(memoryview(b"second"))
        assert bytes(growing.mapped()) == b"first second"
        stored = growing.keep("1.2.3", "1.2.3.4")
    assert files.absolute(stored.path).read_bytes() == b"first second"
    assert stored.size_bytes == 12
    assert list(files.root.rglob("*.part")) == []


def test_a_file_that_is_not_kept_is_removed(files: InstanceFiles) -> None:
    with files.begin() as growing:
        growing.write(b"some")
    assert [p for p in files.root.rglob("*") if p.is_file()] == []


def test_the_same_content_again_is_the_same_file(files: InstanceFiles) -> None:
    first = files.write("1.2.3", "1.2.3.4", [b"content"])
    assert files.write("1.2.3", "1.2.3.4", [b"content"]) == first
    other = files.write("1.2.3", "1.2.3.4", [b"other"])
    assert other.path != first.path
    assert files.absolute(first.path).read_bytes() == b"content"


def test_only_what_a_dead_writer_has_left_is_removed(files: InstanceFiles) -> None:
    code = (
        "import os, sys; from pathlib import Path; from triage.store.files import InstanceFiles\n"
        "growing = InstanceFiles(Path(sys.argv[1])).begin(); growing.write(b'some'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(files.root.parent)], check=False, cwd=PROJECT)
    with files.begin() as growing:
        growing.write(b"mine")
        assert len(list(files.root.rglob("*.part"))) == 2
        assert files.remove_abandoned() == 1
        stored = growing.keep("1.2.3", "1.2.3.4")
    assert files.exists(stored.path)
