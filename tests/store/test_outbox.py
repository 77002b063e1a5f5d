"""The outbox of result objects, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from tests.store.rows import received
from tests.store.test_runs import claim, finish, held, queue_runs
from tests.store.test_studies import QUIET, events
from tests.tools import ManualClock, archive_named
from triage.core.runs import DeliveryState
from triage.settings import FolderDestination
from triage.store.contents import load_study
from triage.store.database import Database
from triage.store.delivery_decisions import Decision, resend
from triage.store.files import StoredFile
from triage.store.outbox import (
    DueDelivery,
    NewResultObject,
    add_result_objects,
    claim_due_delivery,
    failed_attempts,
    mark_delivered,
    mark_not_delivered,
    release_all_sending,
)
from triage.store.runs import ClaimedRun
from triage.store.studies import complete_quiet_studies, record_instance
from triage.store.tables import DeliveryRow, ResultObjectRow, SeriesRow

LEASE = timedelta(seconds=30)


def result_object(role: str, uid: str, variant: str = "") -> NewResultObject:
    """Return a result object whose file is durable."""
    return NewResultObject(
        role=role,
        file=StoredFile(f"results/{uid}.dcm", 10, uid.rjust(64, "0")),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        sop_instance_uid=uid,
        series_instance_uid=f"{uid}.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        modality=role.upper(),
        variant=variant,
    )


def add(database: Database, clock: ManualClock, run: ClaimedRun, *destinations: str) -> None:
    """Add a SEG and an SR of `run`."""
    with database.transaction() as session:
        add_result_objects(
            session,
            run_id=run.run_id,
            study_id=run.study_id,
            objects=[result_object("seg", "2.25.1"), result_object("sr", "2.25.2")],
            destinations=[archive_named(name) for name in destinations],
            now=clock(),
        )


def analysed(database: Database, clock: ManualClock, *destinations: str) -> ClaimedRun:
    """Return a completed run with a SEG and an SR in the outbox."""
    queue_runs(database, clock, "ROUTINE")
    run = held(database, clock)
    add(database, clock, run, *destinations)
    finish(database, clock, run)
    return run


def due(database: Database, clock: ManualClock) -> DueDelivery | None:
    """Claim a delivery."""
    with database.transaction() as session:
        return claim_due_delivery(session, lease=LEASE, now=clock())


def certainly_due(database: Database, clock: ManualClock) -> DueDelivery:
    """Claim a delivery that must be there."""
    delivery = due(database, clock)
    assert delivery is not None
    return delivery


def states(database: Database) -> list[tuple[str, str]]:
    """Return role and state of all deliveries."""
    with database.reading() as session:
        rows = session.execute(
            select(ResultObjectRow.role, DeliveryRow.state)
            .join(DeliveryRow, DeliveryRow.result_object_id == ResultObjectRow.id)
            .order_by(DeliveryRow.id)
        )
        return [(role, str(state)) for role, state in rows.all()]


def not_delivered(
    database: Database, clock: ManualClock, delivery: DueDelivery, retry_after_s: float | None
) -> None:
    """Note that an attempt failed."""
    after = None if retry_after_s is None else timedelta(seconds=retry_after_s)
    with database.transaction() as session:
        mark_not_delivered(session, delivery, "no answer", retry_after=after, now=clock())


def delivered(database: Database, clock: ManualClock, delivery: DueDelivery) -> None:
    """Note that an attempt succeeded."""
    with database.transaction() as session:
        mark_delivered(session, delivery, now=clock())


def test_segmentation_arrives_before_the_report_that_points_to_it(
    database: Database, clock: ManualClock
) -> None:
    analysed(database, clock, "pacs")
    first = certainly_due(database, clock)
    assert (first.role, first.destination, first.attempt) == ("seg", "pacs", 1)
    assert due(database, clock) is None
    not_delivered(database, clock, first, 10)
    assert due(database, clock) is None
    clock.advance(10)
    again = certainly_due(database, clock)
    assert (again.role, again.attempt) == ("seg", 2)
    delivered(database, clock, again)
    report = certainly_due(database, clock)
    assert report.role == "sr"
    delivered(database, clock, report)
    assert due(database, clock) is None
    assert ("delivered", "SR delivered to pacs") in events(database)


def test_one_destination_does_not_wait_for_another(database: Database, clock: ManualClock) -> None:
    analysed(database, clock, "pacs", "vna")
    one, other = certainly_due(database, clock), certainly_due(database, clock)
    assert {one.destination, other.destination} == {"pacs", "vna"}
    delivered(database, clock, one)
    report = certainly_due(database, clock)
    assert (report.role, report.destination) == ("sr", one.destination)


def test_delivery_of_a_sender_that_died_is_due_again(
    database: Database, clock: ManualClock
) -> None:
    analysed(database, clock, "pacs")
    first = certainly_due(database, clock)
    clock.advance(31)
    assert certainly_due(database, clock).delivery_id == first.delivery_id
    with database.transaction() as session:
        release_all_sending(session, now=clock())
    assert certainly_due(database, clock).attempt == 3


def test_dead_letter_is_seen_and_can_be_sent_again(database: Database, clock: ManualClock) -> None:
    analysed(database, clock, "pacs")
    dead = certainly_due(database, clock)
    not_delivered(database, clock, dead, None)
    assert states(database)[0] == ("seg", "dead")
    assert ("undeliverable", "SEG was not taken by pacs: no answer") in events(database)
    with database.transaction() as session:
        resend(session, dead.delivery_id, Decision("A. Grey", clock()))
    again = certainly_due(database, clock)
    assert (again.delivery_id, again.attempt) == (dead.delivery_id, 1)


def test_each_failed_attempt_is_kept_without_the_words_of_the_other_side(
    database: Database, clock: ManualClock
) -> None:
    run = analysed(database, clock, "pacs", "ris")
    delivered(database, clock, certainly_due(database, clock))  # what succeeds at once needs none
    begun = clock()
    for answer in ("no answer", "status A700, saying 'Doe^Jane is on hold'"):
        clock.advance(60)
        due = certainly_due(database, clock)
        with database.transaction() as session:
            wait = timedelta(seconds=60)
            mark_not_delivered(session, due, answer, retry_after=wait, now=clock())
        with database.reading() as session:
            last = failed_attempts(session, run.study_id)[-1]
        assert (last.destination, last.label) == (due.destination, due.label)
    with database.reading() as session:
        found = failed_attempts(session, run.study_id)
    assert [(one.at - begun, one.answer) for one in found] == [
        (timedelta(seconds=60), "no answer"),
        (timedelta(seconds=120), "status A700"),
    ]


def test_results_are_kept_as_a_series_that_no_model_gets(
    database: Database, clock: ManualClock
) -> None:
    run = analysed(database, clock)
    with database.reading() as session:
        assert len(load_study(session, run.study_id).series) == 1
        results = session.scalars(select(SeriesRow).where(SeriesRow.is_result)).all()
        assert [s.modality for s in results] == ["SEG", "SR"]


def grow(database: Database, clock: ManualClock) -> None:
    """Let a late image arrive and the study become complete again."""
    with database.transaction() as session:
        record_instance(session, received(clock(), study="1.2.0", number=2))
    clock.advance(5)
    with database.transaction() as session:
        complete_quiet_studies(session, QUIET, clock())


def test_results_of_a_superseded_run_are_kept_back(database: Database, clock: ManualClock) -> None:
    analysed(database, clock, "pacs")
    sending = certainly_due(database, clock)
    grow(database, clock)
    assert states(database) == [("seg", "withdrawn"), ("sr", "withdrawn")]
    not_delivered(database, clock, sending, 0)
    clock.advance(100)
    assert due(database, clock) is None
    assert states(database) == [("seg", "withdrawn"), ("sr", "withdrawn")]


def test_delivery_that_succeeds_just_as_its_run_is_superseded_is_delivered(
    database: Database, clock: ManualClock
) -> None:
    analysed(database, clock, "pacs")
    sending = certainly_due(database, clock)
    grow(database, clock)
    delivered(database, clock, sending)
    assert states(database) == [("seg", "delivered"), ("sr", "withdrawn")]


def test_same_results_made_again_are_taken_over_and_not_doubled(
    database: Database, clock: ManualClock
) -> None:
    analysed(database, clock, "pacs")
    delivered(database, clock, certainly_due(database, clock))
    grow(database, clock)
    assert due(database, clock) is None
    again = held(database, clock)
    assert claim(database, clock) is None
    add(database, clock, again, "pacs")
    finish(database, clock, again)
    assert states(database) == [("seg", "delivered"), ("sr", "waiting")]
    assert certainly_due(database, clock).run_id == again.run_id
    assert DeliveryState.WITHDRAWN not in {state for _, state in states(database)}


_OBJECTS = (
    ("seg", ""),
    ("seg", "fractional"),
    ("seg", "labelmap-compressed"),
    ("sr", ""),
    ("sr", "fractional"),
    ("heat-map", ""),
)


@pytest.mark.parametrize(
    ("asked", "gets"),
    [
        ({}, [("seg", ""), ("sr", ""), ("heat-map", "")]),
        (
            {"segmentation_type": "FRACTIONAL", "compressed": False},
            [("seg", "fractional"), ("sr", "fractional"), ("heat-map", "")],
        ),
        (  # no SR was made for that form of SEG: it gets the ordinary one
            {"segmentation_type": "LABELMAP", "compressed": True},
            [("seg", "labelmap-compressed"), ("sr", ""), ("heat-map", "")],
        ),
        ({"segmentation_type": "BINARY"}, [("seg", ""), ("sr", ""), ("heat-map", "")]),
        (
            {"segmentation_type": "FRACTIONAL", "compressed": False, "objects": ["sr"]},
            [("sr", "fractional")],
        ),
        ({"objects": ["heat-map", "pdf"]}, [("heat-map", "")]),
    ],
)
def test_each_destination_gets_the_objects_in_the_form_that_it_asks_for(
    sqlite_database: Database,
    clock: ManualClock,
    asked: dict[str, Any],
    gets: list[tuple[str, str]],
) -> None:
    folder = FolderDestination.model_validate(
        {"name": "share", "kind": "folder", "path": "/x", **asked}
    )
    queue_runs(sqlite_database, clock, "ROUTINE")
    run = held(sqlite_database, clock)
    objects = [
        result_object(role, f"2.25.{number}", variant)
        for number, (role, variant) in enumerate(_OBJECTS, start=1)
    ]
    with sqlite_database.transaction() as session:
        add_result_objects(
            session,
            run_id=run.run_id,
            study_id=run.study_id,
            objects=objects,
            destinations=[folder],
            now=clock(),
        )
        rows = session.execute(
            select(ResultObjectRow.role, ResultObjectRow.variant)
            .join(DeliveryRow, DeliveryRow.result_object_id == ResultObjectRow.id)
            .order_by(DeliveryRow.id)
        )
        assert [tuple(row) for row in rows] == gets
