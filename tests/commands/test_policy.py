"""`triage policy`, as an administrator calls it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.tools import ManualClock
from tests.web.hospital import Hospital, hemorrhage
from triage.cli import main
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.worklist.queue import reading_list

CALM = """
name = "Calm"
[[findings]]
finding = "hemorrhage"
priority = "high"
"""


@pytest.fixture
def hospital(
    sqlite_database: Database,
    files: InstanceFiles,
    clock: ManualClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Hospital:
    """An installation with a flagged study."""
    config = tmp_path / "triage.toml"
    config.write_text(f'[database]\nurl = "{sqlite_database.url}"\n')
    monkeypatch.setenv("TRIAGE_CONFIG", str(config))
    monkeypatch.setenv("TRIAGE_DATA_DIRECTORY", str(tmp_path / "data"))
    hospital = Hospital(sqlite_database, files, clock)
    hospital.register_model()
    uid = hospital.receive(*hospital.head_ct(slices=1))
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage())
    return hospital


def triage(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["policy", *arguments])


def said(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return re.sub(r"[│┃━─╇┡┩┏┓└┘┴┬┳\s]+", " ", result.output)


def place(hospital: Hospital) -> str:
    """Return the class of the study on the list."""
    with hospital.database.reading() as session:
        return reading_list(session, hospital.clock())[0].priority.label


def test_what_is_shown_can_be_activated(hospital: Hospital, tmp_path: Path) -> None:
    shown = triage("show")
    file = tmp_path / "policy.toml"
    file.write_text(shown.output)
    assert said(triage("check", str(file))).endswith("is a policy: Shipped policy ")
    again = triage("activate", str(file), "--reason", "none")
    assert again.exit_code == 1
    assert "it is the same as version 0, which holds already" in again.output


def test_policy_is_activated_and_rolled_back(hospital: Hospital, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(CALM)
    previewed = said(triage("preview", str(file), "--days", "31"))
    assert "class: 0 more urgent, 1 less urgent" in previewed
    assert place(hospital) == "STAT"
    activated = triage("activate", str(file), "--who", "Dr. Haus", "--reason", "the board")
    assert "policy 1 holds; 1 studies ranked anew" in said(activated)
    assert place(hospital) == "High"
    assert "Calm activated 1 Dr. Haus the board" in said(triage("history"))
    assert 'name = "Calm"' in triage("show").output
    assert 'name = "Shipped policy"' in triage("show", "--version", "0").output
    said(triage("rollback", "0", "--reason", "too calm"))
    assert place(hospital) == "STAT"
    missing = triage("rollback", "7", "--reason", "x")
    assert "there is no policy 7" in missing.output


def test_ai_is_switched_off_and_on(hospital: Hospital) -> None:
    off = triage("switch-off", "--who", "Dr. Haus", "--reason", "false alarms")
    assert "AI prioritization is off" in said(off)
    assert place(hospital) == "Routine"
    assert triage("show").output.startswith("# AI prioritization is off, by Dr. Haus: false alarms")
    assert triage("switch-off", "--reason", "again").exit_code == 1
    assert "AI prioritization is on" in said(triage("switch-on", "--reason", "mended"))
    assert place(hospital) == "STAT"


def test_wrong_file_is_refused_line_by_line(hospital: Hospital, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("most_points = -1\nmost_point = 2\n")
    refused = triage("check", str(file))
    assert refused.exit_code == 1
    assert "most_points: Input should be greater than or equal to 0" in refused.output
    assert "most_point: this field is unknown; did you mean 'most_points'?" in refused.output
