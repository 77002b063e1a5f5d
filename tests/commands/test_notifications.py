"""`triage notifications`, as an administrator calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.store.notification_scenes import Ward
from tests.tools import ManualClock
from triage.cli import main
from triage.settings import load_settings
from triage.store.clock import system_clock
from triage.store.database import Database

CONFIG = """
[database]
url = "{url}"

[[notifications.recipients]]
name = "ada"

[[notifications.rules]]
name = "critical"
steps = [{{to = ["ada"]}}]
"""


@pytest.fixture
def ward(sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    """An installation in which ada was told of one finding."""
    config = tmp_path / "triage.toml"
    config.write_text(CONFIG.format(url=sqlite_database.url))
    monkeypatch.setenv("TRIAGE_CONFIG", str(config))
    monkeypatch.setenv("TRIAGE_DATA_DIRECTORY", str(tmp_path / "data"))
    clock = ManualClock()
    clock.now = system_clock()
    ward = Ward(sqlite_database, clock, load_settings().notifications)
    ward.flag()
    ward.later(0)
    return ward


def triage(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["notifications", *arguments])


def test_list_and_acknowledge(ward: Ward) -> None:
    listed = triage("list")
    assert listed.exit_code == 0
    assert "Hemorrhage, 12.3 mL, confidence 0.97" in listed.output
    assert "Muster" not in listed.output
    said = triage("acknowledge", "1", "--who", "ada")
    assert said.output == "notification 1 was acknowledged by ada\n"
    assert "acknowledged by ada" in triage("list", "--all").output
    assert "Hemorrhage" not in triage("list").output
    unknown = triage("acknowledge", "9")
    assert unknown.exit_code == 1
    assert "triage: there is no notification 9" in unknown.output


def test_preview_says_who_would_be_told_in_which_hour(ward: Ward) -> None:
    said = triage("preview", "--days", "1")
    assert said.exit_code == 0
    assert "1 findings of the last 1 days fit a rule: 1 notifications" in said.output
    assert "rule critical: 1" in said.output
    assert "most in one hour: 1" in said.output
