"""Notifications to people: made with the flag, told by the rules, escalated, taken back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from tests.store.notification_scenes import HEMORRHAGE, NODULE, Ward, found, settings_of
from tests.tools import ManualClock
from triage.core.agreement import Verdict
from triage.core.notifications import NotificationState
from triage.core.priority import Priority
from triage.core.stages import Stage
from triage.core.withdrawals import WithdrawalReason
from triage.core.workitems import StepPriority, StepState
from triage.settings.notifications import NotificationSettings
from triage.store.database import Database
from triage.store.feedback import record_feedback
from triage.store.notification_outbox import claim_message, mark_not_sent, mark_sent
from triage.store.notifications import (
    NotificationError,
    UnknownNotificationError,
    acknowledge,
    snooze,
)
from triage.store.tables import FindingRow, StudyEventRow, StudyRow
from triage.store.withdrawals import record_withdrawal
from triage.store.workitem_tables import WorkitemRow

LEASE = timedelta(minutes=2)


@pytest.fixture
def ward(database: Database, clock: ManualClock) -> Ward:
    """A ward on each kind of database in turn."""
    return Ward(database, clock)


@pytest.fixture
def quick(sqlite_database: Database, clock: ManualClock) -> Ward:
    """A ward on SQLite, for what does not depend on the database."""
    return Ward(sqlite_database, clock)


def test_first_step_is_told_and_each_further_one_when_nobody_acknowledges(ward: Ward) -> None:
    number = ward.flag()
    assert ward.one(number).state is NotificationState.PENDING
    ward.later(0)
    assert ward.told(number) == [("ada", "browser", "sent")]
    assert ward.one(number).state is NotificationState.SENT
    ward.later(599)
    assert len(ward.told(number)) == 1
    ward.later(1)
    assert ward.told(number)[1:] == [("grace", "browser", "sent")]
    assert ward.one(number).state is NotificationState.ESCALATED
    ward.later(900)
    assert ward.told(number)[2:] == [("alan", "mail", "waiting")]
    ward.later(1200)
    assert ward.one(number).state is NotificationState.EXPIRED
    assert ward.one(number).reason == "nobody acknowledged in time"
    # The mail server was away all the time: what waits for it is late, and not lost.
    assert ward.told(number)[2:] == [("alan", "mail", "waiting")]


def test_acknowledging_ends_it_and_the_first_who_does_is_named(ward: Ward) -> None:
    number = ward.flag()
    ward.later(60)
    for who in ("ada", "grace"):
        with ward.database.transaction() as session:
            row = acknowledge(session, number, who=who, via="page", now=ward.clock())
            assert row.acknowledged_by == "ada"
        ward.clock.advance(5)
    ward.later(7200)
    assert ward.one(number).state is NotificationState.ACKNOWLEDGED
    assert len(ward.told(number)) == 1
    assert [kind for kind, _ in ward.events(number)] == ["raised", "told", "acknowledged"]
    with ward.database.transaction() as session, pytest.raises(UnknownNotificationError):
        acknowledge(session, 999, who="ada", via="page", now=ward.clock())


def test_same_finding_class_of_a_study_is_told_once(ward: Ward) -> None:
    study = ward.study()
    ward.run(study, found())
    ward.later(1)
    ward.run(study, found(), model="other-ct")
    ward.run(study, found(code=NODULE))
    ward.later(1)
    hemorrhage, nodule = ward.all()
    assert (hemorrhage.finding_class, nodule.finding_class) == ("SCT 50960005", "SCT 427359005")
    kind, said = ward.events(hemorrhage.id)[-1]
    assert kind == "found-again"
    assert "other-ct 1.0.0 says it too: not told again" in said


def test_shadow_models_tell_nobody(quick: Ward) -> None:
    quick.run(quick.study(), found(), stage=Stage.SHADOW)
    quick.later(1)
    assert quick.all() == []


def test_rule_chooses_by_finding_model_place_and_size(quick: Ward) -> None:
    rule = {
        "name": "large-in-ed",
        "findings": ["50960005"],
        "models": ["head-ct"],
        "minimum_confidence": 0.9,
        "minimum_measurement": {"Volume": 5.0},
        "modalities": ["CT"],
        "locations": ["ED"],
        "steps": [{"to": ["ada"]}],
    }
    quick.settings = settings_of(rules=[rule])
    quick.run(quick.study(location="ED^12"), found())
    assert len(quick.all()) == 1
    for study, finding, model in (
        ({"location": "ED"}, found(confidence=0.5), "head-ct"),
        ({"location": "ED"}, found(measurements=()), "head-ct"),
        ({"location": "ED"}, found(code=NODULE), "head-ct"),
        ({"location": "ED"}, found(), "other-ct"),
        ({"location": "ED", "modalities": "MR"}, found(), "head-ct"),
        ({"location": "ED"}, found(Priority.HIGH), "head-ct"),
        ({"location": "ED"}, found(present=False), "head-ct"),
        ({"location": "WARD3"}, found(), "head-ct"),
    ):
        quick.run(quick.study(**study), finding, model=model)
    assert len(quick.all()) == 1


def test_study_that_was_read_is_told_nobody_and_it_says_so(ward: Ward) -> None:
    number = ward.flag()
    ward.read(ward.one(number).study_id)
    ward.later(1)
    assert ward.one(number).state is NotificationState.SUPPRESSED
    assert ward.one(number).reason == "the study was read"
    assert ward.told(number) == []
    with ward.database.reading() as session:
        lines = session.execute(select(StudyEventRow.kind, StudyEventRow.text)).all()
    assert ("not-notified", "Hemorrhage: nobody is told, the study was read") in [
        tuple(line) for line in lines
    ]
    with ward.database.transaction() as session, pytest.raises(NotificationError, match="was read"):
        acknowledge(session, number, who="ada", via="page", now=ward.clock())


def test_reading_after_the_first_step_ends_it(quick: Ward) -> None:
    number = quick.flag()
    quick.later(1)
    quick.read(quick.one(number).study_id)
    quick.later(5000)
    assert quick.one(number).state is NotificationState.EXPIRED
    assert [step for step, _, _ in quick.told(number)] == ["ada"]


def test_it_waits_while_somebody_reads_and_goes_on_when_they_give_it_back(quick: Ward) -> None:
    number = quick.flag()
    with quick.database.transaction() as session:
        session.add(
            WorkitemRow(
                sop_instance_uid="1.9",
                study_id=quick.one(number).study_id,
                state=StepState.IN_PROGRESS,
                priority=StepPriority.HIGH,
                attributes={},
                created_at=quick.clock(),
            )
        )
    for _ in range(4):
        quick.later(15)
    assert quick.told(number) == []
    assert [kind for kind, _ in quick.events(number)] == ["raised", "waits"]
    with quick.database.transaction() as session:
        session.scalars(
            select(WorkitemRow).where(WorkitemRow.sop_instance_uid == "1.9")
        ).one().state = StepState.CANCELED
    quick.later(15)
    assert quick.told(number) == [("ada", "browser", "sent")]


def test_over_the_limit_a_person_gets_one_digest_but_stat_comes_at_once(quick: Ward) -> None:
    quick.settings = settings_of(maximum_per_hour=2, digest_after_s=3600)
    numbers = [quick.flag(Priority.HIGH) for _ in range(4)]
    quick.later(1)
    assert [quick.told(n)[0][2] for n in numbers] == ["sent", "sent", "held", "held"]
    kind, said = quick.events(numbers[2])[-1]
    assert (kind, said) == (
        "held",
        "step 1: ada in a digest, as many as one person is told in an hour",
    )
    stat = quick.flag(Priority.STAT)
    quick.later(1)
    assert quick.told(stat) == [("ada", "browser", "sent")]
    # Whoever has had too many is no reason to let the patient wait.
    quick.later(600)
    assert ("grace", "browser", "held") in quick.told(numbers[2])
    quick.later(3000)
    assert quick.told(numbers[2])[0] == ("ada", "browser", "sent")


def test_quiet_hours_hold_until_their_end_and_the_wait_begins_then(quick: Ward) -> None:
    night = [{"start": "22:00", "end": "07:00"}]
    people = [
        {"name": "ada", "quiet_hours": night},
        {"name": "grace"},
        {"name": "alan", "email": "alan@hospital.example"},
    ]
    quick.settings = settings_of(recipients=people, time_zone="Europe/Berlin")
    quick.clock.advance(12 * 3600)  # midnight in UTC, one o'clock in Berlin
    number = quick.flag(Priority.HIGH)
    quick.later(1)
    assert quick.told(number) == [("ada", "browser", "held")]
    quick.later(3600)
    assert quick.told(number) == [("ada", "browser", "held")]
    stat = quick.flag(Priority.STAT)
    quick.later(1)
    assert quick.told(stat) == [("ada", "browser", "sent")]
    quick.later(5 * 3600)  # after seven in Berlin
    assert quick.told(number) == [("ada", "browser", "sent")]
    assert quick.one(number).state is NotificationState.SENT
    quick.later(600)
    assert ("grace", "browser", "sent") in quick.told(number)


def test_snooze_holds_until_its_end(quick: Ward) -> None:
    with quick.database.transaction() as session:
        until = quick.clock() + timedelta(minutes=30)
        snooze(session, "ada", until=until, who="ada", now=quick.clock())
    number = quick.flag(Priority.HIGH)
    quick.later(1)
    assert quick.told(number) == [("ada", "browser", "held")]
    quick.later(1800)
    assert quick.told(number) == [("ada", "browser", "sent")]


def test_nobody_on_call_means_everybody_of_the_group(quick: Ward) -> None:
    shifts = [
        {"weekdays": ["mon"], "start": "08:00", "end": "18:00", "members": ["ada"]},
        {"weekdays": ["mon"], "start": "18:00", "end": "08:00", "members": ["grace"]},
    ]
    quick.settings = settings_of(
        groups=[{"name": "neuro", "shifts": shifts}],
        rules=[{"name": "critical", "steps": [{"to": ["neuro"]}]}],
    )
    on_sunday = quick.flag()  # 1 March 2026 is a Sunday
    quick.later(1)
    assert [who for who, _, _ in quick.told(on_sunday)] == ["ada", "grace"]
    quick.clock.advance(24 * 3600)
    on_monday = quick.flag()
    quick.later(1)
    assert [who for who, _, _ in quick.told(on_monday)] == ["ada"]
    quick.clock.advance(14 * 3600)  # two o'clock on Tuesday: Monday's night shift
    at_night = quick.flag()
    quick.later(1)
    assert [who for who, _, _ in quick.told(at_night)] == ["grace"]


def test_model_that_is_often_wrong_is_told_in_digests_only_and_it_says_why(quick: Ward) -> None:
    quick.settings = settings_of(predictive_value_floor=0.5, predictive_value_minimum=3)
    for verdict in (Verdict.AGREE, Verdict.DISAGREE, Verdict.DISAGREE):
        run = quick.run(quick.study(), found())
        judge(quick, run, verdict)
    number = quick.flag()
    quick.later(1)
    assert quick.told(number) == [("ada", "browser", "held")]
    assert (
        "held",
        "step 1: ada in a digest, 1 of 3 judged positives of head-ct 1.0.0 were right, "
        "under the floor of 50%",
    ) in quick.events(number)
    quick.later(3600)
    assert quick.told(number) == [("ada", "browser", "sent")]
    quick.later(6000)
    assert len(quick.told(number)) == 1  # it does not escalate
    assert quick.one(number).state is NotificationState.EXPIRED


def judge(ward: Ward, run: int, verdict: Verdict) -> None:
    with ward.database.transaction() as session:
        finding = session.scalars(select(FindingRow).where(FindingRow.run_id == run)).one()
        record_feedback(
            session, finding.id, who="reader", verdict=verdict, reason="", now=ward.clock()
        )


def withdraw(ward: Ward, run: int) -> None:
    with ward.database.transaction() as session:
        reason = WithdrawalReason.WRONG_RESULT
        record_withdrawal(session, run, who="reader", reason=reason, now=ward.clock())


def test_withdrawn_result_is_taken_back_from_those_who_were_told(ward: Ward) -> None:
    ward.settings = settings_of(
        rules=[
            {"name": "critical", "steps": [{"to": ["ada", "grace"], "channels": ["mail"]}]},
        ]
    )
    run = ward.run(ward.study(), found())
    number = ward.all()[0].id
    ward.later(1)
    with ward.database.transaction() as session:
        due = claim_message(session, "mail", lease=LEASE, now=ward.clock())
        assert due is not None
        mark_sent(session, due, now=ward.clock())
    withdraw(ward, run)
    assert ward.one(number).state is NotificationState.WITHDRAWN
    assert ward.told(number) == [
        ("ada", "mail", "sent"),
        ("grace", "mail", "cancelled"),
        ("ada", "mail", "waiting"),
    ]
    assert ward.messages(number)[-1].kind.value == "retraction"
    ward.later(7200)
    assert len(ward.told(number)) == 3


def test_other_model_s_word_stands_when_one_is_withdrawn(quick: Ward) -> None:
    study = quick.study()
    other = quick.run(study, found(), model="other-ct")
    run = quick.run(study, found())
    quick.later(1)
    withdraw(quick, run)
    assert quick.all()[0].state is NotificationState.SENT
    assert quick.all()[0].run_id == other
    withdraw(quick, other)
    assert quick.all()[0].state is NotificationState.WITHDRAWN


def test_finding_again_after_a_withdrawal_is_told_anew(quick: Ward) -> None:
    study = quick.study()
    withdraw(quick, quick.run(study, found()))
    quick.run(study, found())
    quick.later(1)
    assert [row.state.value for row in quick.all()] == ["withdrawn", "sent"]


def test_radiologist_who_disagrees_takes_it_back(quick: Ward) -> None:
    run = quick.run(quick.study(), found())
    quick.later(1)
    judge(quick, run, Verdict.AGREE)
    assert quick.all()[0].state is NotificationState.SENT
    judge(quick, run, Verdict.DISAGREE)
    row = quick.all()[0]
    assert (row.state, row.reason) == (NotificationState.WITHDRAWN, "reader disagrees")
    assert [m.kind.value for m in quick.messages(row.id)] == ["alert", "retraction"]


def test_step_that_reaches_nobody_lets_the_next_one_be_told_at_once(quick: Ward) -> None:
    steps = [
        {"to": ["ada"], "channels": ["mail"], "escalate_after_s": 3600},
        {"to": ["grace"]},
    ]
    quick.settings = settings_of(rules=[{"name": "critical", "steps": steps}])
    number = quick.flag()
    quick.later(1)
    with quick.database.transaction() as session:
        due = claim_message(session, "mail", lease=LEASE, now=quick.clock())
        assert due is not None
        mark_not_sent(session, due, "no such mailbox", retry_after=None, now=quick.clock())
    quick.later(1)
    assert quick.told(number) == [("ada", "mail", "dead"), ("grace", "browser", "sent")]
    assert ("undeliverable", "ada not told by mail: no such mailbox") in quick.events(number)


def test_whoever_dies_after_sending_sends_the_same_message_again(ward: Ward) -> None:
    ward.settings = settings_of(
        rules=[{"name": "critical", "steps": [{"to": ["ada"], "channels": ["mail"]}]}]
    )
    number = ward.flag()
    ward.later(1)

    def claim() -> str:
        with ward.database.transaction() as session:
            due = claim_message(session, "mail", lease=LEASE, now=ward.clock())
            return due.identity if due else ""

    first = claim()
    assert first
    assert claim() == ""
    ward.clock.advance(121)
    assert claim() == first
    assert ward.told(number) == [("ada", "mail", "sending")]


def test_digest_after_a_crash_is_the_same_digest(quick: Ward) -> None:
    quick.settings = settings_of(
        maximum_per_hour=0,
        rules=[
            {
                "name": "critical",
                "priorities": ["high"],
                "steps": [{"to": ["ada"], "channels": ["mail"], "escalate_after_s": 9e9}],
            }
        ],
    )
    quick.flag(Priority.HIGH)
    quick.flag(Priority.HIGH)
    quick.later(1)
    quick.later(3600)
    with quick.database.transaction() as session:
        first = claim_message(session, "mail", lease=LEASE, now=quick.clock())
    quick.flag(Priority.HIGH)
    quick.later(1)
    quick.later(3600)
    with quick.database.transaction() as session:
        again = claim_message(session, "mail", lease=LEASE, now=quick.clock())
    assert first is not None
    assert again is not None
    assert again.is_digest
    assert (again.identity, again.attempt) == (first.identity, 2)
    assert [e.message_id for e in again.entries] == [e.message_id for e in first.entries]
    with quick.database.transaction() as session:
        mark_sent(session, again, now=quick.clock())
        third = claim_message(session, "mail", lease=LEASE, now=quick.clock())
    assert third is not None
    assert len(third.entries) == 1


def test_flag_stands_where_notifying_fails_and_the_history_says_so(
    quick: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(NotificationSettings, "rule_for", fails)
    study = quick.study()
    quick.run(study, found(code=HEMORRHAGE))
    with quick.database.reading() as session:
        assert session.get_one(StudyRow, study).priority is Priority.STAT
        lines = [(one.kind, one.text) for one in session.scalars(select(StudyEventRow))]
    said = "nobody could be notified: a fault of Triage (RuntimeError); report this"
    assert ("not-notified", said) in lines
