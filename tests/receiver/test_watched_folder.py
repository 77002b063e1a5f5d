"""The watched folder: what is taken, when, and what becomes of the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from sqlalchemy import select

from tests.datasets import ct_slice
from tests.receiver.archives import file_of
from tests.receiver.conftest import receiver_settings, send
from tests.tools import PROJECT, find_free_port, wait_until
from triage.receiver import Receiver
from triage.receiver.companions import companions
from triage.receiver.encoded import read_instance
from triage.receiver.placing import PlaceRounds
from triage.receiver.ups.events import UpsEvents
from triage.receiver.watched_folder import WatchedFolder
from triage.settings import WatchedFolderSettings
from triage.store.clock import system_clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.tables import InstanceRow, OpenAssociationRow, StudyRow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    one = tmp_path / "in"
    one.mkdir()
    return one


class Watched:
    """A watched folder that looks when a test says so, at the second that it says."""

    def __init__(self, folder: Path, database: Database, files: InstanceFiles, **more: Any) -> None:
        settings = receiver_settings(folder.parent / "data")
        self.folder = folder
        self.watched = WatchedFolder(
            WatchedFolderSettings(path=str(folder), rest_s=2.0, **more),
            settings.receiver,
            database,
            files,
            system_clock,
        )
        self.now_s = 100.0

    def look(self, after_s: float = 0.0) -> int:
        self.now_s += after_s
        return self.watched.look(self.now_s)

    def left(self) -> list[str]:
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*"))


@pytest.fixture
def watched(folder: Path, sqlite_database: Database, files: InstanceFiles) -> Iterator[Watched]:
    one = Watched(folder, sqlite_database, files)
    yield one
    one.watched._entrance.close()


def stored(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.scalars(select(InstanceRow.sop_instance_uid).order_by(InstanceRow.id)))


def without_header(dataset: Dataset, transfer_syntax: str) -> bytes:
    import io

    from pydicom.filewriter import write_dataset

    content = io.BytesIO()
    from pydicom.filebase import DicomIO

    writer = DicomIO(content)
    writer.is_implicit_VR = transfer_syntax == ImplicitVRLittleEndian
    writer.is_little_endian = transfer_syntax != ExplicitVRBigEndian
    write_dataset(writer, dataset)
    return content.getvalue()


def test_a_file_is_taken_when_it_rests_and_then_removed(
    watched: Watched, sqlite_database: Database
) -> None:
    one = ct_slice()
    (watched.folder / "1.dcm").write_bytes(file_of(one))
    assert watched.look() == 0  # nobody knows yet whether it still grows
    assert watched.look(1.0) == 0
    assert watched.look(1.5) == 1
    assert stored(sqlite_database) == [one.SOPInstanceUID]
    assert watched.left() == []
    with sqlite_database.reading() as session:
        assert session.scalars(select(StudyRow.calling_ae_title)).all() == ["FOLDER"]
        assert session.scalars(select(OpenAssociationRow)).all() == []


def test_a_file_that_is_still_being_written_is_left_alone(
    watched: Watched, sqlite_database: Database
) -> None:
    content = file_of(ct_slice())
    path = watched.folder / "slow.dcm"
    with path.open("wb") as file:
        for start in range(0, len(content), 200):
            file.write(content[start : start + 200])
            file.flush()
            assert watched.look(3.0) == 0
    assert watched.look(2.0) == 1
    assert stored(sqlite_database)
    assert watched.left() == []


def test_a_file_that_is_renamed_into_place_is_taken_in_subfolders_too(
    watched: Watched, sqlite_database: Database
) -> None:
    deep = watched.folder / "patient 1" / "series"
    deep.mkdir(parents=True)
    part = deep / "image.part"
    part.write_bytes(file_of(ct_slice()))
    watched.look()
    assert watched.look(5.0) == 0
    part.rename(deep / "IM0001")
    watched.look()
    assert watched.look(5.0) == 1
    assert watched.left() == []  # the sender's empty folders are gone too


def test_what_is_no_dicom_is_moved_aside_with_the_reason(
    watched: Watched, sqlite_database: Database
) -> None:
    (watched.folder / "sub").mkdir()
    (watched.folder / "sub" / "letter.doc").write_text("Dear colleague, this is no image")
    good = ct_slice()
    (watched.folder / "sub" / "good.dcm").write_bytes(file_of(good))
    watched.look()
    assert watched.look(5.0) == 1
    assert watched.left() == [
        "rejected",
        "rejected/sub",
        "rejected/sub/letter.doc",
        "rejected/sub/letter.doc.txt",
    ]
    reason = (watched.folder / "rejected/sub/letter.doc.txt").read_text()
    assert "not a DICOM file" in reason
    watched.look()
    assert watched.look(5.0) == 0  # what is set aside is not looked at again
    assert stored(sqlite_database) == [good.SOPInstanceUID]


def test_a_rejected_file_replaces_no_other(watched: Watched) -> None:
    for _ in range(2):
        (watched.folder / "x.bin").write_text("nothing of ours")
        watched.look()
        watched.look(5.0)
    names = sorted(p.name for p in (watched.folder / "rejected").iterdir())
    assert names == ["x-2.bin", "x-2.bin.txt", "x.bin", "x.bin.txt"]


def test_links_are_not_followed(
    watched: Watched, tmp_path: Path, sqlite_database: Database
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.dcm").write_bytes(file_of(ct_slice()))
    (watched.folder / "folder").symlink_to(outside)
    (watched.folder / "file.dcm").symlink_to(outside / "secret.dcm")
    watched.look()
    assert watched.look(5.0) == 0
    assert stored(sqlite_database) == []
    assert (outside / "secret.dcm").exists()


def test_done_files_are_kept_where_that_is_wanted(
    folder: Path, sqlite_database: Database, files: InstanceFiles
) -> None:
    watched = Watched(folder, sqlite_database, files, keep_done=True, sender="USB")
    (folder / "a").mkdir()
    (folder / "a" / "1.dcm").write_bytes(file_of(ct_slice()))
    watched.look()
    assert watched.look(5.0) == 1
    assert watched.left() == ["done", "done/a", "done/a/1.dcm"]
    watched.look()
    assert watched.look(5.0) == 0


@pytest.mark.parametrize(
    "transfer_syntax",
    [ImplicitVRLittleEndian, "1.2.840.10008.1.2.1", ExplicitVRBigEndian],
)
def test_files_without_a_header_are_read(
    watched: Watched, sqlite_database: Database, transfer_syntax: str
) -> None:
    (watched.folder / "raw").write_bytes(without_header(ct_slice(), transfer_syntax))
    watched.look()
    assert watched.look(5.0) == 1
    with sqlite_database.reading() as session:
        row = session.scalars(select(InstanceRow)).one()
    assert row.transfer_syntax_uid == transfer_syntax
    assert row.headers["Rows"] == 4


def test_a_header_without_preamble_is_read() -> None:
    whole = file_of(ct_slice())
    assert read_instance(whole[132:]) == read_instance(whole)


def test_a_full_disk_leaves_the_file_where_it_is(
    folder: Path, sqlite_database: Database, files: InstanceFiles
) -> None:
    watched = Watched(folder, sqlite_database, files)
    watched.watched._entrance._intake._watermarks._minimum = 10**18
    (folder / "1.dcm").write_bytes(file_of(ct_slice()))
    watched.look()
    assert watched.look(5.0) == 0
    assert watched.left() == ["1.dcm"]
    watched.watched._entrance._intake._watermarks._minimum = 0
    watched.watched._entrance._intake._watermarks._resume = 0
    assert watched.look(5.0) == 1


def test_a_file_that_cannot_be_moved_keeps_no_other_from_coming(
    watched: Watched, sqlite_database: Database
) -> None:
    (watched.folder / "rejected").symlink_to("nowhere/at/all")
    (watched.folder / "a.doc").write_text("no image, and no place to put it")
    other = ct_slice()
    (watched.folder / "b.dcm").write_bytes(file_of(other))
    watched.look()
    assert watched.look(5.0) == 1
    assert stored(sqlite_database) == [other.SOPInstanceUID]
    assert watched.left() == ["a.doc", "rejected"]


def test_the_same_image_by_dimse_and_by_folder_is_one(
    watched: Watched, sqlite_database: Database, files: InstanceFiles, tmp_path: Path
) -> None:
    one = ct_slice()
    receiver = Receiver(receiver_settings(tmp_path / "data"), sqlite_database, files)
    receiver.start()
    send(receiver, one)
    receiver.stop()
    (watched.folder / "1.dcm").write_bytes(file_of(one))
    watched.look()
    assert watched.look(5.0) == 1
    assert stored(sqlite_database) == [one.SOPInstanceUID]
    assert watched.left() == []


def test_nothing_is_lost_when_the_receiver_is_killed_while_it_takes_files(
    tmp_path: Path, folder: Path, sqlite_url: str, sqlite_database: Database
) -> None:
    uids = []
    for number in range(1, 301):
        one = ct_slice("1.2.3", number)
        uids.append(str(one.SOPInstanceUID))
        (folder / f"{number}.dcm").write_bytes(file_of(one))
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "TRIAGE_DATA_DIRECTORY": str(tmp_path / "data"),
        "TRIAGE_DATABASE__URL": sqlite_url,
        "TRIAGE_RECEIVER__PORT": str(find_free_port()),
        "TRIAGE_RECEIVER__MINIMUM_FREE_MB": "0",
        "TRIAGE_WATCHED_FOLDER__PATH": str(folder),
        "TRIAGE_WATCHED_FOLDER__REST_S": "0.1",
        "TRIAGE_WATCHED_FOLDER__POLL_S": "0.1",
    }

    def run() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "triage.cli", "receive"], env=environment, cwd=tmp_path
        )

    first = run()
    wait_until(lambda: len(stored(sqlite_database)) >= 20, "some are taken", timeout_s=60)
    first.send_signal(signal.SIGKILL)
    first.wait()
    left = len(list(folder.glob("*.dcm")))
    assert left + len(stored(sqlite_database)) >= 300
    second = run()
    try:
        wait_until(lambda: not list(folder.iterdir()), "all are taken", timeout_s=60)
    finally:
        second.terminate()
        second.wait(30)
    assert sorted(stored(sqlite_database)) == sorted(uids)


def test_a_folder_that_is_away_is_taken_up_again(
    folder: Path, tmp_path: Path, sqlite_database: Database, files: InstanceFiles
) -> None:
    settings = receiver_settings(tmp_path / "data").model_copy(
        update={"watched_folder": WatchedFolderSettings(path=str(folder), rest_s=0.05, poll_s=0.05)}
    )
    beside = companions(settings, sqlite_database, files, system_clock, "receiver")
    [one] = [each for each in beside if isinstance(each, WatchedFolder)]
    folder.rmdir()
    folder.write_text("no folder")  # as a share that is not mounted rightly
    one.start()
    try:
        folder.unlink()
        wait_until(folder.is_dir, "the folder is made")
        (folder / "1.dcm").write_bytes(file_of(ct_slice()))
        wait_until(lambda: stored(sqlite_database), "the file is taken")
    finally:
        one.stop()


def test_priors_of_an_unknown_remote_do_not_keep_the_receiver_from_working(
    tmp_path: Path, sqlite_database: Database, files: InstanceFiles
) -> None:
    from triage.settings import PriorsSettings

    settings = receiver_settings(tmp_path / "data").model_copy(
        update={"priors": PriorsSettings(remote="nowhere")}
    )
    beside = companions(settings, sqlite_database, files, system_clock, "receiver")
    assert {type(one) for one in beside} == {PlaceRounds, UpsEvents}  # which are always there


@pytest.mark.parametrize("inside", [".", "..", "instances", "instances/sub"])
def test_the_folder_of_the_stored_instances_is_never_watched(
    tmp_path: Path, sqlite_database: Database, files: InstanceFiles, inside: str
) -> None:
    settings = receiver_settings(tmp_path / "data").model_copy(
        update={"watched_folder": WatchedFolderSettings(path=str(files.root.parent / inside))}
    )
    beside = companions(settings, sqlite_database, files, system_clock, "receiver")
    assert {type(one) for one in beside} == {PlaceRounds, UpsEvents}  # which are always there
