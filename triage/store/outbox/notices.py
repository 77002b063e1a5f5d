"""Notices that are queued: of results, of corrections, of priorities, of withdrawals."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from triage.core.runs import DeliveryKind, DeliveryState
from triage.core.withdrawals import WithdrawalState
from triage.settings import Destination, NoticeDestination
from triage.store.outbox.routing import routed
from triage.store.outbox.rows import queue_notice, told_of_result
from triage.store.tables import (
    AnalysisRunRow,
    DeliveryRow,
    PriorityEventRow,
    StudyRow,
    WithdrawalRow,
)

_MOST_EVENTS = 100
CORRECTION = "correction:"
"""What the subject of a result that is told again begins with."""
_BEFORE = -1  # its place in the lane of the run that takes the place of another


def queue_result_notices(
    session: Session, run: AnalysisRunRow, destinations: Sequence[Destination], *, now: datetime
) -> None:
    """Queue the notice of a completed run for the destinations that are told of it.

    They are told first that the results whose place it takes no longer hold: a receiver that knows
    both by one order number, as those of HL7 do, would otherwise take the newer one back.
    """
    lane = f"run:{run.id}"
    for withdrawal in _superseded_and_not_told(session, run):
        _queue_withdrawal(session, withdrawal, destinations, lane=lane, place=_BEFORE, now=now)
        withdrawal.is_queued = True
    for destination in _told_of(destinations, DeliveryKind.RESULT):
        queue_notice(
            session,
            f"result:{run.id}",
            destination.name,
            kind=DeliveryKind.RESULT,
            study_id=run.study_id,
            run_id=run.id,
            lane=lane,
            now=now,
        )


def _superseded_and_not_told(session: Session, run: AnalysisRunRow) -> Sequence[WithdrawalRow]:
    return session.scalars(
        select(WithdrawalRow)
        .join(AnalysisRunRow, AnalysisRunRow.id == WithdrawalRow.run_id)
        .where(
            AnalysisRunRow.study_id == run.study_id,
            AnalysisRunRow.model_id == run.model_id,
            AnalysisRunRow.id < run.id,
            WithdrawalRow.who == "",
            WithdrawalRow.is_queued.is_(False),
        )
        .order_by(WithdrawalRow.id)
    ).all()


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
        queue_notice(
            session,
            f"{CORRECTION}{row.run_id}:{int(now.timestamp())}",
            row.destination,
            kind=DeliveryKind.RESULT,
            study_id=row.study_id,
            run_id=row.run_id,
            lane=row.lane,
            place=row.place,
            now=now,
        )


def has_notices_to_queue(session: Session) -> bool:
    """Return whether anything happened whose notices are not queued yet; reads without any lock."""
    changes = select(PriorityEventRow.id).where(PriorityEventRow.is_queued.is_(False))
    withdrawals = select(WithdrawalRow.id).where(_withdrawn_and_not_queued())
    return any(session.scalar(one.limit(1)) is not None for one in (changes, withdrawals))


def _withdrawn_and_not_queued() -> ColumnElement[bool]:
    # Of what a newer run superseded once that run is over: until then it is the best there is.
    is_certain = or_(WithdrawalRow.who != "", WithdrawalRow.state == WithdrawalState.DONE)
    return and_(WithdrawalRow.is_queued.is_(False), is_certain)


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
        result = routed(study, run or None)
        for destination in _told_of(destinations, DeliveryKind.PRIORITY):
            if destination.route.takes(result):
                queue_notice(
                    session,
                    f"priority:{event.id}",
                    destination.name,
                    kind=DeliveryKind.PRIORITY,
                    study_id=event.study_id,
                    run_id=event.run_id,
                    lane=f"study:{event.study_id}",
                    now=now,
                )


def queue_withdrawal_notices(
    session: Session, destinations: Sequence[Destination], *, now: datetime
) -> None:
    """Queue the notices of the results that were taken back and whose notices are not queued yet.

    They go, after what was told of the result, to those that were told of it, or may have been;
    what a person withdrew also to those that are told of withdrawals alone. Of what a newer run
    superseded, the notice was queued with that run's result; here is what had no such successor.
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
        lane = f"run:{withdrawal.run_id}"
        _queue_withdrawal(session, withdrawal, destinations, lane=lane, now=now)


def _queue_withdrawal(
    session: Session,
    withdrawal: WithdrawalRow,
    destinations: Sequence[Destination],
    *,
    lane: str,
    place: int = 0,
    now: datetime,
) -> None:
    run = withdrawal.run
    told = told_of_result(session, run.id)
    for destination in _told_of(destinations, DeliveryKind.WITHDRAWAL):
        is_alone = bool(withdrawal.who) and _is_told_withdrawals_alone(destination, run)
        if destination.name in told or is_alone:
            queue_notice(
                session,
                f"withdrawal:{withdrawal.id}",
                destination.name,
                kind=DeliveryKind.WITHDRAWAL,
                study_id=run.study_id,
                run_id=run.id,
                lane=lane,
                place=place,
                now=now,
            )


def _is_told_withdrawals_alone(destination: NoticeDestination, run: AnalysisRunRow) -> bool:
    is_told_results = DeliveryKind.RESULT in destination.notices
    return not is_told_results and destination.route.takes(routed(run.study, run))


def _told_of(
    destinations: Sequence[Destination], kind: DeliveryKind
) -> Iterator[NoticeDestination]:
    for destination in destinations:
        if isinstance(destination, NoticeDestination) and kind in destination.notices:
            yield destination
