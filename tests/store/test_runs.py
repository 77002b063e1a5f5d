"""The queue of analysis runs, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import select

from tests.store.rows import add_model, received
from tests.store.test_studies import QUIET, events, runs
from tests.tools import ManualClock
from triage.core.codes import HEMORRHAGE_MORPHOLOGY
from triage.core.findings import Finding
from triage.core.priority import Priority
from triage.core.runs import RunState
from triage.store.database import Database
from triage.store.runs import (
    ClaimedRun,
    LeaseLostError,
    claim_most_urgent,
    complete_run,
    count_by_state,
    count_claimable,
    counting_findings,
    fail_attempt,
    is_idle,
    record_findings,
    recover_expired_leases,
    refuse_run,
    release_worker,
    renew_lease,
)
from triage.store.studies import complete_quiet_studies, record_instance
from triage.store.tables import FindingRow

LEASE = timedelta(seconds=30)
FINDING = Finding(
    key="hemorrhage",
    code=HEMORRHAGE_MORPHOLOGY,
    present=True,
    confidence=0.9,
    priority=Priority.STAT,
)


def queue_runs(database: Database, clock: ManualClock, *orders: str) -> None:
    """Queue one run for each order priority, in this order."""
    with database.transaction() as session:
        add_model(session, clock())
        for n, order in enumerate(orders):
            record_instance(
                session, received(clock(), study=f"1.2.{n}", requested_procedure_priority=order)
            )
            clock.advance(1)
    for _ in range(len(orders) + 5):  # one a second, so that each has its own moment
        clock.advance(1)
        with database.transaction() as session:
            complete_quiet_studies(session, QUIET, clock())


def claim(database: Database, clock: ManualClock, worker: str = "w") -> ClaimedRun | None:
    """Claim a run."""
    with database.transaction() as session:
        return claim_most_urgent(session, worker=worker, lease=LEASE, now=clock())


def held(database: Database, clock: ManualClock, worker: str = "w") -> ClaimedRun:
    """Claim a run that must be there."""
    run = claim(database, clock, worker)
    assert run is not None
    return run


def finish(database: Database, clock: ManualClock, run: ClaimedRun) -> None:
    """Complete a run with one finding."""
    with database.transaction() as session:
        record_findings(session, run, [FINDING], input_sha256="ab")
        complete_run(session, run, FINDING.in_words(), timings_s={"infer": 1.5}, now=clock())


def test_most_urgent_is_claimed_first_then_the_longest_waiting(
    database: Database, clock: ManualClock
) -> None:
    queue_runs(database, clock, "ROUTINE", "LOW", "STAT", "ROUTINE", "HIGH")
    claimed = [held(database, clock).study_instance_uid for _ in range(5)]
    assert claimed == ["1.2.2", "1.2.4", "1.2.0", "1.2.3", "1.2.1"]
    assert claim(database, clock) is None


def test_claimed_run_carries_all_that_a_worker_needs(
    database: Database, clock: ManualClock
) -> None:
    queue_runs(database, clock, "STAT")
    run = held(database, clock)
    assert run.manifest.identity == "head-ct 1.0.0"
    assert (run.attempt, run.claim, run.generation, run.counts) == (1, 1, 1, True)
    assert [i.sop_instance_uid for i in run.series.instances] == ["1.2.0.1.1"]
    with database.reading() as session:
        assert count_claimable(session, clock()) == 0
        assert not is_idle(session)


def test_workers_that_claim_at_once_never_get_the_same_run(
    database: Database, clock: ManualClock
) -> None:
    queue_runs(database, clock, *["ROUTINE"] * 12)
    claimed: list[int] = []
    start = threading.Barrier(4)

    def work(name: str) -> None:
        start.wait()
        while (run := claim(database, clock, name)) is not None:
            claimed.append(run.run_id)

    workers = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(claimed) == len(set(claimed)) == 12


def test_completed_run_has_its_findings_and_history(database: Database, clock: ManualClock) -> None:
    queue_runs(database, clock, "ROUTINE")
    run = held(database, clock)
    clock.advance(2)
    finish(database, clock, run)
    (row,) = runs(database)
    assert (row.state, row.input_sha256, row.timings_s) == (
        RunState.COMPLETED,
        "ab",
        {"infer": 1.5},
    )
    assert row.finished_at == clock()
    assert row.lease_until is None
    assert ("analysed", "head-ct 1.0.0: Hemorrhage, confidence 0.90") in events(database)
    with database.reading() as session:
        assert counting_findings(session, run.study_id) == [("head-ct 1.0.0", FINDING)]
        assert count_by_state(session) == {RunState.COMPLETED: 1}
        assert is_idle(session)


def test_expired_lease_gives_the_run_to_another_and_shuts_out_the_first(
    database: Database, clock: ManualClock
) -> None:
    queue_runs(database, clock, "ROUTINE")
    first = held(database, clock, "first")
    clock.advance(29)
    with database.transaction() as session:
        renew_lease(session, first, lease=LEASE, now=clock())
        assert recover_expired_leases(session, maximum_attempts=3, now=clock()) == []
    clock.advance(31)
    with database.transaction() as session:
        abandoned = recover_expired_leases(session, maximum_attempts=3, now=clock())
        assert [run.run_id for run in abandoned] == [first.run_id]
    second = held(database, clock, "second")
    assert (second.run_id, second.attempt, second.claim) == (first.run_id, 2, 2)
    with pytest.raises(LeaseLostError, match="claim 2"):
        finish(database, clock, first)
    with database.reading() as session:
        assert session.scalars(select(FindingRow)).all() == []
    finish(database, clock, second)


def test_run_fails_after_its_last_attempt_and_waits_between_them(
    database: Database, clock: ManualClock
) -> None:
    queue_runs(database, clock, "ROUTINE")

    def fail() -> RunState:
        run = held(database, clock)
        with database.transaction() as session:
            return fail_attempt(
                session,
                run,
                "the host crashed",
                maximum_attempts=2,
                retry_after=timedelta(seconds=10),
                now=clock(),
            )

    assert fail() is RunState.PENDING
    assert claim(database, clock) is None
    clock.advance(10)
    assert fail() is RunState.FAILED
    assert claim(database, clock) is None
    assert ("failed", "head-ct 1.0.0: the host crashed (2 attempts)") in events(database)


def test_worker_that_dies_on_every_attempt_ends_as_failed(
    database: Database, clock: ManualClock
) -> None:
    queue_runs(database, clock, "ROUTINE")
    for _ in range(3):
        held(database, clock)
        clock.advance(31)
        with database.transaction() as session:
            recover_expired_leases(session, maximum_attempts=3, now=clock())
    assert [r.state for r in runs(database)] == [RunState.FAILED]
    assert runs(database)[0].reason == "the worker stopped"


def test_restarted_worker_puts_its_runs_back(database: Database, clock: ManualClock) -> None:
    queue_runs(database, clock, "ROUTINE", "ROUTINE")
    mine, other = held(database, clock, "mine"), held(database, clock, "other")
    with database.transaction() as session:
        back = release_worker(session, "mine", maximum_attempts=3, now=clock())
        assert [run.run_id for run in back] == [mine.run_id]
    assert held(database, clock, "mine").run_id == mine.run_id
    finish(database, clock, other)


def test_refused_run_states_its_reason_and_is_not_tried_again(
    database: Database, clock: ManualClock
) -> None:
    queue_runs(database, clock, "ROUTINE")
    run = held(database, clock)
    with database.transaction() as session:
        refuse_run(session, run, "slices are missing", now=clock())
    assert claim(database, clock) is None
    assert ("not-analysed", "head-ct 1.0.0: slices are missing") in events(database)


def test_run_of_a_study_that_grew_cannot_be_completed(
    database: Database, clock: ManualClock
) -> None:
    queue_runs(database, clock, "ROUTINE")
    early = held(database, clock)
    with database.transaction() as session:
        record_instance(session, received(clock(), study="1.2.0", number=2))
    clock.advance(5)
    with database.transaction() as session:
        complete_quiet_studies(session, QUIET, clock())
    with pytest.raises(LeaseLostError, match="superseded"):
        finish(database, clock, early)
    again = held(database, clock)
    assert again.generation == 2
    assert len(again.series.instances) == 2
    finish(database, clock, again)
    with database.reading() as session:
        assert len(counting_findings(session, again.study_id)) == 1


def test_findings_of_shadow_models_and_earlier_generations_do_not_count(
    database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        add_model(session, clock(), name="shadow-model", stage="shadow")
    queue_runs(database, clock, "ROUTINE")
    for _ in range(2):
        run = held(database, clock)
        finish(database, clock, run)
    with database.reading() as session:
        assert len(counting_findings(session, run.study_id)) == 1
    with database.transaction() as session:
        record_instance(session, received(clock(), study="1.2.0", number=2))
    clock.advance(5)
    with database.transaction() as session:
        complete_quiet_studies(session, QUIET, clock())
    with database.reading() as session:
        assert counting_findings(session, run.study_id) == []
