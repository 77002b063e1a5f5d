"""Received HL7 messages as an administrator sees them: what became of each, never what it says."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from triage.store.hl7_messages import newest_messages
from triage.store.order_tables import Hl7MessageRow, MessageState


class MessageView(BaseModel):
    """A received message without its content, which has patient data."""

    model_config = ConfigDict(frozen=True)

    message_id: int
    received_at: datetime
    sender: str
    address: str
    message_type: str
    control_id: str
    state: MessageState
    said: str


class ReceivedMessages(BaseModel):
    """The newest messages, newest first, and how many are kept of each state."""

    model_config = ConfigDict(frozen=True)

    counts: dict[str, int]
    messages: tuple[MessageView, ...]


def received_messages(session: Session, state: MessageState | None = None) -> ReceivedMessages:
    """Return the newest messages, of one state or of all."""
    counted = session.execute(
        select(Hl7MessageRow.state, func.count()).group_by(Hl7MessageRow.state)
    )
    found = {row[0]: row[1] for row in counted}
    return ReceivedMessages(
        counts={one.value: found.get(one, 0) for one in MessageState},
        messages=tuple(_view(row) for row in newest_messages(session, state=state)),
    )


def _view(row: Hl7MessageRow) -> MessageView:
    return MessageView(
        message_id=row.id,
        received_at=row.received_at,
        sender=row.sender,
        address=row.address,
        message_type=row.message_type,
        control_id=row.control_id,
        state=row.state,
        said=row.said,
    )
