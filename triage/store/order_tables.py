"""The tables of what HL7 messages tell: orders, merged patients, and the messages themselves."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from triage.core.priority import Priority
from triage.store.base import Key, Table, state_of


class OrderRow(Table):
    """An imaging order, as the newest message of it says; its study may come later.

    `identifiers` are pairs of Patient ID and issuer. `stated_at` is when `source` said so.
    `priority` is None where no message said one.
    """

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    source: Mapped[str] = mapped_column(String(128))
    accession_number: Mapped[str] = mapped_column(String(64), default="", index=True)
    placer_number: Mapped[str] = mapped_column(String(64), default="", index=True)
    filler_number: Mapped[str] = mapped_column(String(64), default="", index=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), default="", index=True)
    identifiers: Mapped[list[Any]]
    priority: Mapped[Priority | None] = mapped_column(default=None)
    location: Mapped[str] = mapped_column(String(128), default="")
    patient_class: Mapped[str] = mapped_column(String(16), default="")
    reason: Mapped[str] = mapped_column(Text, default="")
    procedure_code: Mapped[str] = mapped_column(String(64), default="")
    procedure_text: Mapped[str] = mapped_column(String(256), default="")
    procedure_scheme: Mapped[str] = mapped_column(String(64), default="")
    ordered_at: Mapped[datetime | None] = mapped_column(default=None)
    stated_at: Mapped[datetime]
    is_cancelled: Mapped[bool] = mapped_column(default=False)
    updated_at: Mapped[datetime] = mapped_column(index=True)


class PatientMergeRow(Table):
    """A Patient ID that is no longer used, and the one that took its place (ADT^A40).

    It is kept for good: images under the old one may still come.
    """

    __tablename__ = "patient_merges"
    __table_args__ = (UniqueConstraint("retired_id", "retired_issuer"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    retired_id: Mapped[str] = mapped_column(String(128))
    retired_issuer: Mapped[str] = mapped_column(String(128), default="")
    survivor_id: Mapped[str] = mapped_column(String(128))
    survivor_issuer: Mapped[str] = mapped_column(String(128), default="")
    source: Mapped[str] = mapped_column(String(128))
    at: Mapped[datetime]


class MessageState(StrEnum):
    """What became of a message that was received: done, of no concern, or not understood."""

    DONE = "done"
    IGNORED = "ignored"
    REFUSED = "refused"


class Hl7MessageRow(Table):
    """A received HL7 message as it came, until retention takes it away.

    `content` holds patient data. `sender` is application and facility. `said` is what was done, or
    why it was not.
    """

    __tablename__ = "hl7_messages"
    __table_args__ = (
        UniqueConstraint("sender", "control_id", "sha256"),
        Index("ix_hl7_messages_state", "state", "received_at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    sender: Mapped[str] = mapped_column(String(128))
    control_id: Mapped[str] = mapped_column(String(199))
    sha256: Mapped[str] = mapped_column(String(64))
    message_type: Mapped[str] = mapped_column(String(16), default="")
    address: Mapped[str] = mapped_column(String(64), default="")
    state: Mapped[MessageState] = mapped_column(state_of(MessageState))
    said: Mapped[str] = mapped_column(Text, default="")
    content: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[datetime] = mapped_column(index=True)
    processed_at: Mapped[datetime | None] = mapped_column(default=None)
