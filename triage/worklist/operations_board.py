"""The board of operations: queues, what runs, workers, disk, quarantine, and how all is reached."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, joinedload

from triage.core.devices import DeviceState
from triage.core.jobs import JobState
from triage.core.remote import ReturnedState
from triage.core.runs import DeliveryState, RunState, StudyState
from triage.core.stages import COUNTING_STAGES, Stage
from triage.store.model_tables import ModelJobRow
from triage.store.tables import (
    AnalysisRunRow,
    DeliveryRow,
    ReturnedObjectRow,
    StudyRow,
    WorkerRow,
)
from triage.store.visit_tables import VisitRow
from triage.store.workers import alive_workers, clock_ahead_s, lost_workers
from triage.worklist.intake import Intake, intake

_MEASURED_RUNS = 50
_LOOKED_AT = 1000
_MEASURED_IN = timedelta(days=1)
_FILLED_IN = timedelta(days=7)
_SHOWN = 50
_SKEW_S = 2.0
_DAYS_OF_A_YEAR = 365


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class QueueView(_View):
    """What waits: how many, since when the oldest, and how long the last of them may wait."""

    name: str
    length: int
    oldest_at: datetime | None = None
    expected_wait_s: float | None = None
    text: str = ""


class RunningView(_View):
    """A run in progress, but for shadows; `doing` is how far it is, by the newest heartbeat."""

    run_id: int
    model: str
    stage: Stage
    study_instance_uid: str
    worker: str
    attempt: int
    started_at: datetime
    doing: str
    flow_run_id: str


class WorkerState(_View):
    """A worker, alive or lost in the last day."""

    name: str
    is_alive: bool
    alive_at: datetime
    version: str
    devices: tuple[DeviceState, ...]
    warm_models: tuple[str, ...]
    prefect_error: str
    clock_says: str


class QuarantinedView(_View):
    """An object of a remote model that belongs to no study; without anything of its content."""

    object_id: int
    calling_ae_title: str
    sop_instance_uid: str
    size_bytes: int
    received_at: datetime
    reason: str


class DiskForecast(_View):
    """How fast the disk fills, and when no image is taken any more, if nothing is deleted."""

    bytes_per_day: int
    days_left: float | None
    text: str


class Board(_View):
    """The state of the machinery."""

    intake: Intake
    queues: tuple[QueueView, ...]
    running: tuple[RunningView, ...]
    workers: tuple[WorkerState, ...]
    quarantine: tuple[QuarantinedView, ...]
    disk: DiskForecast
    clock_says: str
    version: str
    prefect: str
    prefect_is_reached: bool


class Reachability(_View):
    """What the caller knows of the surroundings: version, Prefect, and room on the disk."""

    version: str
    prefect: str
    prefect_is_reached: bool
    free_bytes: int
    minimum_free_bytes: int


def board(session: Session, now: datetime, around: Reachability) -> Board:
    """Return the state of the machinery, in a fixed number of queries."""
    alive = alive_workers(session, now)
    return Board(
        intake=intake(session, now),
        queues=_queues(session, now, len(alive)),
        running=_running(session, alive),
        workers=(
            *(_worker(row, is_alive=True) for row in alive),
            *(_worker(row, is_alive=False) for row in lost_workers(session, now)),
        ),
        quarantine=_quarantine(session),
        disk=_forecast(session, now, around),
        clock_says=skew_in_words("this machine's", clock_ahead_s(session, now)),
        version=around.version,
        prefect=around.prefect,
        prefect_is_reached=around.prefect_is_reached,
    )


def _queues(session: Session, now: datetime, workers: int) -> tuple[QueueView, ...]:
    receiving = session.execute(
        select(func.count(), func.min(StudyRow.receiving_since)).where(
            StudyRow.state == StudyState.RECEIVING
        )
    ).one()
    counting = AnalysisRunRow.stage.in_(COUNTING_STAGES)
    deliveries = session.scalars(
        select(func.count())
        .select_from(DeliveryRow)
        .where(DeliveryRow.state.in_((DeliveryState.WAITING, DeliveryState.SENDING)))
    ).one()
    jobs = session.execute(
        select(func.count(), func.min(ModelJobRow.created_at)).where(
            ModelJobRow.state == JobState.WAITING
        )
    ).one()
    return (
        QueueView(
            name="studies arriving",
            length=receiving[0],
            oldest_at=receiving[1],
            text="complete when their sender falls quiet",
        ),
        _run_queue(session, "runs waiting", counting, now, workers),
        _run_queue(session, "shadow runs waiting", ~counting, now, workers),
        QueueView(name="deliveries waiting", length=deliveries, text="by destination below"),
        QueueView(
            name="jobs of engineers",
            length=jobs[0],
            oldest_at=jobs[1],
            text="begin while no study is analysed",
        ),
    )


def _run_queue(
    session: Session, name: str, which: ColumnElement[bool], now: datetime, workers: int
) -> QueueView:
    length, oldest = session.execute(
        select(func.count(), func.min(AnalysisRunRow.created_at)).where(
            AnalysisRunRow.state == RunState.PENDING, which
        )
    ).one()
    took = _usual_run_s(session, now)
    if not length:
        return QueueView(name=name, length=0)
    if not workers:
        return QueueView(name=name, length=length, oldest_at=oldest, text="no worker is alive")
    if took is None:
        said = "no run was completed in the last day to measure by"
        return QueueView(name=name, length=length, oldest_at=oldest, text=said)
    said = f"a run usually takes {took:.1f} s"
    wait = length * took / workers
    return QueueView(
        name=name, length=length, oldest_at=oldest, expected_wait_s=round(wait, 1), text=said
    )


def _usual_run_s(session: Session, now: datetime) -> float | None:
    """Return how long a run of the last day took, by the newest of the newest thousand runs."""
    newest = select(func.coalesce(func.max(AnalysisRunRow.id), 0)).scalar_subquery()
    rows = session.execute(
        select(AnalysisRunRow.started_at, AnalysisRunRow.finished_at)
        .where(
            AnalysisRunRow.id > newest - _LOOKED_AT,  # by the key: the table has runs of years
            AnalysisRunRow.state == RunState.COMPLETED,
            AnalysisRunRow.finished_at >= now - _MEASURED_IN,
        )
        .order_by(AnalysisRunRow.finished_at.desc())
        .limit(_MEASURED_RUNS)
    ).all()
    took = [(end - start).total_seconds() for start, end in rows if start and end]
    return median(took) if took else None


def _running(session: Session, alive: Sequence[WorkerRow]) -> tuple[RunningView, ...]:
    doing = {run: str(step) for worker in alive for run, step in worker.doing.items()}
    rows = session.execute(
        select(AnalysisRunRow, StudyRow.study_instance_uid)
        .join(StudyRow, StudyRow.id == AnalysisRunRow.study_id)
        .where(
            AnalysisRunRow.state == RunState.RUNNING,
            AnalysisRunRow.stage.in_(COUNTING_STAGES),
        )
        .options(joinedload(AnalysisRunRow.model))
        .order_by(AnalysisRunRow.started_at)
        .limit(_SHOWN)
    )
    return tuple(
        RunningView(
            run_id=run.id,
            model=f"{run.model.name} {run.model.version}",
            stage=run.stage,
            study_instance_uid=uid,
            worker=run.claimed_by,
            attempt=run.attempts,
            started_at=run.started_at or run.created_at,
            doing=doing.get(str(run.id), "begun"),
            flow_run_id=run.flow_run_id,
        )
        for run, uid in rows
    )


def _worker(row: WorkerRow, *, is_alive: bool) -> WorkerState:
    return WorkerState(
        name=row.name,
        is_alive=is_alive,
        alive_at=row.alive_at,
        version=row.version,
        devices=tuple(DeviceState.model_validate(one) for one in row.devices),
        warm_models=tuple(filter(None, row.warm_models.split(", "))),
        prefect_error=row.prefect_error,
        clock_says=skew_in_words("its", row.clock_ahead_s),
    )


def skew_in_words(whose: str, ahead_s: float) -> str:
    """Return what is wrong with a clock, empty where little is."""
    if abs(ahead_s) < _SKEW_S:
        return ""
    side = "ahead of" if ahead_s > 0 else "behind"
    return f"{whose} clock is {abs(ahead_s):.0f} s {side} the database's: let NTP set both"


def _quarantine(session: Session) -> tuple[QuarantinedView, ...]:
    rows: Sequence[ReturnedObjectRow] = session.scalars(
        select(ReturnedObjectRow)
        .where(ReturnedObjectRow.state == ReturnedState.QUARANTINED)
        .order_by(ReturnedObjectRow.id.desc())
        .limit(_SHOWN)
    ).all()
    return tuple(
        QuarantinedView(
            object_id=row.id,
            calling_ae_title=row.calling_ae_title,
            sop_instance_uid=row.sop_instance_uid,
            size_bytes=row.size_bytes,
            received_at=row.received_at,
            reason=row.said,
        )
        for row in rows
    )


def _forecast(session: Session, now: datetime, around: Reachability) -> DiskForecast:
    size, since = session.execute(
        select(func.coalesce(func.sum(VisitRow.size_bytes), 0), func.min(VisitRow.began_at)).where(
            VisitRow.last_at >= now - _FILLED_IN
        )
    ).one()
    days = max((now - since) / timedelta(days=1), 1.0) if since is not None else 1.0
    per_day = int(int(size) / days)  # PostgreSQL adds up to a Decimal
    room = max(0, around.free_bytes - around.minimum_free_bytes)
    if not per_day:
        return DiskForecast(bytes_per_day=0, days_left=None, text="nothing came in the last week")
    left = room / per_day
    size_in_words = f"{per_day / 1e9:.1f} GB" if per_day >= 1e9 else f"{per_day / 1e6:.0f} MB"
    when = f"in {left:.0f} days" if left <= _DAYS_OF_A_YEAR else "in more than a year"
    return DiskForecast(
        bytes_per_day=per_day,
        days_left=round(left, 1),
        text=f"{size_in_words} a day; no image is taken {when}, if nothing is deleted until then",
    )
