"""A person completes a study, runs models again and ends runs, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from tests.store.rows import add_model, received
from tests.tools import ManualClock
from triage.core.priority import Priority
from triage.core.runs import RunState
from triage.store.database import Database
from triage.store.delivery_decisions import Decision, DecisionError
from triage.store.prioritising import raise_ai_priority
from triage.store.runs import (
    ClaimedRun,
    LeaseLostError,
    claim_most_urgent,
    complete_run,
    is_cancelled,
    record_findings,
    recover_expired_leases,
)
from triage.store.studies import record_instance
from triage.store.study_actions import (
    ActionError,
    UnknownSubjectError,
    cancel_run,
    complete_now,
    rerun,
)
from triage.store.tables import AnalysisRunRow, StudyEventRow, StudyRow

LEASE = timedelta(seconds=60)


def decision(clock: ManualClock, reason: str = "the scanner was replaced") -> Decision:
    """Return a decision of an administrator."""
    return Decision("Administrator", clock(), reason)


@pytest.fixture
def arriving(database: Database, clock: ManualClock) -> Database:
    """A database with two models and a study that waits for images."""
    with database.transaction() as session:
        add_model(session, clock())
        add_model(session, clock(), name="head-ct-b")
        record_instance(session, received(clock()))
    return database


@pytest.fixture
def complete(arriving: Database, clock: ManualClock) -> Database:
    """The same, with the study marked complete."""
    with arriving.transaction() as session:
        complete_now(session, "1.2.3", decision(clock))
    return arriving


def runs_of(database: Database) -> list[tuple[str, str, int]]:
    """Return model, state and generation of each run, in the order of queueing."""
    with database.reading() as session:
        rows = session.scalars(select(AnalysisRunRow).order_by(AnalysisRunRow.id))
        return [(row.model.name, row.state.value, row.generation) for row in rows]


def finish(database: Database, clock: ManualClock) -> ClaimedRun:
    """Carry the most urgent run to its end, with nothing found."""
    with database.transaction() as session:
        run = claim_most_urgent(session, worker="w", lease=LEASE, now=clock())
        assert run is not None
        complete_run(session, run, "nothing found", timings_s={}, now=clock())
    return run


def test_study_that_waits_for_images_is_completed_by_a_person_once(
    complete: Database, clock: ManualClock
) -> None:
    with complete.reading() as session:
        study = session.scalars(select(StudyRow)).one()
        assert study.completion_reason == (
            "marked complete by Administrator: the scanner was replaced"
        )
    assert runs_of(complete) == [("head-ct", "pending", 1), ("head-ct-b", "pending", 1)]
    with pytest.raises(ActionError, match="complete already"), complete.transaction() as session:
        complete_now(session, "1.2.3", decision(clock))


def test_image_that_comes_after_all_reopens_it(complete: Database, clock: ManualClock) -> None:
    with complete.transaction() as session:
        record_instance(session, received(clock(), number=2))
    with complete.reading() as session:
        assert session.scalars(select(StudyRow)).one().state.value == "receiving"


def test_one_model_runs_again_and_the_other_keeps_its_result(
    complete: Database, clock: ManualClock
) -> None:
    finish(complete, clock), finish(complete, clock)
    with complete.transaction() as session:
        done = rerun(session, "1.2.3", decision(clock), "head-ct")
    assert done.queued == ("head-ct 1.0.0",)
    assert runs_of(complete) == [
        ("head-ct", "superseded", 1),
        ("head-ct-b", "completed", 2),
        ("head-ct", "pending", 2),
    ]


def test_all_models_run_again_and_the_flag_stands_meanwhile(
    complete: Database, clock: ManualClock
) -> None:
    first = finish(complete, clock)
    finish(complete, clock)
    with complete.transaction() as session:
        raise_ai_priority(session, first.study_id, Priority.STAT, "a finding", at=clock())
        rerun(session, "1.2.3", decision(clock))
    assert [r[1] for r in runs_of(complete)] == ["superseded"] * 2 + ["pending"] * 2
    finish(complete, clock), finish(complete, clock)
    with complete.reading() as session:
        assert session.scalars(select(StudyRow)).one().priority is Priority.STAT
        said = session.scalars(select(StudyEventRow.text).where(StudyEventRow.kind == "routed"))
        assert any("by Administrator: the scanner was replaced" in text for text in said)


def test_what_is_queued_already_is_not_queued_twice(complete: Database, clock: ManualClock) -> None:
    with (
        pytest.raises(ActionError, match=r"head-ct 1\.0\.0: it is queued or running already"),
        complete.transaction() as session,
    ):
        rerun(session, "1.2.3", decision(clock))
    assert runs_of(complete) == [("head-ct", "pending", 1), ("head-ct-b", "pending", 1)]


def test_rerun_says_why_it_cannot_be(arriving: Database, clock: ManualClock) -> None:
    def refused(uid: str = "1.2.3", model: str = "") -> str:
        with pytest.raises(ActionError) as refusal, arriving.transaction() as session:
            rerun(session, uid, decision(clock), model)
        return str(refusal.value)

    assert "holds no such study" in refused("9.9")
    assert "mark it complete first" in refused()
    with arriving.transaction() as session:
        complete_now(session, "1.2.3", decision(clock))
    assert "in use: head-ct, head-ct-b" in refused(model="chest")
    with arriving.transaction() as session:
        session.scalars(select(StudyRow)).one().purged_at = clock()
    assert "sent again" in refused()


def test_pending_run_is_cancelled_and_never_claimed(complete: Database, clock: ManualClock) -> None:
    with complete.transaction() as session:
        uid = cancel_run(session, 1, decision(clock))
    assert uid == "1.2.3"
    finish(complete, clock)
    with complete.transaction() as session:
        assert claim_most_urgent(session, worker="w", lease=LEASE, now=clock()) is None
    assert runs_of(complete) == [("head-ct", "cancelled", 1), ("head-ct-b", "completed", 1)]


def test_running_run_is_lost_to_its_worker_and_is_not_taken_up_again(
    complete: Database, clock: ManualClock
) -> None:
    with complete.transaction() as session:
        run = claim_most_urgent(session, worker="w", lease=LEASE, now=clock())
        assert run is not None
        assert not is_cancelled(session, run)
        cancel_run(session, run.run_id, decision(clock))
    clock.advance(120)
    with complete.transaction() as session:
        assert is_cancelled(session, run)
        assert recover_expired_leases(session, maximum_attempts=3, now=clock()) == []
    with pytest.raises(LeaseLostError), complete.transaction() as session:
        record_findings(session, run, [], input_sha256="0" * 64)


def test_cancelled_run_can_be_run_again(complete: Database, clock: ManualClock) -> None:
    with complete.transaction() as session:
        cancel_run(session, 1, decision(clock))
        rerun(session, "1.2.3", decision(clock), "head-ct")
    assert runs_of(complete)[0][1] == "superseded"
    assert runs_of(complete)[2] == ("head-ct", "pending", 2)


def test_cancelling_what_is_over_or_unknown_or_without_a_reason_is_refused(
    complete: Database, clock: ManualClock
) -> None:
    finish(complete, clock)
    with pytest.raises(ActionError, match="run 1 is completed"), complete.transaction() as session:
        cancel_run(session, 1, decision(clock))
    with pytest.raises(UnknownSubjectError), complete.transaction() as session:
        cancel_run(session, 99, decision(clock))
    with pytest.raises(DecisionError, match="reason"), complete.transaction() as session:
        cancel_run(session, 2, decision(clock, " "))
    assert runs_of(complete)[1][1] == RunState.PENDING.value
