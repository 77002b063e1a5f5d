"""What the journal holds is put back after a power failure; what it cannot hold is synced."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import delete, select, update

from tests.datasets import ct_slice
from tests.receiver.conftest import StartReceiver, send
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.tables import InstanceRow, StudyRow


def slices() -> list[Dataset]:
    """Return three slices of one study."""
    return [ct_slice("1.2.3", n) for n in (1, 2, 3)]


def held(database: Database, files: InstanceFiles) -> dict[str, bytes]:
    """Return the content of each indexed instance's file."""
    with database.reading() as session:
        rows = session.scalars(select(InstanceRow)).all()
    return {row.sop_instance_uid: files.absolute(row.path).read_bytes() for row in rows}


class PowerFailure:
    """What is on the disk when power fails: the journal, and some of the rest."""

    def __init__(self, folder: Path, database: Database, files: InstanceFiles) -> None:
        self._journal = folder / "data" / "journal"
        self._saved = folder / "saved"
        self._database = database
        self._files = files

    def save_journal(self) -> None:
        """Keep the journal of the receiver that runs."""
        shutil.copytree(self._journal, self._saved)

    def put_journal(self) -> None:
        """Lay the kept journal there for a receiver that starts."""
        shutil.copytree(self._saved, self._journal, dirs_exist_ok=True)

    def lose_row(self, sop_instance_uid: str) -> None:
        """Let a row be gone that was committed without waiting for the disk."""
        with self._database.transaction() as session:
            session.execute(
                delete(InstanceRow).where(InstanceRow.sop_instance_uid == sop_instance_uid)
            )

    def lose_content(self, sop_instance_uid: str) -> None:
        """Let a file have its length and zeros."""
        with self._database.reading() as session:
            row = session.scalars(
                select(InstanceRow).where(InstanceRow.sop_instance_uid == sop_instance_uid)
            ).one()
        self._files.absolute(row.path).write_bytes(bytes(row.size_bytes))


@pytest.fixture
def failure(tmp_path: Path, database: Database, files: InstanceFiles) -> PowerFailure:
    """A power failure that has not come yet."""
    return PowerFailure(tmp_path, database, files)


@pytest.fixture
def stored(
    database: Database, files: InstanceFiles, start_receiver: StartReceiver, failure: PowerFailure
) -> dict[str, bytes]:
    """Three slices that a receiver has acknowledged, whose journal was saved meanwhile."""
    receiver = start_receiver(database)
    assert [response.Status for response in send(receiver, *slices())] == [0, 0, 0]
    failure.save_journal()
    receiver.stop()
    return held(database, files)


def test_lost_rows_and_files_come_back_as_they_were(
    stored: dict[str, bytes],
    database: Database,
    files: InstanceFiles,
    start_receiver: StartReceiver,
    failure: PowerFailure,
) -> None:
    without_row, without_content, _ = sorted(stored)
    failure.lose_content(without_content)
    failure.lose_row(without_row)
    for _ in range(2):  # the second time, nothing is missing
        failure.put_journal()
        receiver = start_receiver(database)
        assert held(database, files) == stored
        receiver.stop()
    with database.reading() as session:
        row = session.scalars(
            select(InstanceRow).where(InstanceRow.sop_instance_uid == without_row)
        ).one()
    assert row.calling_ae_title == "SENDER"


def test_whole_study_that_was_lost_comes_back(
    stored: dict[str, bytes],
    database: Database,
    files: InstanceFiles,
    start_receiver: StartReceiver,
    failure: PowerFailure,
) -> None:
    for uid in stored:
        failure.lose_row(uid)
    for folder in files.root.iterdir():
        shutil.rmtree(folder)
    failure.put_journal()
    start_receiver(database)
    assert held(database, files) == stored


def test_purged_images_do_not_come_back(
    stored: dict[str, bytes],
    database: Database,
    files: InstanceFiles,
    start_receiver: StartReceiver,
    failure: PowerFailure,
) -> None:
    with database.transaction() as session:
        session.execute(update(InstanceRow).values(purged_at=datetime.now(UTC)))
        paths = session.scalars(select(InstanceRow.path)).all()
    assert len(paths) == len(stored)
    for path in paths:
        files.absolute(path).unlink()
    failure.put_journal()
    start_receiver(database)
    assert not any(files.exists(path) for path in paths)


def no_room(*_: object) -> None:
    """Fail as a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


def broken_sync(*_: object) -> None:
    """Fail as a broken disk."""
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("breaks", ["before", "after"])
def test_without_a_journal_each_image_is_synced_by_itself(
    sqlite_database: Database,
    files: InstanceFiles,
    start_receiver: StartReceiver,
    monkeypatch: pytest.MonkeyPatch,
    breaks: str,
) -> None:
    if breaks == "before":  # the disk has no room for a journal
        monkeypatch.setattr(os, "pwrite", no_room)
    receiver = start_receiver(sqlite_database)
    if breaks == "after":
        monkeypatch.setattr(os, "fdatasync", broken_sync)
    synced = _count(monkeypatch, files)
    statuses = [response.Status for response in send(receiver, *slices())]
    assert statuses == [0, 0, 0]
    assert len(held(sqlite_database, files)) == 3
    assert synced() >= 6  # each file and its folder


def _count(monkeypatch: pytest.MonkeyPatch, files: InstanceFiles) -> Callable[[], int]:
    """Return what says how many files and folders of the store were synced one by one."""
    calls: list[str] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        calls.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    return lambda: sum(path.startswith(str(files.root)) for path in calls)


def test_small_images_need_no_sync_of_their_own_and_large_ones_go_to_their_file(
    sqlite_database: Database,
    files: InstanceFiles,
    start_receiver: StartReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver = start_receiver(sqlite_database)
    synced = _count(monkeypatch, files)
    assert [response.Status for response in send(receiver, *slices())] == [0, 0, 0]
    assert synced() == 0
    large = ct_slice("1.2.3", 4)
    large.Rows, large.Columns, large.PixelData = 1024, 768, os.urandom(1024 * 768 * 2)
    assert send(receiver, large)[0].Status == 0
    assert synced() >= 2
    assert held(sqlite_database, files)[large.SOPInstanceUID].endswith(large.PixelData)
    with sqlite_database.reading() as session:
        assert len(session.scalars(select(StudyRow)).all()) == 1
