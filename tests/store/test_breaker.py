"""The circuit breaker of the models, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from tests.store.rows import add_model, received
from tests.store.test_runs import LEASE, claim, finish, held, queue_runs
from tests.store.test_studies import QUIET
from tests.tools import ManualClock
from triage.core.runs import RunState
from triage.store.breaker import (
    Breaker,
    FailedStudy,
    model_answered,
    model_failed,
    parked_models,
    unpark,
)
from triage.store.database import Database
from triage.store.model_tables import ModelEventRow, ModelRow
from triage.store.runs import (
    ClaimedRun,
    count_claimable,
    fail_attempt,
    recover_expired_leases,
    refuse_run,
)
from triage.store.studies import complete_quiet_studies, record_instance
from triage.store.tables import AnalysisRunRow

PAUSE = timedelta(minutes=5)
BREAKER = Breaker(failures=3, pause=PAUSE)


def fail(database: Database, clock: ManualClock, run: ClaimedRun, attempts: int = 1) -> bool:
    """Fail a run as a worker does; return whether its model is parked."""
    failed = FailedStudy(run.run_id, run.study_id, run.model_id, run.attempt)
    with database.transaction() as session:
        fail_attempt(
            session,
            run,
            "the host crashed",
            maximum_attempts=attempts,
            retry_after=timedelta(0),
            now=clock(),
        )
        return model_failed(session, failed, "the host crashed", breaker=BREAKER, now=clock())


def answer(database: Database, clock: ManualClock, run: ClaimedRun) -> None:
    finish(database, clock, run)
    with database.transaction() as session:
        model_answered(session, run.model_id, now=clock())


def events(database: Database) -> list[tuple[str, str]]:
    with database.reading() as session:
        rows = session.scalars(select(ModelEventRow).order_by(ModelEventRow.id)).all()
    return [(row.action, row.who) for row in rows]


def claimable(database: Database, clock: ManualClock) -> int:
    with database.reading() as session:
        return count_claimable(session, clock())


@pytest.fixture
def parked(database: Database, clock: ManualClock) -> Database:
    """A database with a model that has failed three studies; two more wait."""
    queue_runs(database, clock, *["ROUTINE"] * 5)
    assert [fail(database, clock, held(database, clock)) for _ in range(3)] == [False, False, True]
    return database


def test_model_that_failed_several_studies_in_a_row_is_parked(
    parked: Database, clock: ManualClock
) -> None:
    with parked.reading() as session:
        (model,) = parked_models(session)
    assert model.parked_until == clock() + PAUSE
    assert model.parked_reason == "the host crashed"
    assert events(parked) == [("parked", "triage")]
    assert claimable(parked, clock) == 0
    assert claim(parked, clock) is None


def test_one_bad_study_does_not_park_its_model(database: Database, clock: ManualClock) -> None:
    queue_runs(database, clock, "STAT", "ROUTINE")
    for _ in range(6):
        assert not fail(database, clock, held(database, clock), attempts=20)
    with database.reading() as session:
        assert session.scalars(select(ModelRow)).one().failures_in_a_row == 1


def test_answer_and_refusal_between_failures(database: Database, clock: ManualClock) -> None:
    queue_runs(database, clock, *["ROUTINE"] * 7)
    fail(database, clock, held(database, clock))
    fail(database, clock, held(database, clock))
    answer(database, clock, held(database, clock))
    assert not fail(database, clock, held(database, clock))
    assert not fail(database, clock, held(database, clock))
    with database.transaction() as session:  # says nothing of the model
        refuse_run(session, held(database, clock), "a slice is missing", now=clock())
    assert fail(database, clock, held(database, clock))


def test_parked_model_leaves_the_others_alone(parked: Database, clock: ManualClock) -> None:
    with parked.transaction() as session:
        add_model(session, clock(), name="other")
        record_instance(session, received(clock(), study="1.9"))
    clock.advance(30)
    with parked.transaction() as session:
        complete_quiet_studies(session, QUIET, clock())
    assert held(parked, clock).manifest.name == "other"
    assert claim(parked, clock) is None


def test_after_the_pause_one_run_is_tried_and_an_answer_unparks(
    parked: Database, clock: ManualClock
) -> None:
    clock.advance(PAUSE.total_seconds())
    tried = held(parked, clock, "a")
    assert claim(parked, clock, "b") is None
    answer(parked, clock, tried)
    assert events(parked) == [("parked", "triage"), ("unparked", "triage")]
    assert held(parked, clock, "b").run_id != tried.run_id


def test_trial_that_fails_parks_for_another_pause(parked: Database, clock: ManualClock) -> None:
    clock.advance(PAUSE.total_seconds())
    assert fail(parked, clock, held(parked, clock))
    assert claim(parked, clock) is None
    assert events(parked) == [("parked", "triage")]
    clock.advance(PAUSE.total_seconds())
    assert claim(parked, clock) is not None


def test_trial_that_is_refused_or_abandoned_makes_room_for_the_next(
    parked: Database, clock: ManualClock
) -> None:
    clock.advance(PAUSE.total_seconds())
    with parked.transaction() as session:
        refuse_run(session, held(parked, clock), "a slice is missing", now=clock())
    held(parked, clock, "dies")
    clock.advance(LEASE.total_seconds() + 1)
    with parked.transaction() as session:
        recover_expired_leases(session, maximum_attempts=3, now=clock())
    assert claim(parked, clock) is not None


def test_runs_that_waited_for_a_day_are_given_up(parked: Database, clock: ManualClock) -> None:
    clock.advance(24 * 3600)
    assert fail(parked, clock, held(parked, clock))
    with parked.reading() as session:
        runs = session.scalars(select(AnalysisRunRow).order_by(AnalysisRunRow.id)).all()
    assert {run.state for run in runs} == {RunState.FAILED}
    assert runs[-1].reason == "model unavailable, because the host crashed"


def test_person_unparks(parked: Database, clock: ManualClock) -> None:
    with parked.transaction() as session:
        (model,) = parked_models(session)
        unpark(session, model, who="admin", reason="driver renewed", now=clock())
    assert events(parked) == [("parked", "triage"), ("unparked", "admin")]
    assert claimable(parked, clock) == 2
