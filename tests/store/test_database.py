"""Migrations and transactions, on SQLite and on PostgreSQL."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Index, select, text
from sqlalchemy.exc import StatementError
from sqlalchemy.schema import CreateIndex

from tests.tools import ManualClock
from triage.store.base import Table
from triage.store.database import Database, DatabaseError
from triage.store.database import _Queue as Queue
from triage.store.tables import PatientRow, StudyRow

DESCENDING = [
    index
    for table in Table.metadata.sorted_tables
    for index in sorted(table.indexes, key=lambda one: str(one.name))
    if any("DESC" in str(expression) for expression in index.expressions)
]


def test_migrations_from_empty_make_exactly_the_tables_of_the_code(
    empty_database_url: str,
) -> None:
    database = Database(empty_database_url)
    database.migrate()
    database.check_schema()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_object": _can_be_compared(database)}
        )
        differences = [
            d for d in compare_metadata(context, Table.metadata) if d[0] != "modify_default"
        ]
    database.close()
    assert differences == []


def _can_be_compared(database: Database) -> Callable[..., bool]:
    # SQLite does not tell that a column of an index is descending; see the test that follows.
    return lambda _, name, kind, *__: (
        not (
            database.is_sqlite and kind == "index" and name in {index.name for index in DESCENDING}
        )
    )


@pytest.mark.parametrize("index", DESCENDING, ids=lambda index: index.name)
def test_migrations_make_descending_indexes_on_sqlite_as_the_code_says(
    sqlite_database: Database, index: Index
) -> None:
    wanted = str(CreateIndex(index).compile(dialect=sqlite_database.engine.dialect))
    with sqlite_database.reading() as session:
        made = session.scalar(
            text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": index.name}
        )
    assert made == wanted


def test_migrating_twice_changes_nothing(database: Database) -> None:
    database.migrate()
    database.check_schema()


def _migrate(url: str) -> None:
    database = Database(url)
    database.migrate()
    database.close()


def test_two_processes_may_migrate_at_once(empty_database_url: str) -> None:
    # Processes, not threads: Alembic keeps what it works on in a module.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        list(processes.map(_migrate, [empty_database_url] * 2))
    database = Database(empty_database_url)
    database.check_schema()
    database.close()


def test_an_older_schema_is_refused_with_the_command_that_mends_it(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with pytest.raises(DatabaseError, match="run `triage prepare`"):
        database.check_schema()
    database.close()


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    def write_and_fail() -> None:
        with database.transaction() as session:
            session.add(PatientRow(patient_id="P"))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    with database.reading() as session:
        assert session.scalars(select(PatientRow)).all() == []


def test_moments_come_back_in_utc_and_need_a_time_zone(
    database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        patient = PatientRow(patient_id="P")
        session.add(patient)
        session.flush()
        session.add(
            StudyRow(
                study_instance_uid="1.2",
                patient_id=patient.id,
                first_instance_at=clock(),
                last_instance_at=clock(),
            )
        )
    with database.reading() as session:
        assert session.scalars(select(StudyRow.first_instance_at)).one() == clock()
    naive = datetime(2026, 1, 1)  # noqa: DTZ001
    at_naive = select(StudyRow).where(StudyRow.first_instance_at == naive)
    with database.reading() as session, pytest.raises(StatementError, match="time zone"):
        session.scalars(at_naive)


def test_writers_take_turns_in_one_process_and_across_processes(tmp_path: Path) -> None:
    # A second queue stands for another process: the lock is that of the open file.
    queues = [Queue(str(tmp_path / "writers")) for _ in range(2)] * 2
    inside: list[int] = []

    def write(writer: int) -> int:
        most = 0
        for _ in range(100):
            with queues[writer]:
                inside.append(writer)
                time.sleep(0)  # another thread may run
                most = max(most, len(inside))
                inside.remove(writer)
            if writer == 0:
                queues[writer].close()  # who comes next opens it again
        return most

    with ThreadPoolExecutor(len(queues)) as pool:
        assert set(pool.map(write, range(len(queues)))) == {1}
    for queue in queues:
        queue.close()


def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.transaction() as writer:
        writer.add(PatientRow(patient_id="P"))
        writer.flush()
        with database.reading() as reader:
            assert reader.scalars(select(PatientRow)).all() == []
