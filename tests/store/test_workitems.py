"""Workitems in the database: with the study, under a lock, and the events for subscribers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from tests.store.rows import received
from tests.tools import ManualClock
from triage.core.dicom_json import code_item, element, items_of, text_of
from triage.core.orders import Order, PatientIdentifier, PatientUpdate
from triage.core.priority import Priority
from triage.core.runs import StudyState
from triage.core.workitem_attributes import (
    COMMENTS,
    INPUT_INFORMATION,
    INTERPRETATION,
    LABEL,
    PERFORMED,
    PRIORITY,
    PROGRESS,
    READINESS,
    REPLACED,
    START,
    STATE,
    WORKLIST_LABEL,
    EventType,
    date_time,
)
from triage.core.workitems import StepState, UpsStatus, WorkitemError
from triage.settings import load_settings
from triage.store.database import Database
from triage.store.orders import keep_order
from triage.store.patients import update_patient
from triage.store.prioritising import raise_ai_priority
from triage.store.studies import complete_study, record_instance
from triage.store.study_workitems import end_forsaken, forget_workitems, schedule_what_has_none
from triage.store.tables import StudyEventRow, StudyRow
from triage.store.workitem_events import (
    Subscriber,
    claim_events,
    has_due_events,
    mark_not_told,
    mark_told,
    release_claims,
    tell_of_restart,
)
from triage.store.workitem_subscriptions import subscribe, subscribe_globally, suspend, unsubscribe
from triage.store.workitem_tables import (
    Channel,
    GlobalSubscriptionRow,
    WorkitemEventRow,
    WorkitemRow,
    WorkitemSubscriptionRow,
)
from triage.store.workitem_views import Presentation
from triage.store.workitems import (
    change_state,
    create_workitem,
    find_workitems,
    purge_finished,
    read_workitem,
    request_cancel,
    update_workitem,
)
from triage.worklist.reading import mark_as_read, mark_as_unread

READER = "READER"
WATCHER = Subscriber("WATCHER", Channel.DIMSE)
SHOWN = Presentation("Triage", "TRIAGE", "https://pacs.example/dicom-web")


def a_study(database: Database, clock: ManualClock, study: str = "1.2.3", **values: Any) -> None:
    """Two images of a study have come."""
    with database.transaction() as session:
        for number in (1, 2):
            record_instance(
                session, received(clock(), study=study, number=number, **values), lambda _: True
            )


def complete(database: Database, clock: ManualClock, study: str = "1.2.3") -> None:
    with database.transaction() as session:
        row = session.scalars(select(StudyRow).where(StudyRow.study_instance_uid == study)).one()
        complete_study(session, row, "nothing came any more", clock())


def flag(database: Database, clock: ManualClock, priority: Priority = Priority.STAT) -> None:
    with database.transaction() as session:
        study_id = session.scalars(select(StudyRow.id)).one()
        raise_ai_priority(session, study_id, priority, "Hemorrhage", at=clock())


def workitems(database: Database) -> list[WorkitemRow]:
    with database.reading() as session:
        return list(session.scalars(select(WorkitemRow).order_by(WorkitemRow.id)))


def events(database: Database) -> list[tuple[str, int, str]]:
    """Return to whom what is to be told, and the state that is reported."""
    with database.reading() as session:
        rows = session.scalars(select(WorkitemEventRow).order_by(WorkitemEventRow.id))
        return [(r.ae_title, r.event_type, text_of(r.information, STATE)) for r in rows]


def claim(database: Database, clock: ManualClock, uid: str, transaction_uid: str = "1.9") -> None:
    with database.transaction() as session:
        change_state(
            session,
            uid,
            StepState.IN_PROGRESS,
            transaction_uid=transaction_uid,
            requester=READER,
            now=clock(),
        )


def performed(now: str) -> dict[str, Any]:
    """Return what a workstation says at the end of reading."""
    station = {"00080100": element("SH", "WS1"), "00080102": element("SH", "99HOSP")}
    item = {
        "00404028": element("SQ", {**station, "00080104": element("LO", "Workstation 1")}),
        "00404019": element("SQ", code_item(INTERPRETATION)),
        "00404050": element("DT", now),
        "00404051": element("DT", now),
        "00404033": element("SQ"),
    }
    return {PERFORMED: element("SQ", item)}


def finish(database: Database, clock: ManualClock, uid: str, state: StepState) -> UpsStatus:
    with database.transaction() as session:
        update_workitem(
            session,
            uid,
            performed(date_time(clock())),
            transaction_uid="1.9",
            now=clock(),
        )
        return change_state(
            session, uid, state, transaction_uid="1.9", requester=READER, now=clock()
        )


def order(**changes: Any) -> dict[str, Any]:
    """Return a creation that has everything it needs."""
    given = {
        PRIORITY: element("CS", "MEDIUM"),
        LABEL: element("LO", "Second look"),
        START: element("DT", "20260301120000"),
        READINESS: element("CS", "READY"),
        STATE: element("CS", "SCHEDULED"),
    }
    return {**given, **changes}


def test_complete_study_has_one_workitem_that_says_what_is_to_be_read(
    database: Database, clock: ManualClock
) -> None:
    a_study(database, clock, study_description="CT head", accession_number="A1")
    assert workitems(database) == []
    complete(database, clock)
    (row,) = workitems(database)
    with database.reading() as session:
        shown = read_workitem(session, row.sop_instance_uid, SHOWN, with_inputs=True)
    assert row.state is StepState.SCHEDULED
    assert text_of(shown, PRIORITY) == "MEDIUM"
    assert text_of(shown, LABEL) == "Read CT head"
    assert text_of(shown, READINESS) == "READY"
    assert text_of(shown, WORKLIST_LABEL) == "Triage"
    assert text_of(shown, "00100020") == "P1"
    (request,) = items_of(shown, "0040A370")
    assert text_of(request, "00080050") == "A1"
    (series,) = items_of(shown, INPUT_INFORMATION)
    assert len(items_of(series, "00081199")) == 2
    (wado,) = items_of(series, "0040E025")
    assert text_of(wado, "00081190") == (
        "https://pacs.example/dicom-web/studies/1.2.3/series/1.2.3.1"
    )
    assert text_of(items_of(series, "0040E021")[0], "00080054") == "TRIAGE"
    assert "00081195" not in shown


@pytest.mark.parametrize(
    ("order_says", "expected"),
    [("STAT", "HIGH"), ("HIGH", "HIGH"), ("ROUTINE", "MEDIUM"), ("", "MEDIUM"), ("LOW", "LOW")],
)
def test_priority_follows_the_order(
    sqlite_database: Database, clock: ManualClock, order_says: str, expected: str
) -> None:
    a_study(sqlite_database, clock, requested_procedure_priority=order_says)
    complete(sqlite_database, clock)
    assert [str(row.priority) for row in workitems(sqlite_database)] == [expected]


def test_workitem_follows_what_order_and_administration_say_later(
    database: Database, clock: ManualClock
) -> None:
    a_study(database, clock, accession_number="A1", study_date="20260101")
    complete(database, clock)
    clock.advance(60)
    patient = (PatientIdentifier("P1"),)
    stat = Order("RIS", clock(), accession_number="A1", identifiers=patient, priority=Priority.STAT)
    corrected = PatientUpdate("ADT", patient, name="Corrected^Name")
    with database.transaction() as session:
        keep_order(session, stat, now=clock())
        update_patient(session, corrected, assigning_authority="", now=clock())
    (row,) = workitems(database)
    assert str(row.priority) == "HIGH"
    assert row.attributes["00100010"]["Value"] == [{"Alphabetic": "Corrected^Name"}]


def test_flag_makes_the_workitem_while_the_study_still_arrives(
    database: Database, clock: ManualClock
) -> None:
    a_study(database, clock)
    flag(database, clock)
    (row,) = workitems(database)
    assert (row.priority, text_of(row.attributes, READINESS)) == ("HIGH", "INCOMPLETE")
    assert text_of(row.attributes, COMMENTS) == "STAT: Hemorrhage"
    complete(database, clock)
    (row,) = workitems(database)
    assert (row.priority, text_of(row.attributes, READINESS)) == ("HIGH", "READY")


def test_raised_priority_is_told_to_who_is_subscribed(
    database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        subscribe_globally(
            session,
            WATCHER,
            deletion_lock=False,
            filter_keys=None,
            worklist_label="Triage",
            now=clock(),
        )
    a_study(database, clock)
    complete(database, clock)
    flag(database, clock)
    with database.transaction() as session:
        told = claim_events(session, lease=timedelta(seconds=30), now=clock())
    assert [event.event_type for event in told] == [EventType.STATE_REPORT] * 2
    assert [text_of(event.information, PRIORITY) for event in told] == ["MEDIUM", "HIGH"]
    assert {text_of(event.information, STATE) for event in told} == {"SCHEDULED"}


def test_late_image_makes_the_input_incomplete_until_the_study_is_complete_again(
    database: Database, clock: ManualClock
) -> None:
    a_study(database, clock)
    complete(database, clock)
    with database.transaction() as session:
        record_instance(session, received(clock(), number=3), lambda _: True)
    (row,) = workitems(database)
    assert text_of(row.attributes, READINESS) == "INCOMPLETE"
    complete(database, clock)
    (row,) = workitems(database)
    with database.reading() as session:
        shown = read_workitem(session, row.sop_instance_uid, SHOWN, with_inputs=True)
    assert text_of(shown, READINESS) == "READY"
    assert len(items_of(items_of(shown, INPUT_INFORMATION)[0], "00081199")) == 3


def test_study_marked_as_read_cancels_an_unclaimed_workitem_and_a_new_one_replaces_it(
    database: Database, clock: ManualClock
) -> None:
    a_study(database, clock)
    complete(database, clock)
    with database.transaction() as session:
        mark_as_read(session, "1.2.3", now=clock())
    (first,) = workitems(database)
    assert first.state is StepState.CANCELED
    (progress,) = items_of(first.attributes, PROGRESS)
    assert "marked as read" in text_of(progress, "00741238")
    assert text_of(items_of(progress, "0074100E")[0], "00080100") == "110513"
    with database.transaction() as session:
        mark_as_unread(session, "1.2.3", now=clock())
    _, second = workitems(database)
    assert second.state is StepState.SCHEDULED
    (replaced,) = items_of(second.attributes, REPLACED)
    assert text_of(replaced, "00081155") == first.sop_instance_uid


def test_study_marked_as_read_asks_the_performer_to_cancel_a_claimed_workitem(
    database: Database, clock: ManualClock
) -> None:
    a_study(database, clock)
    complete(database, clock)
    (row,) = workitems(database)
    claim(database, clock, row.sop_instance_uid)
    with database.transaction() as session:
        subscribe(session, WATCHER, row.sop_instance_uid, deletion_lock=False, now=clock())
        mark_as_read(session, "1.2.3", now=clock())
    assert workitems(database)[0].state is StepState.IN_PROGRESS
    assert [event[1] for event in events(database)] == [
        EventType.STATE_REPORT,
        EventType.CANCEL_REQUESTED,
    ]


def test_claimed_workitem_of_a_study_that_was_read_long_ago_is_cancelled(
    database: Database, clock: ManualClock
) -> None:
    a_study(database, clock)
    complete(database, clock)
    (row,) = workitems(database)
    claim(database, clock, row.sop_instance_uid)
    with database.transaction() as session:
        mark_as_read(session, "1.2.3", now=clock())
        assert end_forsaken(session, clock() - timedelta(seconds=1), clock()) == 0
        assert end_forsaken(session, clock(), clock()) == 1
    assert workitems(database)[0].state is StepState.CANCELED


def test_completed_workitem_marks_the_study_as_read(database: Database, clock: ManualClock) -> None:
    a_study(database, clock)
    complete(database, clock)
    (row,) = workitems(database)
    claim(database, clock, row.sop_instance_uid)
    assert finish(database, clock, row.sop_instance_uid, StepState.COMPLETED) is UpsStatus.SUCCESS
    with database.reading() as session:
        assert session.scalars(select(StudyRow.read_at)).one() == clock()
        lines = session.scalars(select(StudyEventRow.text).where(StudyEventRow.kind == "read"))
        assert lines.all() == ["read: its workitem was completed by READER"]


def test_cancelled_workitem_leaves_the_study_on_the_worklist_and_a_flag_makes_another(
    database: Database, clock: ManualClock
) -> None:
    a_study(database, clock)
    complete(database, clock)
    (row,) = workitems(database)
    claim(database, clock, row.sop_instance_uid)
    finish(database, clock, row.sop_instance_uid, StepState.CANCELED)
    with database.reading() as session:
        assert session.scalars(select(StudyRow.read_at)).one() is None
    flag(database, clock)
    assert [w.state for w in workitems(database)] == [StepState.CANCELED, StepState.SCHEDULED]


def test_final_state_needs_what_was_performed(database: Database, clock: ManualClock) -> None:
    a_study(database, clock)
    complete(database, clock)
    (row,) = workitems(database)
    claim(database, clock, row.sop_instance_uid)
    with database.transaction() as session, pytest.raises(WorkitemError) as refusal:
        change_state(
            session,
            row.sop_instance_uid,
            StepState.COMPLETED,
            transaction_uid="1.9",
            requester=READER,
            now=clock(),
        )
    assert refusal.value.status is UpsStatus.FINAL_STATE_NOT_MET
    assert "(0074,1216)" in str(refusal.value)


def test_of_many_that_claim_at_once_one_wins(database: Database, clock: ManualClock) -> None:
    a_study(database, clock)
    complete(database, clock)
    (row,) = workitems(database)

    def try_to_claim(number: int) -> UpsStatus:
        try:
            claim(database, clock, row.sop_instance_uid, f"1.9.{number}")
        except WorkitemError as refusal:
            return refusal.status
        return UpsStatus.SUCCESS

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(try_to_claim, range(8)))
    assert outcomes.count(UpsStatus.SUCCESS) == 1
    assert outcomes.count(UpsStatus.WRONG_TRANSACTION_UID) == 7
    (row,) = workitems(database)
    assert row.transaction_uid == f"1.9.{outcomes.index(UpsStatus.SUCCESS)}"


def test_client_may_raise_a_studys_priority_but_not_lower_it(
    database: Database, clock: ManualClock
) -> None:
    a_study(database, clock)
    complete(database, clock)
    (row,) = workitems(database)

    def ask_for(priority: str) -> UpsStatus:
        with database.transaction() as session:
            return update_workitem(
                session,
                row.sop_instance_uid,
                {PRIORITY: element("CS", priority)},
                transaction_uid="",
                now=clock(),
            )

    assert ask_for("LOW") is UpsStatus.COERCED
    assert workitems(database)[0].priority == "MEDIUM"
    assert ask_for("HIGH") is UpsStatus.SUCCESS
    with database.transaction() as session:
        record_instance(session, received(clock(), number=3), lambda _: True)
    assert workitems(database)[0].priority == "HIGH"


def test_request_to_cancel_ends_what_nobody_claimed_and_is_told_to_who_performs(
    database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        create_workitem(session, "1.5.1", order(), now=clock())
        create_workitem(session, "1.5.2", order(), now=clock())
        subscribe(session, WATCHER, "1.5.1", deletion_lock=False, now=clock())
    reason = {"00741238": element("LT", "ordered twice")}

    def ask(uid: str) -> UpsStatus:
        with database.transaction() as session:
            return request_cancel(
                session, uid, reason, requester=READER, own_uid="1.8", now=clock()
            )

    claim(database, clock, "1.5.2")
    with pytest.raises(WorkitemError) as refusal:
        ask("1.5.2")
    assert refusal.value.status is UpsStatus.PERFORMER_OUT_OF_REACH
    assert ask("1.5.1") is UpsStatus.SUCCESS
    assert ask("1.5.1") is UpsStatus.ALREADY_CANCELED
    assert [event[2] for event in events(database)] == ["SCHEDULED", "IN PROGRESS", "CANCELED"]


def test_creation_says_what_is_missing_and_fills_in_what_may_be_empty(
    sqlite_database: Database, clock: ManualClock
) -> None:
    with sqlite_database.transaction() as session:
        status = create_workitem(session, "1.5.1", order(), now=clock())
        assert status is UpsStatus.CREATED_WITH_MODIFICATIONS
    wrong = [
        ({PRIORITY: element("CS")}, UpsStatus.MISSING_ATTRIBUTE_VALUE, "(0074,1200)"),
        ({PRIORITY: element("CS", "STAT")}, UpsStatus.INVALID_ATTRIBUTE_VALUE, "HIGH"),
        ({STATE: element("CS", "COMPLETED")}, UpsStatus.NOT_CREATED_AS_SCHEDULED, "SCHEDULED"),
        ({"00081195": element("UI", "1.9")}, UpsStatus.INVALID_ATTRIBUTE_VALUE, "(0008,1195)"),
    ]
    for changes, expected, named in wrong:
        with sqlite_database.transaction() as session, pytest.raises(WorkitemError) as refusal:
            create_workitem(session, "1.5.3", order(**changes), now=clock())
        assert refusal.value.status is expected
        assert named in str(refusal.value)
    without_label = order()
    del without_label[LABEL]
    with sqlite_database.transaction() as session, pytest.raises(WorkitemError) as refusal:
        create_workitem(session, "1.5.3", without_label, now=clock())
    assert refusal.value.status is UpsStatus.MISSING_ATTRIBUTE
    with sqlite_database.transaction() as session, pytest.raises(WorkitemError) as refusal:
        create_workitem(session, "1.5.1", order(), now=clock())
    assert refusal.value.status is UpsStatus.DUPLICATE_INSTANCE


def test_filtered_subscription_takes_what_matches_now_and_later(
    database: Database, clock: ManualClock
) -> None:
    urgent = {PRIORITY: element("CS", "HIGH"), WORKLIST_LABEL: element("LO", "Tri*")}
    with database.transaction() as session:
        create_workitem(session, "1.5.1", order(), now=clock())
        create_workitem(session, "1.5.2", order(**{PRIORITY: element("CS", "HIGH")}), now=clock())
        subscribe_globally(
            session,
            WATCHER,
            deletion_lock=True,
            filter_keys=urgent,
            worklist_label="Triage",
            now=clock(),
        )
        create_workitem(session, "1.5.3", order(**{PRIORITY: element("CS", "HIGH")}), now=clock())
        other = order(**{PRIORITY: element("CS", "HIGH"), WORKLIST_LABEL: element("LO", "Other")})
        create_workitem(session, "1.5.4", other, now=clock())
    with database.reading() as session:
        told = session.scalars(
            select(WorkitemEventRow.sop_instance_uid).order_by(WorkitemEventRow.id)
        ).all()
    assert told == ["1.5.2", "1.5.3"]


def test_suspended_subscription_keeps_what_it_had_and_unsubscribing_ends_all(
    database: Database, clock: ManualClock
) -> None:
    def subscribed() -> int:
        with database.reading() as session:
            return len(session.scalars(select(WorkitemSubscriptionRow.id)).all())

    with database.transaction() as session:
        create_workitem(session, "1.5.1", order(), now=clock())
        subscribe_globally(
            session,
            WATCHER,
            deletion_lock=False,
            filter_keys=None,
            worklist_label="",
            now=clock(),
        )
        suspend(session, "WATCHER", "1.2.840.10008.5.1.4.34.5")
        create_workitem(session, "1.5.2", order(), now=clock())
        with pytest.raises(WorkitemError) as refusal:
            suspend(session, "WATCHER", "1.5.1")
    assert refusal.value.status is UpsStatus.WRONG_ACTION_FOR_INSTANCE
    assert subscribed() == 1
    with database.transaction() as session:
        unsubscribe(session, "WATCHER", "1.2.840.10008.5.1.4.34.5")
    assert subscribed() == 0


def test_subscriber_that_is_away_is_told_in_order_when_it_is_back(
    database: Database, clock: ManualClock
) -> None:
    lease = timedelta(seconds=30)
    with database.transaction() as session:
        for number in (1, 2):
            create_workitem(session, f"1.5.{number}", order(), now=clock())
            subscribe(session, WATCHER, f"1.5.{number}", deletion_lock=False, now=clock())
            other = Subscriber("OTHER", Channel.DIMSE)
            subscribe(session, other, f"1.5.{number}", deletion_lock=False, now=clock())
    with database.transaction() as session:
        first = claim_events(session, lease=lease, now=clock())
        second = claim_events(session, lease=lease, now=clock())
        assert claim_events(session, lease=lease, now=clock()) == []
        assert {first[0].ae_title, second[0].ae_title} == {"WATCHER", "OTHER"}
        away, here = (first, second) if first[0].ae_title == "WATCHER" else (second, first)
        mark_told(session, [event.event_id for event in here], now=clock())
        retry = timedelta(seconds=60)
        given_up = mark_not_told(
            session, away, "away", retry_after=retry, maximum_attempts=2, now=clock()
        )
        assert given_up == 0
        subscribe(session, WATCHER, "1.5.1", deletion_lock=True, now=clock())
        # What is new waits behind what is old.
        assert claim_events(session, lease=lease, now=clock()) == []
    clock.advance(60)
    with database.transaction() as session:
        assert has_due_events(session, clock())
        again = claim_events(session, lease=lease, now=clock())
        assert [event.sop_instance_uid for event in again] == ["1.5.1", "1.5.2", "1.5.1"]
        given_up = mark_not_told(
            session, again, "away", retry_after=retry, maximum_attempts=2, now=clock()
        )
    assert given_up == 2


def test_restarted_receiver_tells_at_once_what_it_was_telling_when_it_was_killed(
    database: Database, clock: ManualClock
) -> None:
    lease = timedelta(seconds=180)
    with database.transaction() as session:
        create_workitem(session, "1.5.1", order(), now=clock())
        subscribe(session, WATCHER, "1.5.1", deletion_lock=False, now=clock())
        assert len(claim_events(session, lease=lease, now=clock(), holder="killed")) == 1
        release_claims(session, "another", clock())
        assert claim_events(session, lease=lease, now=clock()) == []
        release_claims(session, "killed", clock())
        assert len(claim_events(session, lease=lease, now=clock())) == 1


def test_ended_workitem_stays_as_long_as_somebody_needs_it(
    database: Database, clock: ManualClock
) -> None:
    a_study(database, clock)
    complete(database, clock)
    (of_study,) = workitems(database)
    with database.transaction() as session:
        for uid in ("1.5.1", "1.5.2"):
            create_workitem(session, uid, order(), now=clock())
        subscribe(session, WATCHER, "1.5.1", deletion_lock=True, now=clock())
        subscribe(session, WATCHER, "1.5.2", deletion_lock=False, now=clock())
        for uid in (of_study.sop_instance_uid, "1.5.1", "1.5.2"):
            request_cancel(session, uid, {}, requester=READER, own_uid="1.8", now=clock())
    clock.advance(100)
    with database.transaction() as session:
        assert purge_finished(session, clock()) == 1
    assert {row.sop_instance_uid for row in workitems(database)} == {
        of_study.sop_instance_uid,
        "1.5.1",
    }
    with database.transaction() as session:
        unsubscribe(session, "WATCHER", "1.5.1")
        mark_as_read(session, "1.2.3", now=clock())
        assert purge_finished(session, clock()) == 2
    assert workitems(database) == []


def test_search_narrows_in_the_database_and_gives_the_urgent_ones_first(
    database: Database, clock: ManualClock
) -> None:
    a_study(database, clock)
    complete(database, clock)
    with database.transaction() as session:
        create_workitem(session, "1.5.1", order(**{PRIORITY: element("CS", "HIGH")}), now=clock())
        create_workitem(session, "1.5.2", order(**{PRIORITY: element("CS", "LOW")}), now=clock())

    def found(**keys: Any) -> list[str]:
        with database.reading() as session:
            matching = find_workitems(session, keys, SHOWN, with_inputs=False)
            return [text_of(one, PRIORITY) for one in matching]

    assert found() == ["HIGH", "MEDIUM", "LOW"]
    assert found(**{STATE: element("CS", "SCHEDULED")}) == ["HIGH", "MEDIUM", "LOW"]
    assert found(**{STATE: element("CS", "COMPLETED")}) == []
    assert found(**{"0020000D": element("UI", "1.2.3")}) == ["MEDIUM"]
    assert found(**{WORKLIST_LABEL: element("LO", "Triage")}) == ["HIGH", "MEDIUM", "LOW"]
    code = element("SQ", {"00080100": element("SH", "110005")})
    assert found(**{"00404018": code}) == ["MEDIUM"]


def test_studies_from_before_get_their_workitems(database: Database, clock: ManualClock) -> None:
    a_study(database, clock)
    complete(database, clock)
    with database.transaction() as session:
        forget_workitems(session, session.scalars(select(StudyRow.id)).one())
        assert schedule_what_has_none(session, clock()) == 1
        assert schedule_what_has_none(session, clock()) == 0
        session.execute(update(StudyRow).values(read_at=clock()))
    assert len(workitems(database)) == 1


def test_what_goes_wrong_with_a_workitem_keeps_no_study_from_completing_and_no_flag_from_rising(
    database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        session.add(
            GlobalSubscriptionRow(
                ae_title="WATCHER",
                is_filtered=True,
                filter_keys={START: element("DT", "no date")},  # no request could leave that
                channel=Channel.DIMSE,
                has_deletion_lock=False,
            )
        )
    a_study(database, clock)
    complete(database, clock)
    flag(database, clock)
    assert workitems(database) == []
    with database.transaction() as session:
        study = session.scalars(select(StudyRow)).one()
        assert (study.state, study.priority) == (StudyState.COMPLETE, Priority.STAT)
        mark_as_read(session, "1.2.3", now=clock())
        mark_as_unread(session, "1.2.3", now=clock())
        assert schedule_what_has_none(session, clock()) == 0
        unsubscribe(session, "WATCHER", "1.2.840.10008.5.1.4.34.5.1")
        assert schedule_what_has_none(session, clock()) == 1
    assert [row.priority for row in workitems(database)] == ["HIGH"]


def test_restart_is_told_once_to_everybody(database: Database, clock: ManualClock) -> None:
    with database.transaction() as session:
        create_workitem(session, "1.5.1", order(), now=clock())
        subscribe(session, WATCHER, "1.5.1", deletion_lock=False, now=clock())
        tell_of_restart(session, clock())
        tell_of_restart(session, clock())
    assert [event[1] for event in events(database)] == [1, EventType.SCP_STATUS_CHANGE]


def test_settings_say_where_the_images_are() -> None:
    ups = {"retrieve_url": "https://pacs.example/rs/", "worklist_label": "Night"}
    assert Presentation.of(load_settings(ups=ups)) == Presentation(
        "Night", "TRIAGE", "https://pacs.example/rs"
    )
