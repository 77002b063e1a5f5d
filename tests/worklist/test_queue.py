"""The order of the reading list, and what its lines say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from tests.tools import ManualClock
from tests.web.hospital import Hospital, hemorrhage
from triage.core.priority import Priority
from triage.store.database import Database
from triage.store.delivery_decisions import Decision, DeliveryNotDeadError, resend
from triage.store.files import InstanceFiles, StoredFile
from triage.store.outbox import claim_due_delivery, mark_not_delivered
from triage.store.prioritising import raise_ai_priority
from triage.store.runs import refuse_run
from triage.store.signals import Reference, create_step
from triage.store.studies import ReceivedInstance, record_instance
from triage.worklist.changes import ChangeToken, change_token, recent_changes
from triage.worklist.operations import operations
from triage.worklist.queue import WorklistEntry, count_worklist, reading_list, recently_read
from triage.worklist.reading import UnknownStudyError, mark_as_read, mark_as_unread
from triage.worklist.study_view import study_view


def listed(hospital: Hospital, **options: int) -> list[WorklistEntry]:
    with hospital.database.reading() as session:
        return reading_list(session, hospital.clock(), **options)


def record_bare_study(session: Session, order: str, clock: ManualClock) -> int:
    """Index a study of one instance without a file; the list looks at no file."""
    uid = generate_uid()
    received = ReceivedInstance(
        file=StoredFile("none", 1, uid[-64:].rjust(64, "0")),
        sop_instance_uid=uid,
        sop_class_uid="1.2",
        transfer_syntax_uid="1.2",
        study_instance_uid=generate_uid(),
        series_instance_uid=generate_uid(),
        calling_ae_title="CT1",
        received_at=clock(),
        modality="CT",
        requested_procedure_priority=order,
    )
    return record_instance(session, received).study_id


orders = st.lists(
    st.tuples(st.sampled_from(["", "LOW", "ROUTINE", "HIGH", "STAT"]), st.integers(0, 90)),
    min_size=1,
    max_size=7,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(orders=orders, flags=st.lists(st.tuples(st.integers(0, 6), st.sampled_from(Priority))))
def test_ai_flag_never_moves_a_study_down(
    sqlite_database: Database,
    orders: list[tuple[str, int]],
    flags: list[tuple[int, Priority]],
) -> None:
    clock = ManualClock()
    with Session(sqlite_database.engine) as session:
        ids = []
        for order, seconds in orders:
            clock.advance(seconds)
            ids.append(record_bare_study(session, order, clock))
        before = [e.study_instance_uid for e in reading_list(session, clock())]
        for index, wanted in flags:
            flagged = ids[index % len(ids)]
            raise_ai_priority(session, flagged, wanted, "Hemorrhage", at=clock())
            entries = reading_list(session, clock())
            after = [e.study_instance_uid for e in entries]
            moved = [uid for uid in after if after.index(uid) < before.index(uid)]
            assert len(moved) <= 1  # only the flagged one goes up
            others = [uid for uid in before if uid not in moved]
            assert [uid for uid in after if uid not in moved] == others
            assert all(e.priority >= e.order_priority for e in entries)
            assert [e.place for e in entries] == list(range(1, len(entries) + 1))
            before = after
        session.rollback()


def test_most_urgent_first_then_longest_waiting(hospital: Hospital) -> None:
    first = hospital.receive(*hospital.head_ct(slices=1))
    hospital.clock.advance(60)
    second = hospital.receive(*hospital.head_ct(slices=1))
    hospital.clock.advance(60)
    urgent = hospital.receive(*hospital.head_ct(slices=1, RequestedProcedurePriority="STAT"))
    low = hospital.receive(*hospital.head_ct(slices=1, RequestedProcedurePriority="LOW"))
    entries = listed(hospital)
    assert [e.study_instance_uid for e in entries] == [urgent, first, second, low]
    assert [e.place for e in entries] == [1, 2, 3, 4]
    assert entries[1].waiting_s == 120


def test_study_says_which_announced_images_have_not_come(hospital: Hospital) -> None:
    images = hospital.head_ct(slices=2)
    announced = [Reference(images[0].SeriesInstanceUID, i.SOPInstanceUID) for i in images]
    study = str(images[0].StudyInstanceUID)
    with hospital.database.transaction() as session:
        create_step(
            session, "9.1", [study], announced, calling_ae_title="CT1", now=hospital.clock()
        )
    hospital.receive(images[0])
    [entry] = listed(hospital)
    assert entry.status.text == "waiting for 1 of 2 images (MPPS)"
    hospital.receive(images[1])
    assert listed(hospital)[0].status.text == "receiving"
    hospital.complete(study)
    assert listed(hospital)[0].completion_reason == "association released"


def test_study_is_listed_with_its_first_image(hospital: Hospital) -> None:
    hospital.register_model()
    uid = hospital.receive(hospital.head_ct()[0])
    (entry,) = listed(hospital)
    assert entry.study_instance_uid == uid
    assert entry.status.text == "receiving"
    assert entry.patient_name == "Synthetic, Ada 1"
    assert entry.modalities == ("CT",)


def test_flagged_study_goes_up_with_reason_and_notice(hospital: Hospital) -> None:
    hospital.register_model()
    hospital.receive(*hospital.head_ct())
    hospital.clock.advance(10)
    uid = hospital.receive(*hospital.head_ct())
    hospital.complete(uid)
    run = hospital.claim()
    assert [e.status.text for e in listed(hospital)] == ["receiving", "being analysed"]
    hospital.find(run, hemorrhage())
    top = listed(hospital)[0]
    assert top.study_instance_uid == uid
    assert top.priority is Priority.STAT
    assert top.order_priority is Priority.ROUTINE
    assert top.reason == "Hemorrhage, 12.3 mL, confidence 0.97, head-ct-hemorrhage 1.0.0"
    assert top.notices == ("Trained on simulated lesions; not for clinical use",)
    assert top.status.text == "flagged"


def test_flag_stays_while_late_images_are_analysed_anew(hospital: Hospital) -> None:
    hospital.register_model()
    images = hospital.head_ct()
    uid = hospital.receive(*images[:3])
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage())
    hospital.receive(images[3])
    assert listed(hospital)[0].status.detail == "more images are arriving"
    hospital.complete(uid)
    (entry,) = listed(hospital)
    assert entry.status.kind == "flagged"
    assert entry.status.detail == "an analysis is still going on"
    assert entry.notices == ("Trained on simulated lesions; not for clinical use",)


def test_shadow_models_say_nothing_on_the_list(hospital: Hospital) -> None:
    hospital.register_model(stage="shadow")
    uid = hospital.receive(*hospital.head_ct())
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage())
    (entry,) = listed(hospital)
    assert entry.status.kind == "not-wanted"
    assert not entry.is_flagged
    assert entry.notices == ()


def test_refusal_and_routing_are_said_in_words(hospital: Hospital) -> None:
    hospital.register_model()
    wanted = hospital.receive(*hospital.head_ct())
    hospital.clock.advance(1)
    hospital.complete(wanted)
    run = hospital.claim()
    with hospital.database.transaction() as session:
        refuse_run(session, run, "2 slices are missing", now=hospital.clock())
    unwanted = hospital.receive(*hospital.head_ct(Modality="MR"))
    hospital.complete(unwanted)
    assert [e.status.text for e in listed(hospital)] == [
        "not analysed: 2 slices are missing (head-ct-hemorrhage 1.0.0)",
        "no model wants it: head-ct-hemorrhage 1.0.0: series Head 5 mm: modality MR, "
        "model accepts CT",
    ]


def test_reasons_of_an_earlier_state_of_the_study_no_longer_hold(hospital: Hospital) -> None:
    hospital.register_model()
    mr = hospital.head_ct(Modality="MR")
    uid = hospital.receive(*mr)
    hospital.complete(uid)
    hospital.clock.advance(30)
    hospital.receive(*hospital.head_ct(StudyInstanceUID=uid))
    hospital.clock.advance(30)
    hospital.complete(uid)
    assert [e.status.text for e in listed(hospital)] == ["waiting for analysis"]


def count_queries(engine: Engine, session: Session, clock: ManualClock) -> int:
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(engine, "before_cursor_execute", note)
    reading_list(session, clock())
    event.remove(engine, "before_cursor_execute", note)
    return len(statements)


def test_number_of_queries_does_not_grow_with_the_list(hospital: Hospital) -> None:
    hospital.register_model()
    counts = []
    for _ in range(2):
        for modality in ("CT", "MR", "CT"):
            hospital.complete(hospital.receive(*hospital.head_ct(slices=1, Modality=modality)))
        with hospital.database.reading() as session:
            counts.append(count_queries(hospital.database.engine, session, hospital.clock))
    assert counts[0] == counts[1] <= 9  # BEGIN is one on SQLite


def test_pages_continue_the_places(hospital: Hospital) -> None:
    for _ in range(5):
        hospital.receive(*hospital.head_ct(slices=1))
        hospital.clock.advance(1)
    assert [e.place for e in listed(hospital, limit=2, offset=2)] == [3, 4]


def test_read_studies_leave_the_list_and_can_be_put_back(hospital: Hospital) -> None:
    uid = hospital.receive(*hospital.head_ct())
    hospital.clock.advance(5)
    with hospital.database.transaction() as session:
        mark_as_read(session, uid, now=hospital.clock())
    assert listed(hospital) == []
    with hospital.database.reading() as session:
        (read,) = recently_read(session, hospital.clock())
    assert read.read_at == hospital.clock()
    with hospital.database.transaction() as session:
        mark_as_unread(session, uid, now=hospital.clock())
    assert [e.study_instance_uid for e in listed(hospital)] == [uid]
    with hospital.database.reading() as session:
        view = study_view(session, uid, hospital.clock())
    assert view is not None
    assert [e.kind for e in view.history] == ["received", "read", "unread"]


def test_unknown_study_cannot_be_read(hospital: Hospital) -> None:
    with (
        hospital.database.transaction() as session,
        pytest.raises(UnknownStudyError, match=r"1\.2\.3"),
    ):
        mark_as_read(session, "1.2.3", now=hospital.clock())


def test_images_that_come_after_the_reading_are_pointed_out(hospital: Hospital) -> None:
    images = hospital.head_ct()
    uid = hospital.receive(*images[:3])
    hospital.clock.advance(5)
    with hospital.database.transaction() as session:
        mark_as_read(session, uid, now=hospital.clock())
    hospital.clock.advance(5)
    hospital.receive(images[3])
    with hospital.database.reading() as session:
        assert count_worklist(session, hospital.clock()).changed_after_reading == 1
        (read,) = recently_read(session, hospital.clock())
    assert read.changed_after_reading == "images arrived after it was read"


def test_flag_that_comes_after_the_reading_is_pointed_out(hospital: Hospital) -> None:
    hospital.register_model()
    uid = hospital.receive(*hospital.head_ct())
    hospital.complete(uid)
    run = hospital.claim()
    hospital.clock.advance(5)
    with hospital.database.transaction() as session:
        mark_as_read(session, uid, now=hospital.clock())
    hospital.clock.advance(5)
    hospital.find(run, hemorrhage())
    with hospital.database.reading() as session:
        (read,) = recently_read(session, hospital.clock())
    assert read.changed_after_reading == "flagged after it was read"


def test_counts(hospital: Hospital) -> None:
    hospital.register_model()
    uid = hospital.receive(*hospital.head_ct())
    hospital.complete(uid)
    hospital.find(hospital.claim(), hemorrhage())
    hospital.receive(*hospital.head_ct(RequestedProcedurePriority="HIGH"))
    with hospital.database.reading() as session:
        counts = count_worklist(session, hospital.clock())
    assert (counts.total, counts.flagged) == (2, 1)
    assert counts.by_priority == {"stat": 1, "high": 1, "routine": 0, "low": 0}


def test_change_token_follows_every_line_of_history(hospital: Hospital) -> None:
    with hospital.database.reading() as session:
        empty = change_token(session)
    assert empty == ChangeToken()
    uid = hospital.receive(*hospital.head_ct())
    with hospital.database.reading() as session:
        token = change_token(session)
        assert token != empty
        assert change_token(session) == token
        (change,) = recent_changes(session, token, empty)
    assert (change.study_instance_uid, change.kind) == (uid, "received")


def test_line_that_is_committed_late_changes_the_token(postgresql_database: Database) -> None:
    """A transaction that took its id first may commit last, below the newest id."""
    clock = ManualClock()
    with postgresql_database.transaction() as slow:
        record_bare_study(slow, "", clock)
        with postgresql_database.transaction() as quick:
            record_bare_study(quick, "", clock)
        with postgresql_database.reading() as session:
            between = change_token(session)
    with postgresql_database.reading() as session:
        after = change_token(session)
        kinds = [c.kind for c in recent_changes(session, after, between)]
    assert after.newest_event_id == between.newest_event_id
    assert after != between
    assert kinds == ["received", "received"]


def test_dead_delivery_is_seen_and_sent_again(hospital: Hospital) -> None:
    hospital.register_model()
    uid = hospital.receive(*(images := hospital.head_ct()))
    hospital.complete(uid)
    report = images[0].copy()
    report.Modality, report.SOPInstanceUID = "SR", generate_uid()
    report.SeriesInstanceUID = generate_uid()
    hospital.finish(hospital.claim(), hemorrhage(), objects=[report])
    delivery_id = kill_delivery(hospital)
    with hospital.database.transaction() as session:
        state = operations(session, hospital.clock())
        assert state.deliveries["dead"] == 1
        assert state.stuck[0].delivery.last_error == "A700"
        assert state.stuck[0].study_instance_uid == uid
        resend(session, delivery_id, Decision("A. Grey", hospital.clock()))
    with hospital.database.transaction() as session:
        assert operations(session, hospital.clock()).deliveries["waiting"] == 1
        with pytest.raises(DeliveryNotDeadError, match="is waiting"):
            resend(session, delivery_id, Decision("A. Grey", hospital.clock()))


def kill_delivery(hospital: Hospital) -> int:

    with hospital.database.transaction() as session:
        due = claim_due_delivery(session, lease=timedelta(seconds=5), now=hospital.clock())
        assert due is not None
        mark_not_delivered(session, due, "A700", retry_after=None, now=hospital.clock())
        return due.delivery_id


def test_study_view_tells_all(hospital: Hospital, files: InstanceFiles) -> None:
    hospital.register_model()
    images = hospital.head_ct()
    uid = hospital.receive(*reversed(images))
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage(key_image_uids=[images[1].SOPInstanceUID]))
    with hospital.database.reading() as session:
        view = study_view(session, uid, hospital.clock())
    assert view is not None
    (series,) = view.series
    assert [i.sop_instance_uid for i in series.images] == [i.SOPInstanceUID for i in images]
    (finding,) = view.findings
    assert finding.measurements == ("Volume 12.3 mL",)
    assert finding.key_image_uids == (images[1].SOPInstanceUID,)
    assert view.runs[0].state == "completed"
    assert view.history[0].kind == "received"
    assert "flagged" in [e.kind for e in view.history]
