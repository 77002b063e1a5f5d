"""Results that are taken back, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from tests.store.rows import add_model, received
from tests.store.test_outbox import (
    add,
    certainly_due,
    delivered,
    not_delivered,
    result_object,
    states,
)
from tests.store.test_outbox import due as claimed_delivery
from tests.store.test_runs import FINDING, finish, held, queue_runs
from tests.store.test_studies import QUIET
from tests.tools import ManualClock, archive_named
from triage.core.findings import Finding
from triage.core.priority import Priority
from triage.core.runs import DeliveryKind, RunState
from triage.core.withdrawals import WithdrawalReason
from triage.settings import WebhookDestination
from triage.store.database import Database
from triage.store.history import texts_of_kind
from triage.store.model_tables import ModelRow
from triage.store.notices import read_notice
from triage.store.outbox import (
    add_result_objects,
    add_withdrawal_objects,
    queue_withdrawal_notices,
)
from triage.store.prioritising import raise_ai_priority
from triage.store.runs import ClaimedRun, complete_run, record_findings, refuse_run
from triage.store.studies import complete_quiet_studies, record_instance
from triage.store.tables import AnalysisRunRow, FindingRow, PriorityEventRow, StudyRow
from triage.store.withdrawals import (
    DueWithdrawal,
    UnknownRunError,
    Withdrawal,
    WithdrawalRefusedError,
    claim_due_withdrawal,
    mark_withdrawal_done,
    mark_withdrawal_failed,
    predecessor_reports,
    record_withdrawal,
    withdrawals_of,
)

LEASE = timedelta(seconds=30)


def flagged(
    database: Database, clock: ManualClock, *destinations: str, order: str = "ROUTINE"
) -> ClaimedRun:
    """Return a completed run that found hemorrhage, raised the study and left a SEG and an SR."""
    queue_runs(database, clock, order)
    return answered(database, clock, *destinations)


def answered(database: Database, clock: ManualClock, *destinations: str) -> ClaimedRun:
    """Carry out the run that waits, in the same way."""
    run = held(database, clock)
    with database.transaction() as session:
        said = FINDING.in_words()
        raise_ai_priority(session, run.study_id, Priority.STAT, said, at=clock(), run_id=run.run_id)
    add(database, clock, run, *destinations)
    finish(database, clock, run)
    return run


def withdraw(database: Database, clock: ManualClock, run: ClaimedRun, **said: str) -> Withdrawal:
    """Let Dr. Haus take back the result of the run."""
    with database.transaction() as session:
        return record_withdrawal(
            session,
            run.run_id,
            who="Dr. Haus",
            reason=WithdrawalReason(said.get("reason", "wrong-result")),
            text=said.get("text", ""),
            now=clock(),
        )


def due(database: Database, clock: ManualClock) -> DueWithdrawal | None:
    """Claim a withdrawal."""
    with database.transaction() as session:
        return claim_due_withdrawal(session, lease=LEASE, now=clock())


def certainly(due: DueWithdrawal | None) -> DueWithdrawal:
    """Return what must be there."""
    assert due is not None
    return due


def priorities(database: Database) -> tuple[Priority, Priority | None, str]:
    """Return the study's priority, the AI's, and its reason."""
    with database.reading() as session:
        row = session.scalars(select(StudyRow)).one()
        return row.priority, row.ai_priority, row.ai_reason


def late_image(database: Database, clock: ManualClock) -> None:
    """Let another image of the study arrive and the study become complete again."""
    with database.transaction() as session:
        record_instance(session, received(clock(), study="1.2.0", number=2))
    clock.advance(60)
    with database.transaction() as session:
        complete_quiet_studies(session, QUIET, clock())


def test_a_withdrawn_finding_no_longer_raises_the_priority(
    database: Database, clock: ManualClock
) -> None:
    run = flagged(database, clock, order="HIGH")
    assert priorities(database)[0] is Priority.STAT
    withdrawal = withdraw(database, clock, run, text="calcification")
    # Back to the order's own priority, and not below it.
    assert priorities(database) == (Priority.HIGH, None, "")
    assert withdrawal.in_words() == (
        "withdrawn by Dr. Haus, because the result is wrong: calcification"
    )
    with database.reading() as session:
        lines = texts_of_kind(session, run.study_id, "withdrawn")
        assert lines == [f"head-ct 1.0.0: {withdrawal.in_words()}"]
        change = session.scalars(
            select(PriorityEventRow).order_by(PriorityEventRow.id.desc()).limit(1)
        ).one()
        assert (change.source, change.before, change.after) == (
            "withdrawal",
            Priority.STAT,
            Priority.HIGH,
        )


def test_what_other_models_found_still_raises_it(database: Database, clock: ManualClock) -> None:
    run = flagged(database, clock)
    fracture = Finding.model_validate(
        FINDING.model_dump() | {"key": "fracture", "priority": Priority.HIGH}
    )
    with database.transaction() as session:
        add_model(session, clock(), name="bones")
        model = session.scalars(select(ModelRow).where(ModelRow.name == "bones")).one()
        first = session.get_one(AnalysisRunRow, run.run_id)
        other = AnalysisRunRow(
            study_id=first.study_id,
            model_id=model.id,
            series_id=first.series_id,
            generation=first.generation,
            state=RunState.COMPLETED,
            available_at=clock(),
            created_at=clock(),
        )
        session.add(other)
        session.flush()
        content = fracture.model_dump(mode="json")
        session.add(
            FindingRow(
                run_id=other.id, key="fracture", present=True, confidence=0.9, content=content
            )
        )
    withdraw(database, clock, run)
    assert priorities(database) == (
        Priority.HIGH,
        Priority.HIGH,
        "Hemorrhage, confidence 0.90, bones 1.0.0",
    )


def test_a_finding_does_not_come_back_from_the_superseded_run_before(
    database: Database, clock: ManualClock
) -> None:
    flagged(database, clock)
    late_image(database, clock)
    withdraw(database, clock, answered(database, clock))
    assert priorities(database)[:2] == (Priority.ROUTINE, None)


def test_the_flag_of_a_superseded_run_stays_until_a_person_takes_it_back(
    database: Database, clock: ManualClock
) -> None:
    first = flagged(database, clock)
    late_image(database, clock)
    second = held(database, clock)
    absent = FINDING.model_copy(update={"present": False, "confidence": 0.1})
    with database.transaction() as session:
        record_findings(session, second, [absent], input_sha256="cd")
        complete_run(session, second, "nothing", timings_s={}, now=clock())
    assert priorities(database)[0] is Priority.STAT
    withdraw(database, clock, second)  # it said nothing that raises
    assert priorities(database)[0] is Priority.STAT
    withdraw(database, clock, first)
    assert priorities(database)[0] is Priority.ROUTINE


def test_what_was_not_sent_is_kept_back_and_what_may_have_arrived_is_rejected(
    database: Database, clock: ManualClock
) -> None:
    run = flagged(database, clock, "a", "b", "c")
    delivered(database, clock, certainly_due(database, clock))  # the SEG, at a
    not_delivered(database, clock, certainly_due(database, clock), 60)  # the SEG, at b
    withdraw(database, clock, run)
    assert states(database)[0] == ("seg", "delivered")
    assert {state for _, state in states(database)[1:]} == {"withdrawn"}
    found = certainly(due(database, clock))
    assert found.destinations == {"a", "b"}
    assert [o.role for o in found.objects] == ["seg", "sr"]
    assert not found.has_successor


def test_nothing_is_rejected_while_it_is_on_its_way(database: Database, clock: ManualClock) -> None:
    run = flagged(database, clock, "a")
    on_its_way = certainly_due(database, clock)
    withdraw(database, clock, run)
    assert due(database, clock) is None
    not_delivered(database, clock, on_its_way, 60)
    assert due(database, clock) is not None


def test_what_fails_is_tried_again_and_what_is_done_is_done_once(
    database: Database, clock: ManualClock
) -> None:
    run = flagged(database, clock, "a")
    withdraw(database, clock, run)
    first = certainly(due(database, clock))
    assert due(database, clock) is None  # one worker has it
    with database.transaction() as session:
        mark_withdrawal_failed(
            session, first, "the disk is full", retry_after=timedelta(seconds=5), now=clock()
        )
        assert withdrawals_of(session, [run.study_id])[run.run_id].last_error == "the disk is full"
    clock.advance(5)
    second = certainly(due(database, clock))
    with database.transaction() as session:
        assert not mark_withdrawal_done(session, first, "too late", now=clock())
        assert mark_withdrawal_done(session, second, "done", now=clock())
    clock.advance(3600)
    assert due(database, clock) is None


def test_a_worker_that_died_leaves_its_withdrawal_to_another(
    database: Database, clock: ManualClock
) -> None:
    withdraw(database, clock, flagged(database, clock))
    certainly(due(database, clock))
    clock.advance(31)
    assert certainly(due(database, clock)).attempt == 2


def test_a_superseded_run_is_rejected_once_the_newer_one_is_over(
    database: Database, clock: ManualClock
) -> None:
    first = flagged(database, clock, "a")
    delivered(database, clock, certainly_due(database, clock))
    late_image(database, clock)
    assert due(database, clock) is None  # the archive is never without a result
    second = held(database, clock)
    with database.reading() as session:
        assert predecessor_reports(session, second.run_id)[0].sop_instance_uid == "2.25.2"
    new = [result_object("seg", "2.25.3"), result_object("sr", "2.25.4")]
    with database.transaction() as session:
        record_findings(session, second, [FINDING], input_sha256="cd")
        complete_run(session, second, "done", timings_s={}, now=clock())
        add_result_objects(
            session,
            run_id=second.run_id,
            study_id=second.study_id,
            objects=new,
            destinations=[archive_named("a")],
            now=clock(),
        )
    found = certainly(due(database, clock))
    assert (found.run_id, found.has_successor, found.destinations) == (first.run_id, True, {"a"})
    assert (found.withdrawal.who, found.withdrawal.reason) == ("", WithdrawalReason.SUPERSEDED)


def test_a_newer_run_without_a_result_takes_no_ones_place(
    database: Database, clock: ManualClock
) -> None:
    flagged(database, clock, "a")
    late_image(database, clock)
    second = held(database, clock)
    with database.transaction() as session:
        refuse_run(session, second, "out of scope", now=clock())
    assert not certainly(due(database, clock)).has_successor


def test_objects_that_the_newer_run_took_over_are_not_rejected(
    database: Database, clock: ManualClock
) -> None:
    flagged(database, clock, "a")
    late_image(database, clock)
    answered(database, clock, "a")  # the same model on the same input: the same UIDs
    assert certainly(due(database, clock)).objects == ()


def test_what_says_that_it_was_withdrawn_is_delivered_although_the_run_is_superseded(
    database: Database, clock: ManualClock
) -> None:
    run = flagged(database, clock)
    late_image(database, clock)
    with database.transaction() as session:
        add_withdrawal_objects(
            session,
            run_id=run.run_id,
            objects=[result_object("rejection-note", "2.25.9")],
            destinations=("a",),
            now=clock(),
        )
        record_withdrawal(
            session, run.run_id, who="Dr. Haus", reason=WithdrawalReason.OTHER, now=clock()
        )
    delivery = certainly_due(database, clock)
    assert delivery.role == "rejection-note"
    not_delivered(database, clock, delivery, 60)
    assert states(database) == [("rejection-note", "waiting")]


def test_only_what_was_said_can_be_withdrawn_and_only_once(
    database: Database, clock: ManualClock
) -> None:
    run = flagged(database, clock)
    with pytest.raises(UnknownRunError, match="no analysis run 999"), database.transaction() as s:
        record_withdrawal(s, 999, who="a", reason=WithdrawalReason.OTHER, now=clock())
    withdraw(database, clock, run)
    with pytest.raises(WithdrawalRefusedError, match=r"by Dr\. Haus"):
        withdraw(database, clock, run)
    late_image(database, clock)
    pending = held(database, clock)
    with pytest.raises(WithdrawalRefusedError, match="running and has said nothing"):
        withdraw(database, clock, pending)


def test_what_a_person_withdrew_stays_theirs_when_it_is_superseded(
    database: Database, clock: ManualClock
) -> None:
    run = flagged(database, clock)
    withdraw(database, clock, run)
    late_image(database, clock)
    with database.reading() as session:
        assert withdrawals_of(session, [run.study_id])[run.run_id].who == "Dr. Haus"


def hook(name: str, **changes: object) -> WebhookDestination:
    """Return a destination that is told in words."""
    values = {"name": name, "kind": "webhook", "url": "http://ris.example", "secret": "0" * 16}
    return WebhookDestination.model_validate(values | changes)


def answered_with_notices(
    database: Database, clock: ManualClock, *told: WebhookDestination
) -> ClaimedRun:
    """Return a completed run whose result is to be told."""
    queue_runs(database, clock, "ROUTINE")
    run = held(database, clock)
    with database.transaction() as session:
        add_result_objects(
            session,
            run_id=run.run_id,
            study_id=run.study_id,
            objects=[result_object("sr", "2.25.2")],
            destinations=told,
            now=clock(),
        )
    finish(database, clock, run)
    return run


def test_who_was_told_of_a_result_is_told_once_that_it_is_withdrawn(
    database: Database, clock: ManualClock
) -> None:
    told, untold, alone, elsewhere = (
        hook("told"),
        hook("untold", notices=["result"]),
        hook("alone", notices=["withdrawal"]),
        hook("elsewhere", notices=["withdrawal"], route={"models": ["another"]}),
    )
    run = answered_with_notices(database, clock, told, untold)
    for _ in range(2):
        delivered(database, clock, certainly_due(database, clock))
    withdraw(database, clock, run, text="calcification")
    for _ in range(2):
        with database.transaction() as session:
            queue_withdrawal_notices(session, (told, untold, alone, elsewhere), now=clock())
    notices = []
    while sent := claimed_delivery(database, clock):
        with database.reading() as session:
            notice = read_notice(session, sent)
        assert notice.withdrawal is not None
        assert notice.run is not None
        notices.append((sent.destination, notice.kind, notice.withdrawal.who))
        assert notice.withdrawal.reason == "the result is wrong: calcification"
        assert notice.occurred_at == clock()
        assert notice.run.run_id == run.run_id
        delivered(database, clock, sent)
    kind = DeliveryKind.WITHDRAWAL
    assert sorted(notices) == [("alone", kind, "Dr. Haus"), ("told", kind, "Dr. Haus")]


def test_a_result_that_was_never_told_is_not_taken_back_by_a_notice(
    database: Database, clock: ManualClock
) -> None:
    told = hook("told")
    withdraw(database, clock, answered_with_notices(database, clock, told))
    with database.transaction() as session:
        queue_withdrawal_notices(session, (told,), now=clock())
    assert claimed_delivery(database, clock) is None


def claimed_notices(database: Database, clock: ManualClock) -> list[tuple[str, int, bool]]:
    """Deliver the notices that are due: destination, run, and whether it takes the run back."""
    told = []
    while sent := claimed_delivery(database, clock):
        with database.reading() as session:
            notice = read_notice(session, sent)
        assert notice.run is not None
        is_taken_back = notice.withdrawal is not None and notice.withdrawal.is_superseded
        told.append((sent.destination, notice.run.run_id, is_taken_back))
        delivered(database, clock, sent)
    return told


def newer_answer(database: Database, clock: ManualClock, *told: WebhookDestination) -> ClaimedRun:
    """Carry out the run that a late image asked for, on other images than before."""
    run = held(database, clock)
    with database.transaction() as session:
        record_findings(session, run, [FINDING], input_sha256="cd")
        complete_run(session, run, "done", timings_s={}, now=clock())
        add_result_objects(
            session,
            run_id=run.run_id,
            study_id=run.study_id,
            objects=[result_object("sr", "2.25.4")],
            destinations=told,
            now=clock(),
        )
    return run


def test_who_was_told_is_told_once_that_a_newer_result_takes_its_place_and_then_the_newer(
    database: Database, clock: ManualClock
) -> None:
    told, alone = hook("told"), hook("alone", notices=["withdrawal"])
    first = answered_with_notices(database, clock, told)
    assert claimed_notices(database, clock) == [("told", first.run_id, False)]
    late_image(database, clock)
    with database.transaction() as session:
        queue_withdrawal_notices(session, (told, alone), now=clock())
    assert claimed_notices(database, clock) == []  # until the newer run is over, it is the best
    second = newer_answer(database, clock, told, alone)
    expected = [("told", first.run_id, True), ("told", second.run_id, False)]
    assert claimed_notices(database, clock) == expected
    finished = certainly(due(database, clock))
    with database.transaction() as session:
        assert mark_withdrawal_done(session, finished, "done", now=clock())
        queue_withdrawal_notices(session, (told, alone), now=clock())
    assert claimed_notices(database, clock) == []


def test_the_newer_result_waits_until_the_earlier_one_is_taken_back(
    database: Database, clock: ManualClock
) -> None:
    told = hook("told")
    first = answered_with_notices(database, clock, told)
    assert claimed_notices(database, clock) == [("told", first.run_id, False)]
    late_image(database, clock)
    newer_answer(database, clock, told)
    sent = certainly_due(database, clock)
    assert sent.kind is DeliveryKind.WITHDRAWAL
    not_delivered(database, clock, sent, 60)
    assert claimed_delivery(database, clock) is None


def test_a_result_that_nothing_took_the_place_of_is_taken_back_too(
    database: Database, clock: ManualClock
) -> None:
    told = hook("told")
    first = answered_with_notices(database, clock, told)
    assert claimed_notices(database, clock) == [("told", first.run_id, False)]
    late_image(database, clock)
    second = held(database, clock)
    with database.transaction() as session:
        refuse_run(session, second, "out of scope", now=clock())
    finished = certainly(due(database, clock))
    with database.transaction() as session:
        assert mark_withdrawal_done(session, finished, "done", now=clock())
        queue_withdrawal_notices(session, (told,), now=clock())
    assert claimed_notices(database, clock) == [("told", first.run_id, True)]


def test_a_superseded_result_that_was_never_told_is_not_taken_back_by_a_notice(
    database: Database, clock: ManualClock
) -> None:
    told = hook("told")
    answered_with_notices(database, clock, told)
    late_image(database, clock)
    second = newer_answer(database, clock, told)
    assert claimed_notices(database, clock) == [("told", second.run_id, False)]
