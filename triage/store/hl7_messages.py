"""Received HL7 messages as they came: so that nothing is done twice, and nothing is lost."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from triage.store.order_tables import Hl7MessageRow, MessageState


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message as it came, with what its header says of it as far as that could be read."""

    content: bytes
    address: str
    received_at: datetime
    sender: str = ""
    control_id: str = ""
    message_type: str = ""

    @property
    def sha256(self) -> str:
        """The digest of its bytes."""
        return hashlib.sha256(self.content).hexdigest()


def find_same(session: Session, message: ReceivedMessage) -> Hl7MessageRow | None:
    """Return the row of this very message if it came before, locked.

    The control id alone would not do: systems begin to count anew after a restart.
    """
    return session.scalar(
        select(Hl7MessageRow)
        .where(
            Hl7MessageRow.sender == message.sender[:128],
            Hl7MessageRow.control_id == message.control_id[:199],
            Hl7MessageRow.sha256 == message.sha256,
        )
        .with_for_update()
    )


def keep_message(
    session: Session, message: ReceivedMessage, state: MessageState, said: str, *, now: datetime
) -> None:
    """Write the message and what became of it, over what became of it before."""
    row = find_same(session, message)
    if row is None:
        row = Hl7MessageRow(
            sender=message.sender[:128],
            control_id=message.control_id[:199],
            sha256=message.sha256,
            message_type=message.message_type[:16],
            address=message.address[:64],
            content=message.content,
            received_at=message.received_at,
        )
        session.add(row)
    row.state, row.said, row.processed_at = state, said, now
    session.flush()


def newest_messages(
    session: Session, *, state: MessageState | None = None, limit: int = 100
) -> Sequence[Hl7MessageRow]:
    """Return the newest messages, of one state or of all, newest first."""
    wanted = select(Hl7MessageRow).order_by(
        Hl7MessageRow.received_at.desc(), Hl7MessageRow.id.desc()
    )
    if state is not None:
        wanted = wanted.where(Hl7MessageRow.state == state)
    return session.scalars(wanted.limit(limit)).all()


def forget_messages(session: Session, *, older_than: timedelta, now: datetime) -> int:
    """Delete the messages that were kept long enough, and return how many there were."""
    gone = session.scalars(
        delete(Hl7MessageRow)
        .where(Hl7MessageRow.received_at < now - older_than)
        .returning(Hl7MessageRow.id)
    ).all()
    return len(gone)
