"""The journal gives back what was written to it, up to where its writer was cut off."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.tools import wait_until
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.journal import Entry, Held, Journal, JournalError

_SEGMENT_BYTES = 64 * 1024


class Hospital:
    """A folder of journals, and what was made durable and put back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.durable = 0
        self.is_away = False
        self.journals: list[Journal] = []

    def make_durable(self) -> None:
        """Count, or fail as a database that is away."""
        if self.is_away:
            raise OSError(errno.EIO, "away")
        self.durable += 1

    def start(self, put_back: Callable[[Entry], None] = lambda _: None) -> Journal:
        """Open a journal as a process does that begins."""
        journal = Journal(self.folder, segment_bytes=_SEGMENT_BYTES, make_durable=self.make_durable)
        self.journals.append(journal)
        journal.open(put_back)
        return journal

    def read_back(self) -> list[Entry]:
        """Return what a process that begins puts back."""
        found: list[Entry] = []
        self.start(found.append)
        return found

    def lose_power(self, after: Path) -> Hospital:
        """Return a hospital whose disk has what this one's has now, and no process."""
        after.mkdir()
        for segment in self.folder.glob("*.journal"):
            shutil.copy(segment, after)
        return Hospital(after)


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    """A folder without a journal."""
    one = Hospital(tmp_path / "journal")
    yield one
    one.is_away = False
    for journal in one.journals:
        journal.close()


def append(journal: Journal, description: bytes, content: bytes = b"content") -> Held:
    """Append one entry."""
    return journal.append(description, [content[:3], content[3:]], hashlib.sha256(content).digest())


def written(segments: Path) -> Path:
    """Return the segment that has entries."""
    return next(p for p in segments.glob("*.journal") if p.read_bytes().startswith(b"TRIAGEJ1"))


def test_entries_are_read_back_in_order_and_once(hospital: Hospital, tmp_path: Path) -> None:
    journal = hospital.start()
    wanted = [Entry(b"%d" % n, os.urandom(n * 100)) for n in range(9)]
    for entry in wanted:
        append(journal, entry.description, entry.content)
    after = hospital.lose_power(tmp_path / "after")
    assert after.read_back() == wanted
    assert after.durable == 2  # for each of the two parts, before it is deleted
    assert after.read_back() == []


def test_journal_of_a_process_that_lives_is_left_alone(hospital: Hospital) -> None:
    append(hospital.start(), b"mine")
    assert hospital.read_back() == []


def test_reading_ends_where_the_writer_was_cut_off(hospital: Hospital, tmp_path: Path) -> None:
    journal = hospital.start()
    for n in range(3):
        append(journal, b"%d" % n, b"x" * 100)
    whole = written(hospital.folder).read_bytes().rstrip(b"\x00")
    length = len(whole) // 3
    for lost in range(1, length, 17):
        for damage in (whole[:-lost], whole[:-lost] + b"?" + whole[len(whole) - lost + 1 :]):
            after = Hospital(tmp_path / f"{lost}-{len(damage)}")
            after.folder.mkdir()
            (after.folder / "a.journal").write_bytes(damage.ljust(_SEGMENT_BYTES, b"\x00"))
            assert [entry.description for entry in after.read_back()] == [b"0", b"1"]
            after.journals[0].close()


def test_what_a_part_held_before_it_was_used_again_is_not_read_back(
    hospital: Hospital, tmp_path: Path
) -> None:
    journal = hospital.start()
    for n in range(200):  # each part several times
        append(journal, b"%03d" % n, b"x" * 1000).release()
    after = hospital.lose_power(tmp_path / "after")
    numbers = sorted(int(entry.description) for entry in after.read_back())
    assert numbers == list(range(numbers[0], 200))
    assert hospital.durable >= 2


def test_a_part_is_not_used_again_before_all_it_held_is_where_it_belongs(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("triage.store.journal._LONGEST_WAIT_S", 0.1)
    journal = hospital.start()
    first = append(journal, b"first")

    def fill() -> None:
        for _ in range(200):
            append(journal, b"more", b"x" * 1000).release()

    with pytest.raises(JournalError, match="full"):
        fill()
    assert hospital.durable == 0
    assert b"first" in {e.description for e in hospital.lose_power(tmp_path / "a").read_back()}
    hospital.is_away = True
    first.release()
    with pytest.raises(JournalError, match="full"):
        append(journal, b"more", b"x" * 1000)
    hospital.is_away = False
    wait_until(lambda: hospital.durable == 1, "the full part is emptied")
    append(journal, b"more", b"x" * 1000)


def test_who_waits_meanwhile_shares_the_next_sync(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = hospital.start()
    may_go_on = threading.Event()
    syncs = []

    def fdatasync(descriptor: int) -> None:
        syncs.append(descriptor)
        assert may_go_on.wait(20)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    segment = journal._current
    assert segment is not None
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(append, journal, b"%d" % n) for n in range(8)]
        wait_until(lambda: segment.unfinished == 8 and bool(syncs), "all have written")
        may_go_on.set()
        for one in waiting:
            one.result().release()
    assert len(syncs) == 2


def test_there_is_time_for_something_else_while_the_disk_writes(
    hospital: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = hospital.start()
    order: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda _: order.append("sync"))

    def meanwhile() -> None:
        # Written already: it would be read back even if the power failed here, and the disk had it.
        found = hospital.lose_power(tmp_path / "after").read_back()
        order.extend(entry.description.decode() for entry in found)

    journal.append(b"entry", [b"content"], hashlib.sha256(b"content").digest(), meanwhile=meanwhile)
    assert order == ["entry", "sync"]


def test_what_fails_meanwhile_keeps_nobody_from_emptying_the_journal(hospital: Hospital) -> None:
    journal = hospital.start()

    def meanwhile() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        journal.append(
            b"entry", [b"content"], hashlib.sha256(b"content").digest(), meanwhile=meanwhile
        )
    for _ in range(3):  # more than both segments hold
        append(journal, b"more", b"x" * (_SEGMENT_BYTES - 1000)).release()
    wait_until(lambda: hospital.durable >= 1, "the first part is emptied")


def test_after_a_failed_sync_nothing_is_promised(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = hospital.start()

    def fdatasync(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fdatasync)
        with pytest.raises(JournalError):
            append(journal, b"lost")
    # The disk seems well again, but what it dropped is gone.
    assert not journal.is_open
    with pytest.raises(JournalError):
        append(journal, b"another")


def test_what_cannot_be_put_back_is_kept_for_the_next_start(
    hospital: Hospital, tmp_path: Path
) -> None:
    append(hospital.start(), b"first")
    after = hospital.lose_power(tmp_path / "after")

    def refuse(_: Entry) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert after.start(refuse).is_open
    assert [entry.description for entry in after.read_back()] == [b"first"]


def test_journal_that_ends_well_leaves_nothing(hospital: Hospital) -> None:
    journal = hospital.start()
    append(journal, b"first").release()
    journal.close()
    assert hospital.durable == 1
    assert list(hospital.folder.glob("*.journal")) == []
    with pytest.raises(JournalError):
        append(journal, b"late")


def test_files_and_rows_are_made_durable_together(files: InstanceFiles, database: Database) -> None:
    stored = files.put("1.2.3", "1.2.3.4", [b"first ", memoryview(b"second")], "ab" * 32)
    with database.connection(is_durable=False) as connection:
        connection.exec_driver_sql("UPDATE studies SET patient_id = patient_id")
    files.make_durable()
    database.make_durable()
    assert files.absolute(stored.path).read_bytes() == b"first second"
