"""Heartbeats of the workers, so that a person can see which are there."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from triage.store.tables import WorkerRow

_IS_ALIVE_FOR = timedelta(seconds=15)
_IS_FORGOTTEN_AFTER = timedelta(days=1)


def beat(
    session: Session,
    name: str,
    *,
    device: str,
    warm_models: str,
    prefect_error: str = "",
    now: datetime,
) -> None:
    """Say that the worker is alive, what it hosts and whether it reaches Prefect."""
    row = session.get(WorkerRow, name)
    if row is None:
        row = WorkerRow(name=name, alive_at=now)
        session.add(row)
    row.alive_at = now
    row.device = device
    row.warm_models = warm_models
    row.prefect_error = prefect_error
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
