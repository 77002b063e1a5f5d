"""Looking only after a commit: nothing that is committed may be missed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from triage.store.changes import CommitWatch, Lookout
from triage.store.database import Database


@pytest.fixture
def watch(sqlite_database: Database) -> Iterator[CommitWatch]:
    """Who watches the commits of the database."""
    watch = CommitWatch(sqlite_database)
    yield watch
    watch.close()


class _Seconds:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _commit(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS something (x)"))
        session.execute(text("INSERT INTO something VALUES (1)"))


def test_a_commit_of_anybody_makes_a_look_due(
    watch: CommitWatch, sqlite_database: Database, sqlite_url: str
) -> None:
    lookout = Lookout(watch, 60.0, _Seconds())
    assert lookout.is_due()
    assert not lookout.is_due()
    for database in (sqlite_database, Database(sqlite_url)):
        _commit(database)
        assert lookout.is_due()
        assert not lookout.is_due()


def test_commits_that_do_not_wait_for_the_disk_count_too(
    watch: CommitWatch, sqlite_database: Database
) -> None:
    _commit(sqlite_database)
    lookout = Lookout(watch, 60.0, _Seconds())
    lookout.is_due()
    with sqlite_database.cursor(is_durable=False) as cursor:
        cursor.execute("INSERT INTO something VALUES (2)")
    assert lookout.is_due()


def test_what_is_committed_while_one_looks_makes_the_next_look_due(
    watch: CommitWatch, sqlite_database: Database
) -> None:
    lookout = Lookout(watch, 60.0, _Seconds())
    assert lookout.is_due()
    with sqlite_database.reading() as session:
        session.execute(text("SELECT 1"))
        _commit(sqlite_database)
    assert lookout.is_due()


def test_without_a_commit_a_look_is_due_after_a_while(watch: CommitWatch) -> None:
    seconds = _Seconds()
    lookout = Lookout(watch, 1.0, seconds)
    lookout.is_due()
    seconds.now += 0.9
    assert not lookout.is_due()
    seconds.now += 0.2
    assert lookout.is_due()


def test_what_was_left_does_not_wait_for_a_commit(watch: CommitWatch) -> None:
    lookout = Lookout(watch, 60.0, _Seconds())
    lookout.is_due()
    lookout.look_again()
    assert lookout.is_due()


def test_where_commits_cannot_be_told_every_look_is_due(tmp_path: Path) -> None:
    missing = Database(f"sqlite:///{tmp_path / 'no-folder' / 'triage.sqlite'}")
    for database in (missing, Database("postgresql+psycopg://nobody@127.0.0.1:1/none")):
        lookout = Lookout(CommitWatch(database), 60.0, _Seconds())
        assert lookout.is_due()
        assert lookout.is_due()


def test_asking_waits_for_no_writer(watch: CommitWatch, sqlite_database: Database) -> None:
    lookout = Lookout(watch, 60.0, _Seconds())
    lookout.is_due()
    with sqlite_database.transaction() as session:
        session.execute(text("CREATE TABLE half_written (x)"))
        assert not lookout.is_due()
    assert lookout.is_due()
