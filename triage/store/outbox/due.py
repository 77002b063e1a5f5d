"""What is due: claimed by a worker, sent, and its outcome written."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, exists, or_, select
from sqlalchemy.orm import Session, aliased

from triage.core.runs import DeliveryKind, DeliveryState, RunState
from triage.store.attempt_tables import FailedAttemptRow
from triage.store.history import note
from triage.store.tables import AnalysisRunRow, DeliveryRow, PausedDestinationRow

SAYING = ", saying "
"""What stands in an error before the words of the destination."""


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """An outbox row that this worker holds: an object with its file, or a notice without one."""

    delivery_id: int
    kind: DeliveryKind
    subject: str
    destination: str
    attempt: int
    study_id: int
    run_id: int | None
    is_object: bool
    role: str = ""
    path: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""

    @property
    def label(self) -> str:
        """What is delivered, as the history says it."""
        return _label(self.kind, self.role)


def label_of(row: DeliveryRow) -> str:
    """Return what is delivered, as the history says it: "SR", or "Priority notice"."""
    return _label(row.kind, row.result_object.role if row.result_object else "")


def _label(kind: DeliveryKind, role: str) -> str:
    return role.upper() or f"{kind.value.capitalize()} notice"


def claim_due_delivery(
    session: Session,
    *,
    lease: timedelta,
    now: datetime,
    destination: str | None = None,
    other_than: Collection[str] = (),
) -> DueDelivery | None:
    """Claim the delivery that is due and oldest, or None.

    Order is kept where it matters: nothing is due at a destination before what is earlier in its
    lane has arrived there (the SEG before the SR that points to it). A paused destination has
    nothing due.

    Args:
        session: writes the claim.
        lease: how long it holds.
        now: the moment.
        destination: whose deliveries; None is everybody's.
        other_than: names of destinations whose deliveries are left alone.
    """
    wanted = _due(now, destination, other_than)
    row = session.scalars(
        wanted.order_by(DeliveryRow.next_attempt_at, DeliveryRow.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=DeliveryRow)
    ).first()
    if row is None:
        return None
    row.state = DeliveryState.SENDING
    row.attempts += 1
    row.lease_until = now + lease
    sent = row.result_object
    return DueDelivery(
        delivery_id=row.id,
        kind=row.kind,
        subject=row.subject,
        destination=row.destination,
        attempt=row.attempts,
        study_id=row.study_id,
        run_id=row.run_id,
        is_object=sent is not None,
        role=sent.role if sent else "",
        path=sent.path if sent else "",
        sop_class_uid=sent.sop_class_uid if sent else "",
        sop_instance_uid=sent.sop_instance_uid if sent else "",
    )


def is_delivery_due(
    session: Session,
    *,
    now: datetime,
    destination: str | None = None,
    other_than: Collection[str] = (),
) -> bool:
    """Return whether `claim_due_delivery` would find something; it asks without a writer's lock."""
    wanted = _due(now, destination, other_than).with_only_columns(DeliveryRow.id).limit(1)
    return session.scalars(wanted).first() is not None


def _due(
    now: datetime, destination: str | None, other_than: Collection[str]
) -> Select[DeliveryRow]:
    """Return the query of what is due, see `claim_due_delivery`."""
    earlier = aliased(DeliveryRow)
    waits_for_earlier = exists(
        select(earlier.id).where(
            earlier.lane == DeliveryRow.lane,
            earlier.destination == DeliveryRow.destination,
            or_(
                earlier.place < DeliveryRow.place,
                (earlier.place == DeliveryRow.place) & (earlier.id < DeliveryRow.id),
            ),
            earlier.state.in_((DeliveryState.WAITING, DeliveryState.SENDING)),
        )
    )
    is_paused = exists(
        select(PausedDestinationRow.name).where(
            PausedDestinationRow.name == DeliveryRow.destination
        )
    )
    is_of_superseded = exists(
        select(AnalysisRunRow.id).where(
            AnalysisRunRow.id == DeliveryRow.run_id, AnalysisRunRow.state == RunState.SUPERSEDED
        )
    )
    wanted = select(DeliveryRow).where(
        or_(
            (DeliveryRow.state == DeliveryState.WAITING) & (DeliveryRow.next_attempt_at <= now),
            (DeliveryRow.state == DeliveryState.SENDING) & (DeliveryRow.lease_until < now),
        ),
        ~waits_for_earlier,
        ~is_paused,
        or_(DeliveryRow.kind != DeliveryKind.RESULT, ~is_of_superseded),
    )
    if destination is not None:
        wanted = wanted.where(DeliveryRow.destination == destination)
    if other_than:
        wanted = wanted.where(DeliveryRow.destination.not_in(other_than))
    return wanted


def mark_delivered(session: Session, due: DueDelivery, *, now: datetime) -> None:
    """Note that the destination took the object or the notice."""
    row = session.scalars(select(DeliveryRow).where(DeliveryRow.id == due.delivery_id)).one()
    row.state = DeliveryState.DELIVERED
    row.delivered_at = now
    row.committed_at = None
    row.lease_until = None
    row.last_error = ""
    tried = f", attempt {due.attempt}" if due.attempt > 1 else ""
    text = f"{due.label} delivered to {due.destination}{tried}"
    note(session, due.study_id, "delivered", text, at=now, run_id=due.run_id)


def mark_not_delivered(
    session: Session,
    due: DueDelivery,
    error: str,
    *,
    retry_after: timedelta | None,
    now: datetime,
) -> None:
    """Note why the attempt failed; with `retry_after` None it was the last one.

    Nothing changes if the lease ran out and another attempt has begun: that one decides. What was
    on its way while its run was superseded is kept back like the rest of the run.
    """
    row = session.scalars(
        select(DeliveryRow).where(DeliveryRow.id == due.delivery_id).with_for_update(of=DeliveryRow)
    ).one()
    if row.state is DeliveryState.WITHDRAWN and row.attempts == due.attempt:
        row.lease_until = None  # nothing is on its way any more
    if row.state is not DeliveryState.SENDING or row.attempts != due.attempt:
        return
    row.last_error = error
    row.lease_until = None
    # Not the words of the other side: they may name the patient, and neither line is ever deleted.
    answer = error.partition(SAYING)[0]
    session.add(FailedAttemptRow(delivery_id=row.id, number=due.attempt, at=now, answer=answer))
    is_result = row.kind is DeliveryKind.RESULT
    if is_result and row.run is not None and row.run.state is RunState.SUPERSEDED:
        row.state = DeliveryState.WITHDRAWN
        return
    if retry_after is not None:
        row.state = DeliveryState.WAITING
        row.next_attempt_at = now + retry_after
        return
    row.state = DeliveryState.DEAD
    text = f"{due.label} was not taken by {due.destination}: {answer}"
    note(session, due.study_id, "undeliverable", text, at=now, run_id=due.run_id)


def withdraw_unsent(session: Session, run_id: int) -> None:
    """Keep back what a superseded or withdrawn run has not delivered yet.

    What says that it was withdrawn is not kept back. An attempt that is under way may still end as
    delivered; if it fails, it is not tried again.
    """
    unsent = session.scalars(
        select(DeliveryRow).where(
            DeliveryRow.run_id == run_id,
            DeliveryRow.kind == DeliveryKind.RESULT,
            DeliveryRow.state.not_in((DeliveryState.DELIVERED, DeliveryState.GIVEN_UP)),
        )
    )
    for row in unsent.all():
        row.state = DeliveryState.WITHDRAWN


def release_all_sending(session: Session, *, now: datetime) -> None:
    """Make every delivery that was cut off by a restart due again."""
    for row in session.scalars(
        select(DeliveryRow).where(DeliveryRow.state == DeliveryState.SENDING)
    ).all():
        row.state = DeliveryState.WAITING
        row.next_attempt_at = now
