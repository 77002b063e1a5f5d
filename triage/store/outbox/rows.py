"""Rows of the outbox: one for an object, one for a notice, each to one destination."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from triage.core.runs import DeliveryKind, DeliveryState
from triage.store.tables import DeliveryRow, ResultObjectRow


def queue_object(
    session: Session,
    sent: ResultObjectRow,
    destination: str,
    *,
    kind: DeliveryKind,
    study_id: int,
    lane: str,
    place: int,
    now: datetime,
) -> None:
    """Queue an object for a destination, once for all the runs that leave it."""
    row = DeliveryRow(
        kind=kind,
        subject=f"object:{sent.sop_instance_uid}",
        destination=destination,
        lane=lane,
        place=place,
        study_id=study_id,
        run_id=sent.run_id,
        result_object_id=sent.id,
        next_attempt_at=now,
    )
    _queue(session, row)


def queue_notice(
    session: Session,
    subject: str,
    destination: str,
    *,
    kind: DeliveryKind,
    study_id: int,
    run_id: int | None,
    lane: str,
    place: int = 0,
    now: datetime,
) -> None:
    """Queue the notice of `subject` for a destination, once, see `DeliveryRow`."""
    row = DeliveryRow(
        kind=kind,
        subject=subject,
        destination=destination,
        lane=lane,
        place=place,
        study_id=study_id,
        run_id=run_id,
        next_attempt_at=now,
    )
    _queue(session, row)


def _queue(session: Session, row: DeliveryRow) -> None:
    """Add an outbox row, or make due again what is there and was withdrawn."""
    known = session.scalar(
        select(DeliveryRow).where(
            DeliveryRow.subject == row.subject, DeliveryRow.destination == row.destination
        )
    )
    if known is None:
        session.add(row)
        return
    known.run_id, known.lane, known.place = row.run_id, row.lane, row.place
    if known.state is DeliveryState.WITHDRAWN:
        known.state = DeliveryState.WAITING
        known.next_attempt_at = row.next_attempt_at


def not_sent_with(session: Session, run_id: int, destination: str) -> frozenset[str]:
    """Return the SOP Instance UIDs of the run's objects that `destination` does not get."""
    is_sent = exists(
        select(DeliveryRow.id).where(
            DeliveryRow.result_object_id == ResultObjectRow.id,
            DeliveryRow.destination == destination,
        )
    )
    objects = select(ResultObjectRow.sop_instance_uid).where(ResultObjectRow.run_id == run_id)
    return frozenset(session.scalars(objects.where(~is_sent)))


def may_have_arrived(delivery: DeliveryRow) -> bool:
    """Return whether a destination has what was sent, or may have it: an answer can be lost."""
    is_delivered = delivery.state is DeliveryState.DELIVERED
    return is_delivered or delivery.attempts > 0 or bool(delivery.last_error)


def told_of_result(session: Session, run_id: int) -> set[str]:
    """Return the names of the destinations that a notice told of the run's result, or may have."""
    rows = session.scalars(
        select(DeliveryRow).where(
            DeliveryRow.run_id == run_id,
            DeliveryRow.kind == DeliveryKind.RESULT,
            DeliveryRow.result_object_id.is_(None),
        )
    )
    return {row.destination for row in rows if may_have_arrived(row)}
