"""Retention in a running receiver, and by command."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from pydicom.dataset import Dataset
from sqlalchemy import select

from tests.datasets import ct_slice
from tests.receiver.conftest import StartReceiver, send
from tests.tools import wait_until
from triage.cli import main
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.tables import InstanceRow, StudyRow


def study(database: Database) -> StudyRow:
    """Return the only study."""
    with database.reading() as session:
        return session.scalars(select(StudyRow)).one()


def read(database: Database) -> None:
    """Mark the study as read once it is complete."""
    wait_until(lambda: study(database).state == "complete", "the study is complete")
    with database.transaction() as session:
        row = session.scalars(select(StudyRow)).one()
        row.read_at = row.completed_at


def test_receiver_purges_by_itself_and_takes_the_images_again(
    database: Database, start_receiver: StartReceiver, files: InstanceFiles
) -> None:
    retention = {"read_days": 0, "interval_s": 0.2}
    receiver = start_receiver(database, settings={"retention": retention})
    images = [ct_slice("1.2.3", number) for number in (1, 2, 3)]
    assert [answer.Status for answer in send(receiver, *images)] == [0, 0, 0]
    read(database)

    def on_disk() -> list[Path]:
        return list(files.root.rglob("*.dcm"))

    wait_until(lambda: not on_disk(), "the images are deleted")
    assert study(database).purged_at is not None
    with database.transaction() as session:  # the reader has it on the list again
        session.scalars(select(StudyRow)).one().read_at = None
    assert [answer.Status for answer in send(receiver, *images)] == [0, 0, 0]
    assert len(on_disk()) == 3
    assert study(database).purged_at is None
    with database.reading() as session:
        assert all(files.exists(path) for path in session.scalars(select(InstanceRow.path)))


def command(url: str, data: Path, *options: str) -> str:
    """Run `triage purge` and return what it prints."""
    environment = {
        "TRIAGE_DATABASE__URL": url,
        "TRIAGE_DATA_DIRECTORY": str(data),
        "TRIAGE_RETENTION": json.dumps({"read_days": 0}),
    }
    ended = CliRunner().invoke(main, ["purge", *options], env=environment)
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_command_says_what_would_go_and_deletes_it(
    database: Database,
    database_url: str,
    start_receiver: StartReceiver,
    files: InstanceFiles,
    tmp_path: Path,
) -> None:
    images: list[Dataset] = [ct_slice("1.2.3", number) for number in (1, 2)]
    send(start_receiver(database), *images)
    read(database)

    said = command(database_url, tmp_path / "data", "--dry-run")
    assert "1.2.3" in said
    assert "images of 1 studies would be deleted" in said
    assert len(list(files.root.rglob("*.dcm"))) == 2

    assert "images of 1 studies are deleted" in command(database_url, tmp_path / "data")
    assert not list(files.root.rglob("*.dcm"))
    assert study(database).purged_at is not None
