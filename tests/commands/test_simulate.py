"""`triage simulate`, as an administrator calls it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import update

from tests.store.lived import add_runs, add_watched_model, every
from triage.cli import main
from triage.store.database import Database
from triage.store.tables import StudyRow

SMALL = "days = 2\nwarm_up_days = 1\nreplications = 2\n"


def triage(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["simulate", *map(str, arguments)])


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "room.toml"
    path.write_text(SMALL)
    return path


def test_gain_and_cost_are_said_side_by_side(scenario: Path) -> None:
    result = triage(scenario, "--replications", "8")
    assert result.exit_code == 0, result.output
    assert "readers 80 % busy, target 60 min" in result.output
    assert "Patients with hemorrhage are read" in result.output
    assert "All others wait" in result.output
    assert "what some gain, others wait" in result.output


def test_the_same_seed_gives_the_same_json(scenario: Path) -> None:
    one, other = (triage(scenario, "--json", "--seed", "4") for _ in range(2))
    assert one.output == other.output
    said = json.loads(one.output)
    assert said["seed"] == 4
    assert said["scenario"]["days"] == 2
    assert {group["kind"] for group in said["groups"]} >= {"disease", "other", "all"}


def test_the_picture_is_written_and_always_the_same(scenario: Path, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg", "c.png"):
        assert triage(scenario, "--plot", tmp_path / name).exit_code == 0
    drawn = (tmp_path / "a.svg").read_bytes()
    assert b"without AI" in drawn
    assert drawn == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    refused = triage(scenario, "--plot", tmp_path / "d.gif")
    assert refused.exit_code == 1
    assert "use one of .svg, .png, .pdf" in refused.output


def test_a_wrong_field_is_named_with_its_file(scenario: Path) -> None:
    scenario.write_text(SMALL + "reders = 2\n")
    result = triage(scenario)
    assert result.exit_code == 1
    assert "room.toml: reders: is no field of a scenario; did you mean readers?" in result.output


def test_the_example_can_be_played(tmp_path: Path) -> None:
    example = tmp_path / "example.toml"
    example.write_text(triage("--example").output)
    result = triage(example, "--show-scenario")
    assert result.exit_code == 0
    assert json.loads(result.output)["interrupting_from"] == "stat"


@pytest.fixture
def lived(sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """An installation that saw 200 studies in the last days, of which a model flagged some."""
    config = tmp_path / "triage.toml"
    config.write_text(f'[database]\nurl = "{sqlite_database.url}"\n')
    monkeypatch.setenv("TRIAGE_CONFIG", str(config))
    monkeypatch.setenv("TRIAGE_DATA_DIRECTORY", str(tmp_path / "data"))
    now = datetime.now(UTC)
    with sqlite_database.transaction() as session:
        model = add_watched_model(session, now - timedelta(days=9))
        add_runs(session, model, every(now, 200, timedelta(minutes=50)), rate=0.1)
    return sqlite_database


def test_the_installations_history_is_simulated_and_assumptions_are_said(lived: Database) -> None:
    result = triage("--from-history", "30", "--show-scenario")
    assert result.exit_code == 0, result.output
    assert "history: arrivals_per_hour: 200 studies in" in result.stderr
    assert "assumed: studies.reading: 10 min" in result.stderr
    assert "assumed: head-ct 1.0.0: hemorrhage: sensitivity 0.9" in result.stderr
    said = json.loads(result.stdout)
    assert sum(said["arrivals_per_hour"]) == pytest.approx(28.8, rel=0.05)
    assert said["studies"][0]["diseases"][0]["name"] == "hemorrhage"
    assert "P1-1" not in result.output  # the Patient ID of the studies


def test_too_little_history_is_said(lived: Database) -> None:
    with lived.transaction() as session:
        session.execute(update(StudyRow).values(is_prior=True))
    result = triage("--from-history", "30")
    assert result.exit_code == 1
    assert "0 studies came in this time, at least 50 are needed" in result.output
