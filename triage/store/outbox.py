"""Result objects, and the outbox that carries objects and notices to their destinations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from triage.core.runs import DeliveryKind, DeliveryState, RunState, StudyState
from triage.settings import Destination, NoticeDestination, ObjectDestination, RoutedResult
from triage.settings.destinations import StudyStage
from triage.store.files import StoredFile
from triage.store.history import note
from triage.store.tables import (
    AnalysisRunRow,
    DeliveryRow,
    InstanceRow,
    PausedDestinationRow,
    PriorityEventRow,
    ResultObjectRow,
    SeriesRow,
    StudyRow,
)

_MOST_EVENTS = 100


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
    variant: str = ""


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


def add_result_objects(
    session: Session,
    *,
    run_id: int,
    study_id: int,
    objects: Sequence[NewResultObject],
    destinations: Sequence[Destination],
    now: datetime,
) -> None:
    """Index the objects of a completed run and queue what its destinations get, in order.

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
    result = _routed(run.study, run)
    taken = [d for d in destinations if d.route.takes(result)]
    for sequence, new in enumerate(objects):
        row = _indexed(session, run, sequence, new, now)
        for destination in taken:
            if isinstance(destination, ObjectDestination) and _gets(destination, new, objects):
                _queue(
                    session,
                    DeliveryRow(
                        kind=DeliveryKind.RESULT,
                        subject=f"object:{new.sop_instance_uid}",
                        destination=destination.name,
                        lane=f"run:{run_id}",
                        place=sequence,
                        study_id=study_id,
                        run_id=run_id,
                        result_object_id=row.id,
                        next_attempt_at=now,
                    ),
                )
    for destination in taken:
        if isinstance(destination, NoticeDestination) and (
            DeliveryKind.RESULT in destination.notices
        ):
            _queue(
                session,
                DeliveryRow(
                    kind=DeliveryKind.RESULT,
                    subject=f"result:{run_id}",
                    destination=destination.name,
                    lane=f"run:{run_id}",
                    study_id=study_id,
                    run_id=run_id,
                    next_attempt_at=now,
                ),
            )


def add_withdrawal_objects(
    session: Session,
    *,
    run_id: int,
    objects: Sequence[NewResultObject],
    destinations: Collection[str],
    now: datetime,
) -> None:
    """Index what says that a run's result is withdrawn, and queue all of it for `destinations`.

    It goes, after all that the run left, to those that have the result, whatever their routes say
    today.
    """
    run = session.scalars(select(AnalysisRunRow).where(AnalysisRunRow.id == run_id)).one()
    last = session.scalar(
        select(func.max(ResultObjectRow.sequence)).where(ResultObjectRow.run_id == run_id)
    )
    for sequence, new in enumerate(objects, start=0 if last is None else last + 1):
        row = _indexed(session, run, sequence, new, now)
        for destination in destinations:
            _queue(
                session,
                DeliveryRow(
                    kind=DeliveryKind.WITHDRAWAL,
                    subject=f"object:{new.sop_instance_uid}",
                    destination=destination,
                    lane=f"run:{run_id}",
                    place=sequence,
                    study_id=run.study_id,
                    run_id=run_id,
                    result_object_id=row.id,
                    next_attempt_at=now,
                ),
            )


def queue_priority_notices(
    session: Session, destinations: Sequence[Destination], *, now: datetime
) -> None:
    """Queue the notices of the changes of priority that are not queued yet.

    What the order itself says is not told: those who are told gave the order. The notices of one
    study arrive in the order of the changes.
    """
    events = session.scalars(
        select(PriorityEventRow)
        .where(PriorityEventRow.is_queued.is_(False))
        .order_by(PriorityEventRow.id)
        .limit(_MOST_EVENTS)
        .with_for_update(skip_locked=True)
    ).all()
    for event in events:
        event.is_queued = True
        if event.source == "order" or event.before == event.after:
            continue
        study = session.scalars(select(StudyRow).where(StudyRow.id == event.study_id)).one()
        run = event.run_id and session.get(AnalysisRunRow, event.run_id)
        result = _routed(study, run or None)
        for destination in destinations:
            if (
                isinstance(destination, NoticeDestination)
                and DeliveryKind.PRIORITY in destination.notices
                and destination.route.takes(result)
            ):
                _queue(
                    session,
                    DeliveryRow(
                        kind=DeliveryKind.PRIORITY,
                        subject=f"priority:{event.id}",
                        destination=destination.name,
                        lane=f"study:{event.study_id}",
                        study_id=event.study_id,
                        run_id=event.run_id,
                        next_attempt_at=now,
                    ),
                )


def _routed(study: StudyRow, run: AnalysisRunRow | None) -> RoutedResult:
    stage: StudyStage = "arriving" if study.state is StudyState.RECEIVING else "unread"
    return RoutedResult(
        model=run.model.name if run else "",
        stage=run.stage.value if run else "",
        findings=[finding.key for finding in run.findings if finding.present] if run else (),
        modalities=study.modalities.split("\\"),
        calling_ae_title=study.calling_ae_title,
        study_stage="read" if study.read_at else stage,
    )


def _gets(
    destination: ObjectDestination, new: NewResultObject, objects: Sequence[NewResultObject]
) -> bool:
    """Return whether `destination` gets this object: of its role, and of the variant it asks for.

    Of a role that was not made in that variant it gets the ordinary object.
    """
    if destination.objects and new.role not in destination.objects:
        return False
    has_variant = any(
        (other.role, other.variant) == (new.role, destination.variant) for other in objects
    )
    return new.variant == (destination.variant if has_variant else "")


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


def _indexed(
    session: Session, run: AnalysisRunRow, sequence: int, new: NewResultObject, now: datetime
) -> ResultObjectRow:
    known = session.scalar(
        select(ResultObjectRow).where(ResultObjectRow.sop_instance_uid == new.sop_instance_uid)
    )
    if known is not None:
        known.run_id = run.id
        _restore_purged(session, known, new)
        return known
    row = ResultObjectRow(
        run_id=run.id,
        role=new.role,
        variant=new.variant,
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
    _index_as_instance(session, run.study_id, new, now)
    return row


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


def mark_delivered(session: Session, due: DueDelivery, *, now: datetime) -> None:
    """Note that the destination took the object or the notice."""
    row = session.scalars(select(DeliveryRow).where(DeliveryRow.id == due.delivery_id)).one()
    row.state = DeliveryState.DELIVERED
    row.delivered_at = now
    row.committed_at = None
    row.lease_until = None
    row.last_error = ""
    text = f"{due.label} delivered to {due.destination}"
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
    is_result = row.kind is DeliveryKind.RESULT
    if is_result and row.run is not None and row.run.state is RunState.SUPERSEDED:
        row.state = DeliveryState.WITHDRAWN
        return
    if retry_after is not None:
        row.state = DeliveryState.WAITING
        row.next_attempt_at = now + retry_after
        return
    row.state = DeliveryState.DEAD
    text = f"{due.label} was not taken by {due.destination}: {error}"
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
