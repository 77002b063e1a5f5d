"""`triage studies`, as an administrator calls it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.store.rows import add_model, received
from tests.tools import ManualClock
from triage.cli import main
from triage.store.database import Database
from triage.store.studies import record_instance

BECAUSE = ("--who", "A. Grey", "--reason", "the [scanner] is off")


@pytest.fixture(autouse=True)
def installation(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation with a study that is still arriving."""
    config = tmp_path / "triage.toml"
    config.write_text(f'[database]\nurl = "{sqlite_database.url}"\n')
    monkeypatch.setenv("TRIAGE_CONFIG", str(config))
    monkeypatch.setenv("TRIAGE_DATA_DIRECTORY", str(tmp_path / "data"))
    with sqlite_database.transaction() as session:
        add_model(session, clock())
        image = received(clock(), patient_name="Lovelace^Ada", accession_number="A17")
        record_instance(session, image)


def triage(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["studies", *arguments], terminal_width=200)


def said(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return re.sub(r"[│┃━─╇┡┩┏┓└┘┴┬┳├┼┤\s]+", " ", result.output)


def test_study_is_found_and_its_life_is_told() -> None:
    assert "1.2.3" in said(triage("find", "lovelace"))
    assert "1.2.3" in said(triage("find", "--accession", "a17", "--sender", "CT1"))
    assert "1.2.3" not in said(triage("find", "--date", "2026-01-01"))
    assert triage("find").exit_code == 2
    told = said(triage("history", "1.2.3"))
    assert "first image from CT1" in told
    assert "now: Images have arrived." in told
    assert "never held study 9.9" in triage("history", "9.9").output


def test_study_is_completed_its_run_cancelled_and_run_again() -> None:
    assert triage("complete", "1.2.3").exit_code == 2  # no reason
    said(triage("complete", "1.2.3", *BECAUSE))
    again = triage("complete", "1.2.3", *BECAUSE)
    assert (again.exit_code, "complete already" in again.output) == (1, True)
    assert "run 1 is cancelled" in said(triage("cancel", "1", *BECAUSE))
    assert "head-ct 1.0.0 is queued again" in said(triage("rerun", "1.2.3", *BECAUSE))
    unknown = triage("rerun", "1.2.3", "--model", "chest", *BECAUSE)
    assert "in use: head-ct" in unknown.output
    assert "cancelled by A. Grey: the [scanner] is off" in said(triage("history", "1.2.3"))
