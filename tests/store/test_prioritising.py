"""Where studies stand, whatever changes: order, patient, findings, persons, policy, the switch."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, text

from tests.store.rows import received
from tests.store.test_runs import FINDING, claim, finish, held, queue_runs
from tests.tools import ManualClock
from triage.core.orders import Order, Visit
from triage.core.priority import Priority
from triage.core.priority_policy import PriorityPolicy, parse_policy
from triage.store.database import Database
from triage.store.history import texts_of_kind
from triage.store.orders import keep_order
from triage.store.policies import (
    PolicyChangeRefusedError,
    UnknownPolicyVersionError,
    activate_policy,
    policy_events,
    policy_in_force,
    roll_back_to,
)
from triage.store.policy_tables import PolicyVersionRow
from triage.store.prioritising import (
    NoSuchStudyError,
    RaiseRefusedError,
    is_ranking_due,
    raise_ai_priority,
    raise_by_hand,
    raise_for_findings,
    rank_some,
    switch_ai_prioritization,
    take_raise_back,
)
from triage.store.studies import record_instance
from triage.store.tables import AnalysisRunRow, PriorityEventRow, StudyRow
from triage.store.workitem_tables import WorkitemRow
from triage.worklist.queue import READING_ORDER, reading_list
from triage.worklist.reading import mark_as_read, mark_as_unread

EMERGENCY = Visit("ED", "E")
HIGH_IN_EMERGENCY = parse_policy(
    {
        "name": "Emergency first",
        "locations": [
            {"name": "Emergency", "patient_classes": ["E"], "at_least": "high", "points": 30}
        ],
        "findings": [{"finding": "hemorrhage", "priority": "high", "points": 45}],
    }
)


def arrive(database: Database, clock: ManualClock, uid: str, order: str = "ROUTINE") -> None:
    """Let the first image of a study come."""
    with database.transaction() as session:
        image = received(
            clock(), study=uid, accession_number=uid, requested_procedure_priority=order
        )
        record_instance(session, image)


def admit(database: Database, clock: ManualClock, uid: str, visit: Visit) -> None:
    """Let the RIS say where the patient of the study is."""
    with database.transaction() as session:
        keep_order(session, Order("RIS", clock(), study_instance_uid=uid, visit=visit), now=clock())


def study(database: Database, uid: str) -> StudyRow:
    """Return the row of a study."""
    with database.reading() as session:
        return session.scalars(select(StudyRow).where(StudyRow.study_instance_uid == uid)).one()


def listed(database: Database, clock: ManualClock) -> list[str]:
    """Return the reading list."""
    with database.reading() as session:
        return [entry.study_instance_uid for entry in reading_list(session, clock())]


def newest_event(database: Database) -> PriorityEventRow:
    """Return the newest change of a priority."""
    with database.reading() as session:
        return session.scalars(
            select(PriorityEventRow).order_by(PriorityEventRow.id.desc()).limit(1)
        ).one()


def flag(database: Database, clock: ManualClock, uid: str) -> None:
    """Let the AI flag a study."""
    with database.transaction() as session:
        row = session.scalars(select(StudyRow).where(StudyRow.study_instance_uid == uid)).one()
        raise_ai_priority(session, row.id, Priority.STAT, "Hemorrhage, m 1.0.0", at=clock())


def activate(database: Database, clock: ManualClock, policy: PriorityPolicy) -> None:
    """Let a policy hold, and all studies follow."""
    with database.transaction() as session:
        activate_policy(session, policy, who="Dr. Haus", reason="the board", now=clock())
    rank_all(database, clock)


def rank_all(database: Database, clock: ManualClock) -> None:
    """Rank until there is nothing left to rank."""
    with database.transaction() as session:
        while rank_some(session, clock(), limit=2):
            pass
        assert not is_ranking_due(session, clock())


def switch(database: Database, clock: ManualClock, *, is_on: bool) -> None:
    """Switch AI prioritization."""
    with database.transaction() as session:
        switch_ai_prioritization(
            session, is_on=is_on, who="Dr. Haus", reason="false alarms", now=clock()
        )


def test_emergency_patient_goes_before_who_came_up_to_an_hour_earlier(
    database: Database, clock: ManualClock
) -> None:
    for uid in ("1.1", "1.2", "1.3"):
        arrive(database, clock, uid)
        clock.advance(50 * 60)
    admit(database, clock, "1.3", EMERGENCY)
    assert listed(database, clock) == ["1.1", "1.3", "1.2"]
    row = study(database, "1.3")
    assert (row.priority, row.points) == (Priority.ROUTINE, 60)
    assert row.ranked_at == row.first_instance_at - timedelta(hours=1)
    assert row.due_at == row.first_instance_at + timedelta(hours=24)
    event = newest_event(database)
    assert (event.source, event.before, event.after) == (
        "location",
        Priority.ROUTINE,
        Priority.ROUTINE,
    )
    assert event.place == "order routine; Emergency patient +60: Routine"


def test_a_study_that_comes_after_its_order_stands_where_the_order_says(
    database: Database, clock: ManualClock
) -> None:
    admit(database, clock, "1.1", EMERGENCY)
    arrive(database, clock, "1.1")
    assert study(database, "1.1").points == 60


def test_findings_raise_as_far_as_the_policy_says(database: Database, clock: ManualClock) -> None:
    activate(database, clock, HIGH_IN_EMERGENCY)
    queue_runs(database, clock, "ROUTINE")
    run = held(database, clock)
    with database.transaction() as session:
        raise_for_findings(
            session,
            run.study_id,
            [(run.manifest.identity, FINDING)],
            at=clock(),
            run_id=run.run_id,
        )
    row = study(database, run.study_instance_uid)
    assert (row.priority, row.ai_priority, row.ai_points) == (Priority.HIGH, Priority.HIGH, 45)
    event = newest_event(database)
    assert (event.source, event.run_id) == ("ai", run.run_id)
    assert event.place == f"order routine; {FINDING.in_words()}, head-ct 1.0.0 +45: High"
    with database.reading() as session:
        assert texts_of_kind(session, row.id, "flagged") == [row.ai_reason]


def test_newer_finding_that_asks_for_less_lowers_nothing(
    database: Database, clock: ManualClock
) -> None:
    activate(database, clock, HIGH_IN_EMERGENCY)
    arrive(database, clock, "1.1")
    flag(database, clock, "1.1")
    before = study(database, "1.1")
    with database.transaction() as session:
        raise_for_findings(session, before.id, [("m 1.0.0", FINDING)], at=clock())
    after = study(database, "1.1")
    assert (after.priority, after.ai_priority) == (Priority.STAT, Priority.STAT)
    assert after.ranked_at < before.ranked_at  # the points of the second count beside it


def test_switched_off_the_list_is_the_orders_own_at_once_and_back_again(
    database: Database, clock: ManualClock
) -> None:
    for uid, order in (("1.1", "HIGH"), ("1.2", "ROUTINE"), ("1.3", "ROUTINE")):
        arrive(database, clock, uid, order)
        clock.advance(60)
    flag(database, clock, "1.3")
    assert listed(database, clock) == ["1.3", "1.1", "1.2"]
    switch(database, clock, is_on=False)
    assert listed(database, clock) == ["1.1", "1.2", "1.3"]
    row = study(database, "1.3")
    assert (row.ai_priority, row.ai_reason) == (Priority.STAT, "Hemorrhage, m 1.0.0")
    event = newest_event(database)
    assert (event.source, event.before, event.after) == ("switch", Priority.STAT, Priority.ROUTINE)
    assert event.reason == "AI prioritization switched off by Dr. Haus: false alarms"
    flag(database, clock, "1.2")  # what is found meanwhile is kept
    assert listed(database, clock) == ["1.1", "1.2", "1.3"]
    switch(database, clock, is_on=True)
    assert listed(database, clock) == ["1.2", "1.3", "1.1"]
    with database.transaction() as session, pytest.raises(PolicyChangeRefusedError, match="on"):
        switch_ai_prioritization(session, is_on=True, who="x", reason="y", now=clock())


def test_new_policy_moves_the_studies_that_are_there_and_rolls_back(
    database: Database, clock: ManualClock
) -> None:
    queue_runs(database, clock, "ROUTINE")
    finish(database, clock, run := held(database, clock))
    with database.transaction() as session:
        raise_for_findings(session, run.study_id, [("head-ct 1.0.0", FINDING)], at=clock())
    uid = run.study_instance_uid
    arrive(database, clock, "9.1")
    admit(database, clock, "9.1", EMERGENCY)
    assert study(database, uid).priority is Priority.STAT
    activate(database, clock, HIGH_IN_EMERGENCY)
    assert study(database, "9.1").priority is Priority.HIGH
    flagged = study(database, uid)
    assert (flagged.priority, flagged.ai_points) == (Priority.HIGH, 45)
    assert newest_event(database).reason == "policy 1 activated by Dr. Haus: the board"
    with database.transaction() as session:
        roll_back_to(session, 0, who="Dr. Haus", reason="too many", now=clock())
    rank_all(database, clock)
    assert study(database, "9.1").priority is Priority.ROUTINE
    assert study(database, uid).priority is Priority.STAT
    with database.reading() as session:
        assert [(e.action, e.version) for e in policy_events(session)] == [
            ("activated", 0),
            ("activated", 1),
        ]
        assert policy_in_force(session).version == 0


def test_change_between_activation_and_round_is_by_the_new_policy(
    database: Database, clock: ManualClock
) -> None:
    queue_runs(database, clock, "ROUTINE")
    finish(database, clock, run := held(database, clock))
    with database.transaction() as session:
        raise_for_findings(session, run.study_id, [("head-ct 1.0.0", FINDING)], at=clock())
        activate_policy(session, HIGH_IN_EMERGENCY, who="A", reason="B", now=clock())
    with database.transaction() as session:
        raise_by_hand(
            session, run.study_instance_uid, Priority.HIGH, who="C", reason="D", now=clock()
        )
    assert study(database, run.study_instance_uid).ai_priority is Priority.HIGH


def test_policy_is_refused_where_nobody_says_why_or_nothing_changes(
    database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        now = clock()
        with pytest.raises(PolicyChangeRefusedError, match=r"^reason: say why"):
            activate_policy(session, HIGH_IN_EMERGENCY, who="A", reason=" ", now=now)
        with pytest.raises(PolicyChangeRefusedError, match=r"^who: say who"):
            activate_policy(session, HIGH_IN_EMERGENCY, who="", reason="B", now=now)
        activate_policy(session, HIGH_IN_EMERGENCY, who="A", reason="B", now=now)
        with pytest.raises(PolicyChangeRefusedError, match="the same as version 1"):
            activate_policy(session, HIGH_IN_EMERGENCY, who="A", reason="B", now=now)
        with pytest.raises(UnknownPolicyVersionError, match="there is no policy 7"):
            roll_back_to(session, 7, who="A", reason="B", now=now)


def test_policy_that_this_version_does_not_understand_holds_up_no_study(
    database: Database, clock: ManualClock
) -> None:
    activate(database, clock, HIGH_IN_EMERGENCY)
    with database.transaction() as session:
        row = session.scalars(select(PolicyVersionRow)).one()
        row.document = {**row.document, "of_a_later_version": True}
    arrive(database, clock, "1.1", "HIGH")
    flag(database, clock, "1.1")
    assert study(database, "1.1").priority is Priority.STAT


def test_person_raises_a_study_as_an_order_would_and_takes_it_back(
    database: Database, clock: ManualClock
) -> None:
    arrive(database, clock, "1.1")
    with database.transaction() as session:
        raise_by_hand(
            session, "1.1", Priority.STAT, who="Dr. Haus", reason="the ward called", now=clock()
        )
    row = study(database, "1.1")
    assert (row.priority, row.order_priority, row.ai_priority) == (
        Priority.STAT,
        Priority.ROUTINE,
        None,
    )
    said = "raised to STAT by Dr. Haus: the ward called"
    with database.reading() as session:
        assert texts_of_kind(session, row.id, "raised") == [said]
        workitem = session.scalars(select(WorkitemRow)).one()
    assert workitem.priority == "HIGH"  # as STAT is called there (PS3.3 C.30.1)
    assert (newest_event(database).source, newest_event(database).reason) == ("person", said)
    switch(database, clock, is_on=False)
    assert study(database, "1.1").priority is Priority.STAT  # it is no AI's
    with database.transaction() as session:
        take_raise_back(session, "1.1", who="Dr. Haus", reason="wrong patient", now=clock())
    assert study(database, "1.1").priority is Priority.ROUTINE
    with database.transaction() as session, pytest.raises(RaiseRefusedError, match="nobody raised"):
        take_raise_back(session, "1.1", who="A", reason="B", now=clock())


def test_raise_that_makes_no_sense_is_refused(database: Database, clock: ManualClock) -> None:
    arrive(database, clock, "1.1", "STAT")
    arrive(database, clock, "1.2")
    with database.transaction() as session:
        mark_as_read(session, "1.2", now=clock())

        def refused(uid: str, match: str, who: str = "A", reason: str = "B") -> None:
            with pytest.raises(RaiseRefusedError, match=match):
                raise_by_hand(session, uid, Priority.STAT, who=who, reason=reason, now=clock())

        refused("1.1", "the order says STAT already")
        refused("1.2", "was read already")
        refused("1.2", r"^reason: ", reason="")
        refused("1.2", r"^who: ", who=" ")
        with pytest.raises(NoSuchStudyError):
            raise_by_hand(session, "9", Priority.STAT, who="A", reason="B", now=clock())


def test_study_that_is_put_back_on_the_list_follows_what_changed_meanwhile(
    database: Database, clock: ManualClock
) -> None:
    arrive(database, clock, "1.1")
    flag(database, clock, "1.1")
    with database.transaction() as session:
        mark_as_read(session, "1.1", now=clock())
    switch(database, clock, is_on=False)
    rank_all(database, clock)
    assert study(database, "1.1").priority is Priority.STAT
    with database.transaction() as session:
        mark_as_unread(session, "1.1", now=clock())
    assert study(database, "1.1").priority is Priority.ROUTINE


def test_long_wait_raises_a_study_when_its_time_comes(
    database: Database, clock: ManualClock
) -> None:
    activate(database, clock, parse_policy({"rises_after_minutes": {"routine": 60}}))
    arrive(database, clock, "1.1")
    clock.advance(59 * 60)
    rank_all(database, clock)
    assert study(database, "1.1").priority is Priority.ROUTINE
    clock.advance(60)
    rank_all(database, clock)
    assert study(database, "1.1").priority is Priority.HIGH
    assert newest_event(database).source == "waiting"


def test_waiting_runs_follow_their_study(database: Database, clock: ManualClock) -> None:
    queue_runs(database, clock, "ROUTINE", "ROUTINE", "HIGH")
    with database.reading() as session:
        runs = session.scalars(select(AnalysisRunRow).order_by(AnalysisRunRow.id)).all()
        second = next(run for run in runs[1:] if run.priority is Priority.ROUTINE)
        uid = session.get_one(StudyRow, second.study_id).study_instance_uid
    with database.transaction() as session:
        raise_by_hand(session, uid, Priority.STAT, who="A", reason="B", now=clock())
    claimed = claim(database, clock)
    assert claimed is not None
    assert claimed.study_instance_uid == uid


def test_studies_from_before_there_was_a_policy_get_their_place(
    database: Database, clock: ManualClock
) -> None:
    arrive(database, clock, "1.1")
    flag(database, clock, "1.1")
    with database.transaction() as session:
        session.execute(
            text("UPDATE studies SET ranked_by = -1, due_at = NULL, patient_class = 'E'")
        )
        assert is_ranking_due(session, clock())
    rank_all(database, clock)
    row = study(database, "1.1")
    assert (row.priority, row.points) == (Priority.STAT, 60)
    assert row.due_at == row.first_instance_at + timedelta(hours=1)


def test_reading_list_comes_out_of_the_index_in_its_order(database: Database) -> None:
    statement = (
        select(StudyRow.id)
        .where(StudyRow.read_at.is_(None), StudyRow.is_prior.is_(False))
        .order_by(*READING_ORDER)
        .limit(200)
    )
    sql = str(
        statement.compile(dialect=database.engine.dialect, compile_kwargs={"literal_binds": True})
    )
    with database.transaction() as session:
        if database.is_sqlite:
            plan = session.execute(text(f"EXPLAIN QUERY PLAN {sql}")).all()
        else:
            session.execute(text("SET LOCAL enable_seqscan = off"))
            plan = session.execute(text(f"EXPLAIN {sql}")).all()
    said = " ".join(str(line) for line in plan)
    assert "ix_studies_to_read" in said
    assert "sort" not in said.lower()
    assert "temp b-tree" not in said.lower()
