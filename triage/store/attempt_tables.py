"""The table of attempts to deliver that failed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from triage.store.base import Key, Table


class FailedAttemptRow(Table):
    """An attempt to deliver that failed. Those that succeed are their delivery's own row.

    `number` counts from 1 again where a person sends a dead letter again. `answer` is what went
    wrong, without the words of the other side: they may name the patient, and this stays.
    """

    __tablename__ = "failed_attempts"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    delivery_id: Mapped[int] = mapped_column(ForeignKey("deliveries.id"), index=True)
    number: Mapped[int]
    at: Mapped[datetime]
    answer: Mapped[str] = mapped_column(Text)
