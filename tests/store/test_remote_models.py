"""What remote models are asked, on both databases."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select

from tests.store.rows import received
from tests.tools import ManualClock
from triage.core.manifest import InputSpec
from triage.core.remote import RemoteState
from triage.settings import RemoteModelSettings
from triage.store import remote_models as store
from triage.store.database import Database
from triage.store.studies import complete_study, find_study, record_instance
from triage.store.tables import RemoteAnalysisRow, StudyRow

MODEL = RemoteModelSettings(
    name="bleed-finder",
    remote="vendor",
    accepts=InputSpec(modalities=("CT",)),
    results_from="VENDOR",
)
LEASE = timedelta(minutes=30)


def pseudonym(uid: str) -> str:
    return f"2.25.{uid.replace('.', '')}"


def complete(database: Database, clock: ManualClock, study: str, **changes: object) -> None:
    """Receive two slices of a study, and complete it."""
    with database.transaction() as session:
        for number in (1, 2):
            record_instance(session, received(clock(), study=study, number=number, **changes))
        row = find_study(session, study)
        assert row is not None
        complete_study(session, row, "the test says so", clock())


def ask(database: Database, clock: ManualClock) -> int:
    with database.transaction() as session:
        return store.ask_about_new_studies(session, MODEL, pseudonym=pseudonym, now=clock())


def claim(database: Database, clock: ManualClock) -> store.DueImages | None:
    with database.transaction() as session:
        return store.claim_images(session, MODEL, lease=LEASE, now=clock())


def states(database: Database) -> list[RemoteState]:
    with database.reading() as session:
        return list(session.scalars(select(RemoteAnalysisRow.state).order_by(RemoteAnalysisRow.id)))


def test_each_study_is_asked_about_once_for_each_state_of_it(
    database: Database, clock: ManualClock
) -> None:
    complete(database, clock, "1.2.3")
    complete(database, clock, "1.2.4", modality="MR")
    assert ask(database, clock) == 2
    assert ask(database, clock) == 0
    assert states(database) == [RemoteState.WAITING, RemoteState.REFUSED]
    with database.transaction() as session:
        record_instance(session, received(clock(), study="1.2.3", number=3))
        row = find_study(session, "1.2.3")
        assert row is not None
        complete_study(session, row, "a late image", clock())
    assert ask(database, clock) == 1


def test_a_study_from_before_is_left_alone(database: Database, clock: ManualClock) -> None:
    complete(database, clock, "1.2.3")
    clock.advance(25 * 3600)
    assert ask(database, clock) == 0


def test_the_most_urgent_study_goes_first_and_a_lost_claim_comes_again(
    database: Database, clock: ManualClock
) -> None:
    complete(database, clock, "1.2.3")
    complete(database, clock, "1.2.4", requested_procedure_priority="STAT")
    ask(database, clock)
    urgent, other = claim(database, clock), claim(database, clock)
    assert urgent is not None
    assert other is not None
    with database.reading() as session:
        row = session.get_one(RemoteAnalysisRow, urgent.analysis_id)
        assert row.study.study_instance_uid == "1.2.4"
    assert len(urgent.paths) == 2
    assert len(urgent.contexts) == 1
    assert claim(database, clock) is None
    clock.advance(LEASE.total_seconds())
    again = claim(database, clock)
    assert again is not None
    assert again.attempt == 2


def test_an_answer_that_is_overdue_is_said_once_and_still_taken(
    database: Database, clock: ManualClock
) -> None:
    complete(database, clock, "1.2.3")
    ask(database, clock)
    due = claim(database, clock)
    assert due is not None
    with database.transaction() as session:
        store.mark_sent(session, due, MODEL, now=clock())
        assert store.note_unanswered(session, now=clock()) == 0
    clock.advance(MODEL.answer_within_s)
    with database.transaction() as session:
        assert store.note_unanswered(session, now=clock()) == 1
        assert store.note_unanswered(session, now=clock()) == 0
        assert store.count_by_state(session) == {RemoteState.UNANSWERED: 1}
        object_from_it = received(clock(), study=pseudonym("1.2.3"), calling_ae_title="VENDOR")
        store.keep_returned(session, object_from_it)
        store.keep_returned(session, object_from_it)
        returned = store.next_returned(session)
        assert returned is not None
        asked = store.asked_study(session, MODEL.name, returned.study_instance_uid)
        assert asked is not None
        assert {"1.2.3", "1.2.3.1", "1.2.3.1.1", "1.2.3.1.2"} <= asked.uids
        assert store.asked_study(session, "another", returned.study_instance_uid) is None
        assert store.asked_study(session, MODEL.name, "1.2.3") is None
        store.mark_taken(session, returned, asked, MODEL, role="seg", now=clock())
        assert store.next_returned(session) is None
    assert states(database) == [RemoteState.ANSWERED]
    with database.reading() as session:
        assert session.scalars(select(StudyRow.study_instance_uid)).all() == ["1.2.3"]


def test_what_is_quarantined_is_counted_by_reason(database: Database, clock: ManualClock) -> None:
    with database.transaction() as session:
        for number in (1, 2):
            store.keep_returned(session, received(clock(), study="2.25.9", number=number))
            returned = store.next_returned(session)
            assert returned is not None
            store.quarantine(session, returned, "nobody's")
        assert store.quarantine_reasons(session) == {"nobody's": 2}
        assert store.next_returned(session) is None


def test_images_that_cannot_be_sent_are_given_up_in_the_end(
    database: Database, clock: ManualClock
) -> None:
    complete(database, clock, "1.2.3")
    ask(database, clock)
    due = claim(database, clock)
    assert due is not None
    with database.transaction() as session:
        retry_at = clock() + timedelta(seconds=5)
        store.mark_not_sent(session, due, "away", retry_at=retry_at, now=clock())
    assert claim(database, clock) is None
    clock.advance(5)
    assert claim(database, clock) is not None
    with database.transaction() as session:
        store.mark_not_sent(session, due, "away", retry_at=None, now=clock())
    assert states(database) == [RemoteState.FAILED]
