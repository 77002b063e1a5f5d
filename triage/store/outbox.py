"""Result objects and the outbox that carries them to their destinations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from triage.core.runs import DeliveryState, RunState
from triage.core.withdrawals import WITHDRAWAL_ROLES
from triage.store.files import StoredFile
from triage.store.history import note
from triage.store.tables import (
    AnalysisRunRow,
    DeliveryRow,
    InstanceRow,
    ResultObjectRow,
    SeriesRow,
)


@dataclass(frozen=True, slots=True)
class NewResultObject:
    """A result object whose file is durable, ready to be indexed."""

    role: str
    file: StoredFile
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    modality: str
    series_number: int | None = None
    series_description: str = ""


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """An outbox row that this worker holds."""

    delivery_id: int
    destination: str
    attempt: int
    study_id: int
    run_id: int
    role: str
    path: str
    sop_class_uid: str
    sop_instance_uid: str


def add_result_objects(
    session: Session,
    *,
    run_id: int,
    study_id: int,
    objects: Sequence[NewResultObject],
    destinations: Sequence[str],
    now: datetime,
) -> None:
    """Index the objects of a run, in order of delivery, with an outbox row per destination.

    An object that is there already (the same model on the same input makes the same UIDs) is taken
    over by this run and not written again; what was withdrawn of it becomes due again, and a file
    that retention had deleted is replaced by the new one. The objects
    are also indexed as instances of the study, marked as results, because Triage's own store is
    the archive where no other is configured. Of a shadow run nothing is kept: what is not in the
    index no page, query or retrieval can show.
    """
    run = session.scalars(select(AnalysisRunRow).where(AnalysisRunRow.id == run_id)).one()
    if not run.stage.counts:
        return
    for sequence, new in enumerate(objects, start=_next_sequence(session, run_id)):
        known = session.scalar(
            select(ResultObjectRow).where(ResultObjectRow.sop_instance_uid == new.sop_instance_uid)
        )
        if known is not None:
            known.run_id = run_id
            _restore_purged(session, known, new)
            for delivery in known.deliveries:
                if delivery.state is DeliveryState.WITHDRAWN:
                    delivery.state = DeliveryState.WAITING
                    delivery.next_attempt_at = now
            continue
        row = ResultObjectRow(
            run_id=run_id,
            role=new.role,
            sequence=sequence,
            sop_class_uid=new.sop_class_uid,
            sop_instance_uid=new.sop_instance_uid,
            series_instance_uid=new.series_instance_uid,
            path=new.file.path,
            size_bytes=new.file.size_bytes,
            created_at=now,
        )
        session.add(row)
        session.flush()
        _index_as_instance(session, study_id, new, now)
        for destination in destinations:
            session.add(
                DeliveryRow(
                    result_object_id=row.id,
                    destination=destination,
                    state=DeliveryState.WAITING,
                    next_attempt_at=now,
                )
            )


def _next_sequence(session: Session, run_id: int) -> int:
    last = session.scalar(
        select(func.max(ResultObjectRow.sequence)).where(ResultObjectRow.run_id == run_id)
    )
    return 0 if last is None else last + 1


def _restore_purged(session: Session, known: ResultObjectRow, new: NewResultObject) -> None:
    purged = session.scalar(
        select(InstanceRow).where(
            InstanceRow.sop_instance_uid == known.sop_instance_uid,
            InstanceRow.purged_at.is_not(None),
        )
    )
    if purged is None:
        return
    known.path, known.size_bytes = new.file.path, new.file.size_bytes
    purged.path, purged.size_bytes = new.file.path, new.file.size_bytes
    purged.sha256, purged.purged_at = new.file.sha256, None


def _index_as_instance(
    session: Session, study_id: int, new: NewResultObject, now: datetime
) -> None:
    series = session.scalar(
        select(SeriesRow).where(
            SeriesRow.study_id == study_id,
            SeriesRow.series_instance_uid == new.series_instance_uid,
        )
    )
    if series is None:
        series = SeriesRow(
            study_id=study_id,
            series_instance_uid=new.series_instance_uid,
            modality=new.modality,
            number=new.series_number,
            description=new.series_description[:128],
            is_result=True,
        )
        session.add(series)
        session.flush()
    session.add(
        InstanceRow(
            series_id=series.id,
            sop_instance_uid=new.sop_instance_uid,
            sop_class_uid=new.sop_class_uid,
            transfer_syntax_uid=new.transfer_syntax_uid,
            number=1,
            path=new.file.path,
            size_bytes=new.file.size_bytes,
            sha256=new.file.sha256,
            headers={},
            received_at=now,
        )
    )


def claim_due_delivery(session: Session, *, lease: timedelta, now: datetime) -> DueDelivery | None:
    """Claim the delivery that is due and oldest, or None.

    Order is kept where it matters: an object is not due at a destination before the earlier
    objects of its run have arrived there (the SEG before the SR that points to it).
    """
    earlier_object, earlier_delivery = aliased(ResultObjectRow), aliased(DeliveryRow)
    waits_for_earlier = exists(
        select(earlier_delivery.id)
        .join(earlier_object, earlier_object.id == earlier_delivery.result_object_id)
        .where(
            earlier_object.run_id == ResultObjectRow.run_id,
            earlier_object.sequence < ResultObjectRow.sequence,
            earlier_delivery.destination == DeliveryRow.destination,
            earlier_delivery.state.in_((DeliveryState.WAITING, DeliveryState.SENDING)),
        )
    )
    row = session.scalars(
        select(DeliveryRow)
        .join(ResultObjectRow, ResultObjectRow.id == DeliveryRow.result_object_id)
        .join(AnalysisRunRow, AnalysisRunRow.id == ResultObjectRow.run_id)
        .where(
            or_(
                AnalysisRunRow.state != RunState.SUPERSEDED,
                ResultObjectRow.role.in_(WITHDRAWAL_ROLES),
            ),
            or_(
                (DeliveryRow.state == DeliveryState.WAITING) & (DeliveryRow.next_attempt_at <= now),
                (DeliveryRow.state == DeliveryState.SENDING) & (DeliveryRow.lease_until < now),
            ),
            ~waits_for_earlier,
        )
        .order_by(DeliveryRow.next_attempt_at, DeliveryRow.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=DeliveryRow)
    ).first()
    if row is None:
        return None
    row.state = DeliveryState.SENDING
    row.attempts += 1
    row.lease_until = now + lease
    sent = row.result_object
    run = session.scalars(select(AnalysisRunRow).where(AnalysisRunRow.id == sent.run_id)).one()
    return DueDelivery(
        delivery_id=row.id,
        destination=row.destination,
        attempt=row.attempts,
        study_id=run.study_id,
        run_id=run.id,
        role=sent.role,
        path=sent.path,
        sop_class_uid=sent.sop_class_uid,
        sop_instance_uid=sent.sop_instance_uid,
    )


def mark_delivered(session: Session, due: DueDelivery, *, now: datetime) -> None:
    """Note that the destination took the object."""
    row = session.scalars(select(DeliveryRow).where(DeliveryRow.id == due.delivery_id)).one()
    row.state = DeliveryState.DELIVERED
    row.delivered_at = now
    row.committed_at = None
    row.lease_until = None
    row.last_error = ""
    text = f"{due.role.upper()} delivered to {due.destination}"
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
    is_of_result = row.result_object.role not in WITHDRAWAL_ROLES
    if is_of_result and row.result_object.run.state is RunState.SUPERSEDED:
        row.state = DeliveryState.WITHDRAWN
        return
    if retry_after is not None:
        row.state = DeliveryState.WAITING
        row.next_attempt_at = now + retry_after
        return
    row.state = DeliveryState.DEAD
    text = f"{due.role.upper()} was not taken by {due.destination}: {error}"
    note(session, due.study_id, "undeliverable", text, at=now, run_id=due.run_id)


def withdraw_unsent(session: Session, run_id: int) -> None:
    """Keep back what a superseded or withdrawn run has not delivered yet.

    What says that it was withdrawn is not kept back. An attempt that is under way may still end as
    delivered; if it fails, it is not tried again.
    """
    unsent = session.scalars(
        select(DeliveryRow)
        .join(ResultObjectRow, ResultObjectRow.id == DeliveryRow.result_object_id)
        .where(
            ResultObjectRow.run_id == run_id,
            ResultObjectRow.role.not_in(WITHDRAWAL_ROLES),
            DeliveryRow.state != DeliveryState.DELIVERED,
        )
    )
    for row in unsent.all():
        row.state = DeliveryState.WITHDRAWN


def resend(session: Session, delivery_id: int, *, now: datetime) -> None:
    """Give a dead delivery another round of attempts."""
    row = session.scalars(select(DeliveryRow).where(DeliveryRow.id == delivery_id)).one()
    if row.state is DeliveryState.DEAD:
        row.state = DeliveryState.WAITING
        row.attempts = 0
        row.next_attempt_at = now


def release_all_sending(session: Session, *, now: datetime) -> None:
    """Make every delivery that was cut off by a restart due again."""
    for row in session.scalars(
        select(DeliveryRow).where(DeliveryRow.state == DeliveryState.SENDING)
    ).all():
        row.state = DeliveryState.WAITING
        row.next_attempt_at = now
