"""`triage results`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.tools import ManualClock
from tests.web.hospital import Hospital, hemorrhage
from triage.cli import main
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.worklist.queue import reading_list


@pytest.fixture
def hospital(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Hospital:
    """A hospital whose database the command finds."""
    monkeypatch.setenv("TRIAGE_DATABASE__URL", sqlite_database.url)
    monkeypatch.setenv("COLUMNS", "200")
    return Hospital(sqlite_database, InstanceFiles(tmp_path / "data"), clock)


def test_a_result_is_withdrawn_by_its_run_once(hospital: Hospital) -> None:
    hospital.register_model()
    uid = hospital.receive(*hospital.head_ct(slices=1))
    hospital.complete(uid)
    run = hospital.claim()
    hospital.finish(run, hemorrhage())
    command = ["results", "withdraw", str(run.run_id), "--reason", "poor-images", "--who", "ada"]
    ran = CliRunner().invoke(main, [*command, "--text", "motion"])
    assert ran.exit_code == 0, ran.output
    said = "withdrawn by ada, because the images are not fit for it: motion"
    assert ran.output == f"run {run.run_id}: {said}\n"
    with hospital.database.reading() as session:
        (entry,) = reading_list(session, hospital.clock())
    assert said in entry.status.text
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 1
    assert "was withdrawn by ada" in again.output


def test_what_is_wrong_with_the_command_is_said(hospital: Hospital) -> None:
    ran = CliRunner().invoke(main, ["results", "withdraw", "7", "--reason", "other"])
    assert ran.exit_code == 1
    assert "there is no analysis run 7" in ran.output
    ran = CliRunner().invoke(main, ["results", "withdraw", "7", "--reason", "superseded"])
    assert ran.exit_code == 2
    assert "wrong-result" in ran.output
