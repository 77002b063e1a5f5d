"""`triage models watch`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from tests.store.lived import add_runs, add_watched_model, every
from triage.cli import main
from triage.store.database import Database


@pytest.fixture
def database(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """The database that the command finds."""
    monkeypatch.setenv("TRIAGE_DATABASE__URL", sqlite_database.url)
    monkeypatch.setenv("COLUMNS", "200")
    return sqlite_database


def test_it_says_what_the_model_did(database: Database) -> None:
    now = datetime.now(UTC)
    with database.transaction() as session:
        model = add_watched_model(session, now - timedelta(days=20))
        add_runs(session, model, every(now, 30, timedelta(hours=2)))
    ran = CliRunner().invoke(main, ["models", "watch", "head-ct", "--days", "7"])
    assert ran.exit_code == 0, ran.output
    for words in ("30 completed", "hemorrhage", "whole", "30 runs in production so far"):
        assert words in ran.output


def test_a_model_that_is_not_there_is_named(database: Database) -> None:
    ran = CliRunner().invoke(main, ["models", "watch", "nothing"])
    assert ran.exit_code == 1
    assert "no model nothing is registered; see `triage models list`" in ran.output
