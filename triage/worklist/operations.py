"""What an administrator must see: runs, workers, deliveries that are stuck, newest events."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from triage.core.runs import DeliveryState, RunState
from triage.core.stages import COUNTING_STAGES
from triage.settings import ReceiverSettings
from triage.store import outbox
from triage.store.alerts import open_alerts
from triage.store.breaker import parked_models
from triage.store.disk import DiskLevel, disk_level
from triage.store.history import is_for_readers, note
from triage.store.runs import count_by_state
from triage.store.tables import (
    AnalysisRunRow,
    DeliveryRow,
    StudyEventRow,
    StudyRow,
)
from triage.store.withdrawals import stuck_withdrawals
from triage.store.workers import alive_workers
from triage.worklist.study_view import DeliveryView, delivery_view
from triage.worklist.wording import without_series_uids

_SHOWN = 50
_PROBLEMS_OF = timedelta(days=7)


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class WorkerView(_View):
    """A worker that is alive."""

    name: str
    device: str
    warm_models: str
    prefect_error: str
    alive_at: datetime


class ParkedModel(_View):
    """A model that failed study after study, and when it is tried again."""

    model: str
    reason: str
    tried_again_at: datetime


class StuckDelivery(_View):
    """An object or notice that has not arrived, with the study it belongs to."""

    delivery: DeliveryView
    role: str
    study_instance_uid: str


class ProblemRun(_View):
    """A run that ended without findings."""

    run_id: int
    model: str
    state: str
    reason: str
    finished_at: datetime | None
    study_instance_uid: str


class RecentEvent(_View):
    """A line of some study's history."""

    at: datetime
    kind: str
    text: str
    study_instance_uid: str


class DiskView(_View):
    """How full the disk of the images is, in a word and in a sentence."""

    level: DiskLevel
    free_bytes: int
    text: str


class AlertView(_View):
    """A rule about live models that a model breaks."""

    model: str
    version: str
    rule: str
    text: str
    raised_at: datetime


class StuckWithdrawal(_View):
    """A withdrawn result whose rejection note could not be built yet."""

    run_id: int
    text: str
    last_error: str
    study_instance_uid: str


class Operations(_View):
    """The state of the whole."""

    disk: DiskView | None = None
    runs: dict[str, int]
    deliveries: dict[str, int]
    studies_receiving: int
    workers: tuple[WorkerView, ...]
    parked: tuple[ParkedModel, ...] = ()
    stuck: tuple[StuckDelivery, ...]
    withdrawals: tuple[StuckWithdrawal, ...] = ()
    problems: tuple[ProblemRun, ...]
    events: tuple[RecentEvent, ...]
    alerts: tuple[AlertView, ...] = ()


class DeliveryNotDeadError(Exception):
    """A delivery was to be sent again that is not dead, or does not exist."""


_DISK_SAYS = {
    DiskLevel.ROOMY: "there is room",
    DiskLevel.LOW: "little is left; make room, or let [retention] delete",
    DiskLevel.REFUSING: "no image is taken; what was accepted is analysed and delivered",
}


def disk_view(free_bytes: int, receiver: ReceiverSettings) -> DiskView:
    """Return the state of the disk as pages state it."""
    level = disk_level(free_bytes, receiver)
    return DiskView(level=level, free_bytes=free_bytes, text=_DISK_SAYS[level])


def operations(session: Session, now: datetime, disk: DiskView | None = None) -> Operations:
    """Return the state of the whole, the newest first in every list; without shadow models."""
    runs = count_by_state(session)
    counted = select(DeliveryRow.state, func.count()).group_by(DeliveryRow.state)
    deliveries = {row[0]: row[1] for row in session.execute(counted)}
    receiving = session.scalars(
        select(func.count()).select_from(StudyRow).where(StudyRow.state == "receiving")
    ).one()
    return Operations(
        disk=disk,
        runs={state.value: runs.get(state, 0) for state in RunState},
        deliveries={state.value: deliveries.get(state, 0) for state in DeliveryState},
        studies_receiving=receiving,
        workers=tuple(
            WorkerView(
                name=w.name,
                device=w.device,
                warm_models=w.warm_models,
                prefect_error=w.prefect_error,
                alive_at=w.alive_at,
            )
            for w in alive_workers(session, now)
        ),
        parked=_parked(session),
        stuck=_stuck(session),
        withdrawals=tuple(
            StuckWithdrawal(
                run_id=one.run_id,
                text=one.in_words(),
                last_error=one.last_error,
                study_instance_uid=uid,
            )
            for one, uid in stuck_withdrawals(session, _SHOWN)
        ),
        problems=_problems(session, now),
        events=_newest_events(session),
        alerts=tuple(
            AlertView(
                model=alert.model,
                version=alert.version,
                rule=alert.rule,
                text=alert.text,
                raised_at=alert.raised_at,
            )
            for alert in open_alerts(session)
        ),
    )


def resend(session: Session, delivery_id: int, *, now: datetime) -> None:
    """Give a dead delivery another round of attempts, and note who could ask: a person.

    Raises:
        DeliveryNotDeadError: it is not dead (any more), or there is no such delivery.
    """
    row = session.get(DeliveryRow, delivery_id)
    if row is None:
        raise DeliveryNotDeadError(f"there is no delivery {delivery_id}")
    if row.state is not DeliveryState.DEAD:
        raise DeliveryNotDeadError(
            f"delivery {delivery_id} is {row.state.value}; only a dead one is sent again by hand"
        )
    outbox.resend(session, delivery_id, now=now)
    what = outbox.label_of(row)
    text = f"{what} to {row.destination} is sent again at a person's request"
    note(session, row.study_id, "resent", text, at=now, run_id=row.run_id)


def _parked(session: Session) -> tuple[ParkedModel, ...]:
    return tuple(
        ParkedModel(
            model=f"{row.name} {row.version}",
            reason=row.parked_reason,
            tried_again_at=row.parked_until,
        )
        for row in parked_models(session)
        if row.parked_until is not None
    )


def _stuck(session: Session) -> tuple[StuckDelivery, ...]:
    rows = session.execute(
        select(DeliveryRow, StudyRow.study_instance_uid)
        .join(StudyRow, StudyRow.id == DeliveryRow.study_id)
        .options(joinedload(DeliveryRow.result_object))
        .where(
            DeliveryRow.state.in_(
                (DeliveryState.DEAD, DeliveryState.WAITING, DeliveryState.SENDING)
            )
        )
        .order_by(DeliveryRow.state, DeliveryRow.id.desc())  # "dead" sorts before the others
        .limit(_SHOWN)
    )
    return tuple(
        StuckDelivery(
            delivery=delivery_view(delivery), role=outbox.label_of(delivery), study_instance_uid=uid
        )
        for delivery, uid in rows
    )


def _problems(session: Session, now: datetime) -> tuple[ProblemRun, ...]:
    rows = session.execute(
        select(AnalysisRunRow, StudyRow.study_instance_uid)
        .join(StudyRow, StudyRow.id == AnalysisRunRow.study_id)
        .options(joinedload(AnalysisRunRow.model))
        .where(
            AnalysisRunRow.state.in_((RunState.FAILED, RunState.REFUSED)),
            AnalysisRunRow.stage.in_(COUNTING_STAGES),
            AnalysisRunRow.created_at >= now - _PROBLEMS_OF,
        )
        .order_by(AnalysisRunRow.id.desc())
        .limit(_SHOWN)
    )
    return tuple(
        ProblemRun(
            run_id=run.id,
            model=f"{run.model.name} {run.model.version}",
            state=run.state.value,
            reason=run.reason,
            finished_at=run.finished_at,
            study_instance_uid=uid,
        )
        for run, uid in rows
    )


def _newest_events(session: Session) -> tuple[RecentEvent, ...]:
    rows = session.execute(
        select(StudyEventRow, StudyRow.study_instance_uid)
        .join(StudyRow, StudyRow.id == StudyEventRow.study_id)
        .where(is_for_readers())
        .order_by(StudyEventRow.id.desc())
        .limit(_SHOWN)
    )
    return tuple(
        RecentEvent(
            at=row.at,
            kind=row.kind,
            text=without_series_uids(row.text),
            study_instance_uid=uid,
        )
        for row, uid in rows
    )
