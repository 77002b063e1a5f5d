"""Attempts that failed: written beside the outcome of their delivery, read for a study's life."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from triage.store.attempt_tables import FailedAttemptRow
from triage.store.outbox.due import label_of
from triage.store.tables import DeliveryRow


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """When an attempt failed, what was to be delivered where, and what came of it."""

    at: datetime
    label: str
    destination: str
    number: int
    answer: str


def failed_attempts(session: Session, study_id: int) -> Sequence[FailedAttempt]:
    """Return the attempts that failed to deliver what belongs to a study, the oldest first."""
    rows = session.execute(
        select(FailedAttemptRow, DeliveryRow)
        .join(DeliveryRow, DeliveryRow.id == FailedAttemptRow.delivery_id)
        .where(DeliveryRow.study_id == study_id)
        .options(joinedload(DeliveryRow.result_object))
        .order_by(FailedAttemptRow.id)
    )
    return [
        FailedAttempt(row.at, label_of(delivery), delivery.destination, row.number, row.answer)
        for row, delivery in rows
    ]
