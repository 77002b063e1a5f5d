"""What arrives in pieces of any size is one file, in the journal or without it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.receiver.journaled import AnnouncedInstance, Arrival, IncomingFile
from triage.store.files import InstanceFiles
from triage.store.journal import Journal

_ARRIVAL = Arrival(
    AnnouncedInstance("1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "CT", "a"),
    study_instance_uid="1.2",
    data_set_offset=0,
    received_at=datetime(2026, 1, 1, tzinfo=UTC),
    is_prior=False,
)
_SIZES = st.lists(st.one_of(st.integers(0, 40), st.integers(15_000, 130_000)), max_size=20)
_BYTES = bytes(range(251)) * 10_400


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> InstanceFiles:
    return InstanceFiles(tmp_path_factory.mktemp("instances"))


@pytest.fixture(scope="module")
def journal(files: InstanceFiles) -> Journal:
    journal = Journal(
        files.root / "journal", segment_bytes=8 << 20, make_durable=files.make_durable
    )
    journal.open(lambda _: None)
    return journal


@pytest.mark.parametrize("is_journaled", [True, False])
@given(sizes=_SIZES)
def test_pieces_of_any_size_are_one_file(
    files: InstanceFiles, journal: Journal, sizes: list[int], *, is_journaled: bool
) -> None:
    content = _BYTES[: sum(sizes)]
    incoming = IncomingFile(files, journal if is_journaled else None)
    at = 0
    for size in sizes:
        incoming.write(memoryview(content)[at : at + size])
        at += size
    if content:
        assert bytes(incoming.whole()) == content
    stored = incoming.keep(_ARRIVAL)
    incoming.close()
    assert Path(files.root / stored.path).read_bytes() == content
    assert stored.size_bytes == len(content)
    assert stored.sha256 == hashlib.sha256(content).hexdigest()


def test_a_thousand_fragments_of_a_few_bytes(files: InstanceFiles, journal: Journal) -> None:
    incoming = IncomingFile(files, journal)
    for _ in range(5000):
        incoming.write(b"abc")
    stored = incoming.keep(_ARRIVAL)
    incoming.close()
    assert incoming.is_journaled
    assert (files.root / stored.path).read_bytes() == b"abc" * 5000
