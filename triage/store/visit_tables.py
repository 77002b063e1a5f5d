"""The tables of who sent what: the visits of senders to studies, and whom the receiver refused."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from triage.store.base import Key, Table


class VisitRow(Table):
    """What one sender sent of one study, in one association or in several that followed closely.

    `way` is a `triage.core.visits.Way`. `study_id` is empty for what was refused before its study
    was known. `refused` counts the instances that were not taken, `last_error` is what the sender
    was told of the last of them. `ended` is a `triage.core.visits.Ending`.
    """

    __tablename__ = "visits"
    __table_args__ = (
        Index("ix_visits_study_id_last_at", "study_id", "last_at"),
        Index("ix_visits_last_at", "last_at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    study_id: Mapped[int | None] = mapped_column(ForeignKey("studies.id"), default=None)
    way: Mapped[str] = mapped_column(String(16))
    calling_ae_title: Mapped[str] = mapped_column(String(16), default="")
    address: Mapped[str] = mapped_column(String(64), default="")
    associations: Mapped[int] = mapped_column(default=1)
    instances: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    began_at: Mapped[datetime]
    last_at: Mapped[datetime]
    ended: Mapped[str] = mapped_column(String(16))
    last_error: Mapped[str] = mapped_column(Text, default="")


class RefusedCallerRow(Table):
    """A caller whose associations the receiver rejected, and how often for this reason."""

    __tablename__ = "refused_callers"
    __table_args__ = (
        UniqueConstraint("calling_ae_title", "address", "reason"),
        Index("ix_refused_callers_last_at", "last_at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    calling_ae_title: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(String(128))
    times: Mapped[int] = mapped_column(default=1)
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
