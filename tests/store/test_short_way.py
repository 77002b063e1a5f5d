"""The short way into the index leaves exactly what the long way leaves."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text, update

from tests.store.rows import received
from tests.tools import ManualClock, PostgresqlCluster
from triage.core.priors import PriorState
from triage.receiver.indexer import Indexer, _Pending
from triage.store.base import Table
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.short_way import Arrived, Place, ShortWay
from triage.store.studies import ReceivedInstance
from triage.store.tables import InstanceRow, OpenAssociationRow, PriorRow, SeriesRow, StudyRow

NewDatabase = Callable[[], Database]


class LongIndexer(Indexer):
    """Sends everything the long way."""

    def _record_shortly(self, batch: Sequence[_Pending]) -> list[_Pending]:
        return list(batch)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabase]:
    """A function that makes a database with the newest schema, on each kind in turn."""
    with ExitStack() as closing:

        def on_sqlite() -> Database:
            file = tmp_path / f"{uuid4().hex}.sqlite"
            shutil.copyfile(request.getfixturevalue("migrated_sqlite"), file)
            return Database(f"sqlite:///{file}")

        def on_postgresql() -> Database:
            cluster: PostgresqlCluster = request.getfixturevalue("postgresql")
            name = cluster.create_database(request.getfixturevalue("migrated_postgresql"))
            closing.callback(cluster.drop_database, name)
            return Database(cluster.url(name))

        def make() -> Database:
            database = on_sqlite() if request.param == "sqlite" else on_postgresql()
            closing.callback(database.close)
            return database

        yield make


@dataclass(frozen=True)
class Image:
    """An image that comes; those that are equal but for the content conflict."""

    study: int
    series: int
    number: int
    content: str
    modality: str
    body_part: str
    association: str
    later_s: int

    def as_received(
        self, clock: ManualClock, prefix: str, *, is_prior: bool = False
    ) -> ReceivedInstance:
        """Return what an indexer gets of it."""
        study = f"{prefix}.{self.study}"
        return received(
            clock() + timedelta(seconds=self.later_s),
            study=study,
            content=self.content,
            sop_instance_uid=f"{study}.{self.series}.{self.number}",
            series_instance_uid=f"{study}.{self.series}",
            number=self.number,
            modality=self.modality,
            body_part=self.body_part,
            series_number=self.series,
            series_description=f"series {self.series}",
            patient_id=f"P{self.study % 2}",
            is_prior=is_prior,
        )


@dataclass(frozen=True)
class Batch:
    """Images that wait together in one process."""

    images: list[Image]
    process: int
    as_priors: bool


@dataclass(frozen=True)
class Change:
    """What happens to a study otherwise."""

    kind: str
    study: int


_images = st.builds(
    Image,
    study=st.integers(0, 2),
    series=st.integers(0, 2),
    number=st.integers(0, 12),
    content=st.sampled_from(["", "", "", "other"]),
    modality=st.sampled_from(["CT", "CT", "MR", "", "CT\\SR", "a modality that is too long"]),
    body_part=st.sampled_from(["", "HEAD", "Chest", "a body part that is too long"]),
    association=st.sampled_from(["a", "b"]),
    later_s=st.integers(-3, 3),
)
_batches = st.builds(
    Batch,
    images=st.lists(_images, min_size=1, max_size=3),
    process=st.integers(0, 1),
    as_priors=st.sampled_from([False, False, False, True]),
)
_changes = st.builds(
    Change, kind=st.sampled_from(["complete", "forget", "purge"]), study=st.integers(0, 2)
)
_steps = st.lists(
    st.one_of(_batches, _batches, _batches, _changes),
    min_size=3,
    max_size=12,
)


class Side:
    """Two processes that index into one database, by either way."""

    def __init__(self, database: Database, files: InstanceFiles, *, is_short: bool) -> None:
        self.database = database
        self.clock = ManualClock()
        kind = Indexer if is_short else LongIndexer
        self._indexers = {
            (process, of_priors): kind(database, files, f"r{process}", self.clock)
            for process in (0, 1)
            for of_priors in (False, True)
        }

    def want_prior(self, prefix: str) -> None:
        """Let study 2 be wanted as a prior of study 0."""
        first = Image(0, 0, 0, "", "CT", "HEAD", "a", 0).as_received(self.clock, prefix)
        study_id = self._indexers[0, False].record(first, "a").study_id
        with self.database.transaction() as session:
            session.add(
                PriorRow(
                    study_id=study_id,
                    study_instance_uid=f"{prefix}.2",
                    place=0,
                    state=PriorState.WANTED,
                    at=self.clock(),
                )
            )

    def take(self, step: Batch | Change, prefix: str) -> list[tuple[bool, bool] | str]:
        """Let a step happen, and return what became of each image."""
        self.clock.advance(10)
        if isinstance(step, Change):
            self._change(step, prefix)
            return []
        indexer = self._indexers[step.process, step.as_priors]
        arrived = [
            (one.as_received(self.clock, prefix, is_prior=step.as_priors), one.association)
            for one in step.images
        ]
        return [_outcome(one) for one in record_together(indexer, arrived)]

    def _change(self, change: Change, prefix: str) -> None:
        is_study = StudyRow.study_instance_uid == f"{prefix}.{change.study}"
        of_study = select(SeriesRow.id).join(StudyRow).where(is_study)
        with self.database.transaction() as session:
            session.execute(update(StudyRow).where(is_study).values(state="complete"))
            if change.kind == "forget":
                session.execute(update(StudyRow).where(is_study).values(forgotten_at=self.clock()))
            if change.kind == "purge":
                session.execute(
                    update(InstanceRow)
                    .where(InstanceRow.series_id.in_(of_study))
                    .values(purged_at=self.clock())
                )


def record_together(
    indexer: Indexer, arrived: Sequence[tuple[ReceivedInstance, str]]
) -> list[_Pending]:
    """Record instances that have come to wait together."""
    batch = [_Pending(one, association, is_journaled=False) for one, association in arrived]
    indexer._record_batch(batch)
    return batch


def _outcome(pending: _Pending) -> tuple[bool, bool] | str:
    if pending.recorded is None:
        return type(pending.error).__name__
    return pending.recorded.is_duplicate, pending.recorded.is_conflict


_NAMES = {
    "patients": ("patient_id", "issuer"),
    "studies": ("study_instance_uid",),
    "series": ("study_id", "series_instance_uid"),
    "instances": ("sop_instance_uid", "sha256"),
}


def rows_of(database: Database) -> dict[str, list[str]]:
    """Return all rows of all tables, named by what they are instead of by numbers."""
    named: dict[str, dict[int, Any]] = {}
    dumped: dict[str, list[str]] = {}
    with database.reading() as session:
        tables = {
            # As the driver gives them: types of SQLAlchemy read more than they write.
            table.name: (
                table,
                session.execute(text(f"SELECT * FROM {table.name}")).mappings().all(),
            )
            for table in Table.metadata.sorted_tables
        }
    for name in [*_NAMES, *(set(tables) - set(_NAMES))]:
        table, rows = tables[name]
        targets = {c.name: key.column.table.name for c in table.c for key in c.foreign_keys}
        if name in _NAMES:
            named[name] = {
                row["id"]: tuple(_named(named, targets, row, column) for column in _NAMES[name])
                for row in rows
            }
        dumped[name] = sorted(
            repr({column: _named(named, targets, row, column) for column in row if column != "id"})
            for row in rows
        )
    return dumped


def _named(named: dict[str, Any], targets: dict[str, str], row: Any, column: str) -> Any:
    value = row[column]
    return named[targets[column]].get(value) if targets.get(column) in named else value


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Place | None]]:
    """Give a list of what the short way says of each image."""
    said: list[Place | None] = []
    record = ShortWay.record

    def counting(self: ShortWay, arrived: Sequence[Arrived], **options: Any) -> list[Place | None]:
        places = record(self, arrived, **options)
        said.extend(places)
        return places

    with monkeypatch.context() as patch:
        patch.setattr(ShortWay, "record", counting)
        yield said


def test_short_way_leaves_what_the_long_way_leaves(
    new_database: NewDatabase, files: InstanceFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Side(new_database(), files, is_short=True)
    long = Side(new_database(), files, is_short=False)
    numbers = iter(range(10**6))

    @settings(
        max_examples=25,
        database=None,
        derandomize=True,
        phases=[Phase.generate],  # to shorten what fails would take minutes
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(_steps)
    def leaves_the_same(steps: list[Batch | Change]) -> None:
        prefix = f"1.2.{next(numbers)}"
        for side in (short, long):
            side.want_prior(prefix)
        for step in steps:
            assert short.take(step, prefix) == long.take(step, prefix)
        assert rows_of(short.database) == rows_of(long.database)

    with counted(monkeypatch) as said:
        leaves_the_same()
    went_shortly = sum(place is not None for place in said)
    assert 0.2 * len(said) < went_shortly < 0.8 * len(said)


def test_new_series_need_no_long_way(
    database: Database,
    files: InstanceFiles,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = Indexer(database, files, "r0", clock)
    before.record(received(clock(), number=0), "a")
    process = Indexer(database, files, "r1", clock)
    with counted(monkeypatch) as said:
        for series in (1, 2):
            for number in (1, 2):
                one = received(
                    clock.advance(1),
                    series_instance_uid=f"1.2.3.{series}",
                    sop_instance_uid=f"1.2.3.{series}.{number}",
                    body_part=f"part {series}",
                )
                process.record(one, "b")
    assert len(said) == 4
    assert None not in said
    with database.reading() as session:
        study = session.scalars(select(StudyRow)).one()
        assert study.body_parts == "PART 2"  # the other series was there before
        assert study.last_instance_at == clock()
        assert len(session.scalars(select(SeriesRow)).all()) == 2
        held = session.scalars(select(OpenAssociationRow.receiver).order_by("id")).all()
        assert held == ["r0", "r1"]


def test_what_asks_for_more_keeps_nothing_else_of_its_batch_from_the_short_way(
    database: Database,
    files: InstanceFiles,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    indexer = Indexer(database, files, "r", clock)
    indexer.record(received(clock(), study="1.1"), "a")
    together = [
        received(clock(), study="1.0"),
        received(clock(), study="1.1", number=2),
        received(clock(), study="1.2"),
    ]
    with counted(monkeypatch) as said:
        outcomes = record_together(indexer, [(one, "a") for one in together])
    assert [place is not None for place in said] == [False, True, False]
    assert not any(one.result().is_duplicate for one in outcomes)
    with database.reading() as session:
        assert len(session.scalars(select(InstanceRow)).all()) == 4


def test_processes_meet_on_new_series_and_leave_what_one_leaves(
    new_database: NewDatabase, files: InstanceFiles, clock: ManualClock
) -> None:
    workers, many_series = 6, 25
    images = [
        [
            received(
                clock(),
                series_instance_uid=f"1.2.3.{series}",
                sop_instance_uid=f"1.2.3.{series}.{worker}",
                number=worker,
                body_part=f"PART {series % 7}",
                modality=f"M{series % 5}",
            )
            for series in range(many_series)
        ]
        for worker in range(workers)
    ]
    short, long = new_database(), new_database()
    # Each process has connections of its own.
    databases = [Database(short.url) for _ in range(3)]
    indexers = [Indexer(one, files, "r", clock) for one in databases]
    indexers[0].record(received(clock()), "first")
    together = threading.Barrier(workers)

    def record(worker: int) -> None:
        for one in images[worker]:
            together.wait()  # all of them bring the first image of a series at once
            indexers[worker % 3].record(one, f"association-{worker}")

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(record, range(workers)))
    by_itself = LongIndexer(long, files, "r", clock)
    by_itself.record(received(clock()), "first")
    for series in range(many_series):
        for worker in range(workers):
            by_itself.record(images[worker][series], f"association-{worker}")
    assert rows_of(short) == rows_of(long)
    for database in databases:
        database.close()
