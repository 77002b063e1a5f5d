"""Many studies that follow a changed policy together, each as if it did so alone."""

from __future__ import annotations

from sqlalchemy import event, select, update

from tests.store.rows import received
from tests.tools import ManualClock
from triage.core.dicom_json import text_of
from triage.core.priority import Priority
from triage.core.priority_policy import parse_policy
from triage.core.workitem_attributes import COMMENTS, PRIORITY
from triage.store.database import Database
from triage.store.history import texts_of_kind
from triage.store.policies import activate_policy
from triage.store.prioritising import is_ranking_due, rank_some
from triage.store.studies import complete_study, record_instance
from triage.store.tables import PriorityEventRow, StudyRow
from triage.store.workitem_events import Subscriber
from triage.store.workitem_subscriptions import subscribe
from triage.store.workitem_tables import Channel, WorkitemEventRow, WorkitemRow

WATCHER = Subscriber("WATCHER", Channel.DIMSE)
ROUTINE_RISES = parse_policy({"rises_after_minutes": {"routine": 60}})
WHY = "policy 1 activated by Dr. Haus: the board"


def studies_arrive(database: Database, clock: ManualClock, number: int) -> None:
    """Let complete studies be there, ordered as routine, high and low in turns."""
    for n in range(number):
        uid, order = f"1.2.{n + 1}", ("ROUTINE", "HIGH", "LOW")[n % 3]
        image = received(
            clock(), study=uid, accession_number=uid, requested_procedure_priority=order
        )
        with database.transaction() as session:
            record_instance(session, image)
            row = session.scalars(select(StudyRow).where(StudyRow.study_instance_uid == uid)).one()
            complete_study(session, row, "nothing came any more", clock())


def activate(database: Database, clock: ManualClock) -> None:
    """Let a policy hold by which routine studies have waited long enough to rise."""
    clock.advance(3600)
    with database.transaction() as session:
        activate_policy(session, ROUTINE_RISES, who="Dr. Haus", reason="the board", now=clock())


def rank(database: Database, clock: ManualClock) -> list[str]:
    """Rank all studies in one go, and return the statements that it took."""
    statements: list[str] = []

    def note(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    event.listen(database.engine, "before_cursor_execute", note)
    with database.transaction() as session:
        rank_some(session, clock())
        assert not is_ranking_due(session, clock())
    event.remove(database.engine, "before_cursor_execute", note)
    return statements


def workitems(database: Database) -> list[WorkitemRow]:
    with database.reading() as session:
        return list(session.scalars(select(WorkitemRow).order_by(WorkitemRow.study_id)))


def test_more_studies_take_no_more_statements(database: Database, clock: ManualClock) -> None:
    studies_arrive(database, clock, 6)
    activate(database, clock)
    few = len(rank(database, clock))
    studies_arrive(database, clock, 36)
    clock.advance(3600)
    assert len(rank(database, clock)) <= few
    assert few < 30


def test_each_study_of_many_gets_its_own_place_event_line_and_workitem(
    database: Database, clock: ManualClock
) -> None:
    studies_arrive(database, clock, 6)
    second_routine = workitems(database)[3]
    with database.transaction() as session:
        subscribe(
            session, WATCHER, second_routine.sop_instance_uid, deletion_lock=False, now=clock()
        )
        session.execute(WorkitemEventRow.__table__.delete())
    activate(database, clock)
    rank(database, clock)
    with database.reading() as session:
        studies = session.scalars(select(StudyRow).order_by(StudyRow.id)).all()
        events = session.scalars(
            select(PriorityEventRow).where(PriorityEventRow.source == "policy")
        ).all()
        lines = {study.id: texts_of_kind(session, study.id, "ranked") for study in studies}
        told = session.scalars(select(WorkitemEventRow)).all()
    high, low = Priority.HIGH, Priority.LOW
    assert [study.priority for study in studies] == [high, high, low] * 2
    moved = [studies[0].id, studies[3].id]
    assert [(e.study_id, e.before, e.after, e.reason) for e in events] == [
        (study_id, Priority.ROUTINE, high, WHY) for study_id in moved
    ]
    assert [e.place for e in events] == ["order routine; waits for long: High"] * 2
    assert lines == {study.id: [WHY] if study.id in moved else [] for study in studies}
    rows = workitems(database)
    assert [row.priority for row in rows] == ["HIGH", "HIGH", "LOW"] * 2
    assert [text_of(row.attributes, PRIORITY) for row in rows] == [row.priority for row in rows]
    assert text_of(rows[0].attributes, COMMENTS) == "High: by the priority policy"
    assert [(e.sop_instance_uid, text_of(e.information, PRIORITY)) for e in told] == [
        (second_routine.sop_instance_uid, rows[3].priority)
    ]


def test_workitem_that_cannot_be_written_keeps_no_other_study_from_its_place(
    database: Database, clock: ManualClock
) -> None:
    studies_arrive(database, clock, 6)
    broken, other = workitems(database)[0], workitems(database)[3]
    with database.transaction() as session:
        nothing: list[str] = []  # no request could leave that
        session.execute(
            update(WorkitemRow).where(WorkitemRow.id == broken.id).values(attributes=nothing)
        )
    before = other.priority
    activate(database, clock)
    rank(database, clock)
    with database.reading() as session:
        studies = session.scalars(select(StudyRow).order_by(StudyRow.id)).all()
    assert studies[0].priority is studies[3].priority is Priority.HIGH
    rows = workitems(database)
    assert rows[0].priority == before
    assert rows[3].priority != before
