"""The audit trail, and what is still to be sent to the Audit Record Repository."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, SmallInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from triage.core.audit import Action, AuditKind, Outcome
from triage.store.base import Key, Table, state_of


class AuditEventRow(Table):
    """Something that somebody saw or did; triggers refuse to change or delete it.

    `uid` is the event's own, so that one that is written again after a crash is there once.
    `kind` is the event of DICOM PS3.15 A.5.3 and `type` our own word for what was done, such as
    "log-in" or the route. `way` is how the person was known. `studies` are further studies that
    a list showed, beside `study_instance_uid`.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_who_at", "who", "at"),
        Index("ix_audit_events_kind_at", "kind", "at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    at: Mapped[datetime] = mapped_column(index=True)
    kind: Mapped[AuditKind] = mapped_column(state_of(AuditKind))
    type: Mapped[str] = mapped_column(String(128))
    action: Mapped[Action] = mapped_column(String(1))
    outcome: Mapped[Outcome] = mapped_column(SmallInteger)
    who: Mapped[str] = mapped_column(String(128))
    way: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(64))
    study_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    patient_id: Mapped[str] = mapped_column(String(128), index=True)
    studies: Mapped[list[Any]]
    detail: Mapped[str] = mapped_column(Text)


class AuditOutboxRow(Table):
    """An event that the repository has not been told of yet."""

    __tablename__ = "audit_outbox"

    event_id: Mapped[int] = mapped_column(
        Key, ForeignKey("audit_events.id"), primary_key=True, autoincrement=False
    )

    event: Mapped[AuditEventRow] = relationship()
