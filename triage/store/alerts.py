"""The alerts about live models, as `triage.store.watch_alerts` raised them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.store.model_tables import ModelAlertRow, ModelRow


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule that a model broke, as it was when it was found; open until `cleared_at`."""

    model: str
    version: str
    rule: str
    text: str
    raised_at: datetime
    cleared_at: datetime | None = None


def open_alerts(session: Session, model_id: int | None = None) -> tuple[Alert, ...]:
    """Return the alerts that are not cleared, of one model version or of all, the newest first."""
    query = (
        select(ModelAlertRow, ModelRow)
        .join(ModelRow, ModelRow.id == ModelAlertRow.model_id)
        .where(ModelAlertRow.cleared_at.is_(None))
        .order_by(ModelAlertRow.raised_at.desc(), ModelAlertRow.id.desc())
    )
    if model_id is not None:
        query = query.where(ModelAlertRow.model_id == model_id)
    return tuple(alert_of(row, model) for row, model in session.execute(query))


def alerts_since(session: Session, model: ModelRow, since: datetime) -> tuple[Alert, ...]:
    """Return the alerts of a model version that are open, or were cleared after `since`."""
    rows = session.scalars(
        select(ModelAlertRow)
        .where(
            ModelAlertRow.model_id == model.id,
            ModelAlertRow.cleared_at.is_(None) | (ModelAlertRow.cleared_at >= since),
        )
        .order_by(ModelAlertRow.cleared_at.is_not(None), ModelAlertRow.raised_at.desc())
    )
    return tuple(alert_of(row, model) for row in rows)


def alert_of(row: ModelAlertRow, model: ModelRow) -> Alert:
    """Return what a row says."""
    return Alert(model.name, model.version, row.rule, row.text, row.raised_at, row.cleared_at)
