"""Leases on pieces of housekeeping, so that of several processes one does the work."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from triage.store.tables import MaintenanceRow


def take_lease(
    session: Session, name: str, holder: str, *, lease: timedelta, now: datetime
) -> bool:
    """Take or renew the lease `name` for `holder`, and return whether it is the holder's."""
    dialect = session.get_bind().dialect.name
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    first = insert(MaintenanceRow).values(name=name, holder=holder, lease_until=now + lease)
    session.execute(first.on_conflict_do_nothing())
    row = session.scalars(
        select(MaintenanceRow).where(MaintenanceRow.name == name).with_for_update()
    ).one()
    if row.holder != holder and row.lease_until >= now:
        return False
    row.holder, row.lease_until = holder, now + lease
    session.flush()
    return True


def give_up_lease(session: Session, name: str, holder: str) -> None:
    """Let others take the lease, if it is the holder's."""
    session.execute(
        delete(MaintenanceRow).where(MaintenanceRow.name == name, MaintenanceRow.holder == holder)
    )
