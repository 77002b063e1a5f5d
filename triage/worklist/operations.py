"""What an administrator must see: runs, workers, deliveries that are stuck, newest events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from triage.core.runs import DeliveryState, RunState
from triage.core.stages import COUNTING_STAGES
from triage.settings import Destination, ReceiverSettings
from triage.store.alerts import open_alerts
from triage.store.breaker import parked_models
from triage.store.disk import DiskLevel, disk_level
from triage.store.history import is_for_readers
from triage.store.runs import count_by_state
from triage.store.tables import (
    AnalysisRunRow,
    DeliveryRow,
    StudyEventRow,
    StudyRow,
)
from triage.store.withdrawals import stuck_withdrawals
from triage.store.workers import alive_workers
from triage.worklist.deliveries import (
    NOT_ARRIVED,
    DeliveryQuery,
    DestinationView,
    ListedDelivery,
    list_deliveries,
    list_destinations,
)
from triage.worklist.next_steps import next_step_of
from triage.worklist.wording import without_series_uids

_SHOWN = 50
_STUCK_SHOWN = 20  # all are on a page of their own
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


class ProblemRun(_View):
    """A run that ended without findings."""

    run_id: int
    model: str
    state: str
    reason: str
    next_step: str
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
    destinations: tuple[DestinationView, ...] = ()
    stuck: tuple[ListedDelivery, ...]
    not_arrived: int = 0
    withdrawals: tuple[StuckWithdrawal, ...] = ()
    problems: tuple[ProblemRun, ...]
    events: tuple[RecentEvent, ...]
    alerts: tuple[AlertView, ...] = ()


_DISK_SAYS = {
    DiskLevel.ROOMY: "there is room",
    DiskLevel.LOW: "little is left; make room, or let [retention] delete",
    DiskLevel.REFUSING: "no image is taken; what was accepted is analysed and delivered",
}


def disk_view(free_bytes: int, receiver: ReceiverSettings) -> DiskView:
    """Return the state of the disk as pages state it."""
    level = disk_level(free_bytes, receiver)
    return DiskView(level=level, free_bytes=free_bytes, text=_DISK_SAYS[level])


def operations(
    session: Session,
    now: datetime,
    disk: DiskView | None = None,
    destinations: Sequence[Destination] = (),
) -> Operations:
    """Return the state of the whole, the newest first in every list; without shadow models.

    `destinations` are the configured ones.
    """
    stuck = list_deliveries(
        session, DeliveryQuery(states=NOT_ARRIVED), destinations, limit=_STUCK_SHOWN
    )
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
        destinations=list_destinations(session, destinations),
        stuck=stuck.entries,
        not_arrived=stuck.total,
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
            next_step=next_step_of(run.state.value, run.reason),
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
