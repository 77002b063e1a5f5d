"""Result objects, and the outbox that carries objects and notices to their destinations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select
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
    WithdrawalRow,
)

_MOST_EVENTS = 100
SAYING = ", saying "
"""What stands in an error before the words of the destination."""
CORRECTION = "correction:"
"""What the subject of a result that is told again begins with."""
_PICTURES = {"heat-map", "secondary-capture", "pdf"}


@dataclass(frozen=True, slots=True)
class NewResultObject:
    """A result object whose file is durable, ready to be indexed.

    Attributes:
        variant: "" for the usual form; a name for what is made again in the form that some
            destinations ask for.
    """

    role: str
    file: StoredFile
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    modality: str
    series_number: int | None = None
    series_description: str = ""
    instance_number: int = 1
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
        row = _indexed(
            session, new, study_id=run.study_id, run_id=run.id, sequence=sequence, now=now
        )
        for destination in taken:
            if isinstance(destination, ObjectDestination) and _gets(destination, new, objects):
                if _is_withheld(destination, new):
                    _note_withheld(session, run, new.role, destination.name, now)
                    continue
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


def queue_corrections(
    session: Session,
    study_ids: Sequence[int],
    destinations: Collection[str],
    *,
    now: datetime,
) -> None:
    """Queue again, as corrections, the results that these destinations were told of the studies.

    What they were not told yet names the right patient anyway: it is read when it is sent.
    """
    told = session.scalars(
        select(DeliveryRow).where(
            DeliveryRow.study_id.in_(study_ids),
            DeliveryRow.destination.in_(destinations),
            DeliveryRow.kind == DeliveryKind.RESULT,
            DeliveryRow.result_object_id.is_(None),
            DeliveryRow.state.in_((DeliveryState.DELIVERED, DeliveryState.SENDING)),
            DeliveryRow.subject.startswith("result:"),
        )
    )
    for row in told.all():
        _queue(
            session,
            DeliveryRow(
                kind=DeliveryKind.RESULT,
                subject=f"{CORRECTION}{row.run_id}:{int(now.timestamp())}",
                destination=row.destination,
                lane=row.lane,
                place=row.place,
                study_id=row.study_id,
                run_id=row.run_id,
                next_attempt_at=now,
            ),
        )


def add_returned_object(
    session: Session,
    *,
    study_id: int,
    remote_model: str,
    new: NewResultObject,
    destinations: Sequence[Destination],
    now: datetime,
) -> None:
    """Index an object that a remote model made, and queue it for the destinations that get it.

    Routes see the name of the remote model, and no stage and no finding.
    """
    study = session.scalars(select(StudyRow).where(StudyRow.id == study_id)).one()
    row = _indexed(session, new, study_id=study_id, run_id=None, sequence=0, now=now)
    row.remote_model = remote_model
    result = replace(_routed(study, None), model=remote_model)
    for destination in destinations:
        if not isinstance(destination, ObjectDestination) or not destination.route.takes(result):
            continue
        if not _gets(destination, new, [new]) or _is_withheld(destination, new):
            continue
        _queue(
            session,
            DeliveryRow(
                kind=DeliveryKind.RESULT,
                subject=f"object:{new.sop_instance_uid}",
                destination=destination.name,
                lane=f"remote:{study_id}",
                study_id=study_id,
                result_object_id=row.id,
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
        row = _indexed(
            session, new, study_id=run.study_id, run_id=run_id, sequence=sequence, now=now
        )
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


def has_notices_to_queue(session: Session) -> bool:
    """Return whether anything happened whose notices are not queued yet; reads without any lock."""
    changes = select(PriorityEventRow.id).where(PriorityEventRow.is_queued.is_(False))
    withdrawals = select(WithdrawalRow.id).where(_withdrawn_and_not_queued())
    return any(session.scalar(one.limit(1)) is not None for one in (changes, withdrawals))


def _withdrawn_and_not_queued() -> ColumnElement[bool]:
    return and_(WithdrawalRow.is_queued.is_(False), WithdrawalRow.who != "")


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


def queue_withdrawal_notices(
    session: Session, destinations: Sequence[Destination], *, now: datetime
) -> None:
    """Queue the notices of the results that persons withdrew and that are not queued yet.

    They go, after what was told of the result, to those that were told of it, or may have been,
    and to those that are told of withdrawals alone. What a newer analysis took the place of is
    not told: the newer result is.
    """
    withdrawals = session.scalars(
        select(WithdrawalRow)
        .where(_withdrawn_and_not_queued())
        .order_by(WithdrawalRow.id)
        .limit(_MOST_EVENTS)
        .with_for_update(skip_locked=True, of=WithdrawalRow)
    ).all()
    for withdrawal in withdrawals:
        withdrawal.is_queued = True
        run = withdrawal.run
        told = _told_of_result(session, run.id)
        for destination in destinations:
            if (
                isinstance(destination, NoticeDestination)
                and DeliveryKind.WITHDRAWAL in destination.notices
                and (destination.name in told or _is_told_withdrawals_alone(destination, run))
            ):
                _queue(
                    session,
                    DeliveryRow(
                        kind=DeliveryKind.WITHDRAWAL,
                        subject=f"withdrawal:{withdrawal.id}",
                        destination=destination.name,
                        lane=f"run:{run.id}",
                        study_id=run.study_id,
                        run_id=run.id,
                        next_attempt_at=now,
                    ),
                )


def _told_of_result(session: Session, run_id: int) -> set[str]:
    rows = session.scalars(
        select(DeliveryRow).where(
            DeliveryRow.run_id == run_id,
            DeliveryRow.kind == DeliveryKind.RESULT,
            DeliveryRow.result_object_id.is_(None),
        )
    )
    return {row.destination for row in rows if may_have_arrived(row)}


def _is_told_withdrawals_alone(destination: NoticeDestination, run: AnalysisRunRow) -> bool:
    is_told_results = DeliveryKind.RESULT in destination.notices
    return not is_told_results and destination.route.takes(_routed(run.study, run))


def may_have_arrived(delivery: DeliveryRow) -> bool:
    """Return whether a destination has what was sent, or may have it: an answer can be lost."""
    is_delivered = delivery.state is DeliveryState.DELIVERED
    return is_delivered or delivery.attempts > 0 or bool(delivery.last_error)


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


def _is_withheld(destination: ObjectDestination, new: NewResultObject) -> bool:
    """Return whether the object is a picture or a document, which may say who the patient is."""
    return destination.deidentify != "none" and new.role in _PICTURES


def _note_withheld(
    session: Session, run: AnalysisRunRow, role: str, destination: str, now: datetime
) -> None:
    text = (
        f"{role.upper()} not for {destination}, which gets nothing that says who the patient is: "
        "text may be burnt into it"
    )
    note(session, run.study_id, "withheld", text, at=now, run_id=run.id)


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
    session: Session,
    new: NewResultObject,
    *,
    study_id: int,
    run_id: int | None,
    sequence: int,
    now: datetime,
) -> ResultObjectRow:
    known = session.scalar(
        select(ResultObjectRow).where(ResultObjectRow.sop_instance_uid == new.sop_instance_uid)
    )
    if known is not None:
        known.run_id = run_id
        _restore_purged(session, known, new)
        return known
    row = ResultObjectRow(
        run_id=run_id,
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
    _index_as_instance(session, study_id, new, now)
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
            number=new.instance_number,
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
    # Not the words of the other side: they may name the patient, and the history is never deleted.
    text = f"{due.label} was not taken by {due.destination}: {error.partition(SAYING)[0]}"
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
