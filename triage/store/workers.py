"""Heartbeats of the workers, so that a person can see which are there and how they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from triage.core.devices import DeviceState
from triage.store.tables import WorkerRow

_IS_ALIVE_FOR = timedelta(seconds=15)
_IS_FORGOTTEN_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a worker says of itself; `doing` is the step of each of its runs, by the run's id."""

    device: str
    warm_models: str
    prefect_error: str = ""
    version: str = ""
    devices: Sequence[DeviceState] = ()
    doing: Mapping[int, str] = field(default_factory=dict)


def beat(session: Session, name: str, said: Heartbeat, *, now: datetime) -> None:
    """Say that the worker is alive, what it hosts and whether it reaches Prefect."""
    row = session.get(WorkerRow, name)
    if row is None:
        row = WorkerRow(name=name, alive_at=now)
        session.add(row)
    row.alive_at = now
    row.device = said.device
    row.warm_models = said.warm_models
    row.prefect_error = said.prefect_error
    row.version = said.version
    row.devices = [state.model_dump() for state in said.devices]
    row.doing = {str(run_id): step for run_id, step in said.doing.items()}
    row.clock_ahead_s = clock_ahead_s(session, now)
    session.execute(delete(WorkerRow).where(WorkerRow.alive_at < now - _IS_FORGOTTEN_AFTER))


def alive_workers(session: Session, now: datetime) -> list[WorkerRow]:
    """Return the workers whose heartbeat is recent."""
    return list(
        session.scalars(
            select(WorkerRow)
            .where(WorkerRow.alive_at >= now - _IS_ALIVE_FOR)
            .order_by(WorkerRow.name)
        )
    )


def lost_workers(session: Session, now: datetime) -> list[WorkerRow]:
    """Return the workers of the last day that are silent now."""
    return list(
        session.scalars(
            select(WorkerRow)
            .where(WorkerRow.alive_at < now - _IS_ALIVE_FOR)
            .order_by(WorkerRow.name)
        )
    )


def clock_ahead_s(session: Session, now: datetime) -> float:
    """Return how far `now`, by this machine's clock, is ahead of the database's clock.

    SQLite has no clock of its own: its file is on this machine.
    """
    if session.get_bind().dialect.name != "postgresql":
        return 0.0
    theirs: datetime = session.scalars(select(func.clock_timestamp())).one()
    return round((now - theirs.astimezone(UTC)).total_seconds(), 3)
