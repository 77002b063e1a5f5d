"""The outbox of messages to people: claimed, sent, and the outcome written.

As with deliveries to systems, the outcome is written after sending: whoever dies in between sends
again, under the same identity, so that it is the same message wherever it arrives.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, exists, or_, select
from sqlalchemy.orm import Session

from triage.core.notices import NoticeStudy
from triage.core.notifications import MessageKind, MessageState
from triage.core.priority import Priority
from triage.store.history import note
from triage.store.notices import notice_study
from triage.store.notification_rounds import mark_told
from triage.store.notification_tables import NotificationMessageRow, NotificationRow
from triage.store.notifications import add_event, locked
from triage.store.outbox import SAYING
from triage.store.tables import PausedDestinationRow, StudyRow

_NAMESPACE = uuid.UUID("b0b6c0a5-7d5e-5d0a-9d2a-6f2b8d9a1c47")
_MOST_IN_DIGEST = 100
_TO_SEND = (MessageState.WAITING, MessageState.HELD, MessageState.SENDING)


@dataclass(frozen=True, slots=True)
class MessageEntry:
    """One notification as a message tells it; `said` is the finding in words."""

    message_id: int
    notification_id: int
    title: str
    said: str
    model: str
    priority: Priority
    rule: str
    step: int
    reason: str
    raised_at: datetime
    study: NoticeStudy


@dataclass(frozen=True, slots=True)
class DueMessage:
    """A message that this worker holds: one notification at once, or a digest of several.

    `identity` is the same whenever it is sent, a UUID.
    """

    identity: str
    channel: str
    recipient: str
    kind: MessageKind
    attempt: int
    is_digest: bool
    entries: tuple[MessageEntry, ...]


def is_message_due(session: Session, channel: str, now: datetime) -> bool:
    """Return whether there is one to claim; asking takes no writer's lock."""
    return session.scalars(_due(channel, now).limit(1)).first() is not None


def claim_message(
    session: Session, channel: str, *, lease: timedelta, now: datetime
) -> DueMessage | None:
    """Claim the message of a channel that is due and oldest, with all of its digest, or None."""
    first = session.scalars(_due(channel, now).limit(1)).first()
    if first is None:
        return None
    # Its notification is what acknowledging locks, so nothing is claimed that was just cancelled.
    locked(session, first.notification_id)
    session.refresh(first, with_for_update=True)
    if not _is_due(first, now):
        return None
    rows = [first] if not first.held else _digest_with(session, first, now)
    attempt = first.attempts + 1
    for row in rows:
        row.state, row.attempts = MessageState.SENDING, attempt
        row.lease_until = now + lease
    return DueMessage(
        identity=first.digest or str(uuid.uuid5(_NAMESPACE, f"message {first.id}")),
        channel=channel,
        recipient=first.recipient,
        kind=first.kind,
        attempt=attempt,
        is_digest=bool(first.held),
        entries=tuple(_entry(session, row) for row in rows),
    )


def _due(channel: str, now: datetime) -> Select[NotificationMessageRow]:
    is_paused = exists(
        select(PausedDestinationRow.name).where(PausedDestinationRow.name == channel)
    )
    return (
        select(NotificationMessageRow)
        .join(NotificationRow, NotificationRow.id == NotificationMessageRow.notification_id)
        .where(
            NotificationMessageRow.channel == channel,
            or_(
                NotificationMessageRow.state.in_((MessageState.WAITING, MessageState.HELD))
                & (NotificationMessageRow.due_at <= now),
                (NotificationMessageRow.state == MessageState.SENDING)
                & (NotificationMessageRow.lease_until < now),
            ),
            ~is_paused,
        )
        .order_by(
            NotificationRow.priority.desc(),
            NotificationMessageRow.due_at,
            NotificationMessageRow.id,
        )
    )


def _is_due(row: NotificationMessageRow, now: datetime) -> bool:
    if row.state is MessageState.SENDING:
        return row.lease_until is not None and row.lease_until < now
    return row.state in _TO_SEND and row.due_at <= now


def _digest_with(
    session: Session, first: NotificationMessageRow, now: datetime
) -> list[NotificationMessageRow]:
    """Return what goes out together with `first`: the same as in the attempt before, if any."""
    beside = select(NotificationMessageRow).where(
        NotificationMessageRow.recipient == first.recipient,
        NotificationMessageRow.channel == first.channel,
        NotificationMessageRow.held != "",
        NotificationMessageRow.digest == first.digest,
        NotificationMessageRow.state.in_(_TO_SEND),
    )
    if not first.digest:
        beside = beside.where(NotificationMessageRow.due_at <= now)
    rows = session.scalars(
        beside.order_by(NotificationMessageRow.id)
        .limit(_MOST_IN_DIGEST)
        .with_for_update(skip_locked=True)
    ).all()
    others = [row for row in rows if row.id != first.id]
    digest = first.digest or str(uuid.uuid5(_NAMESPACE, f"digest {first.id}"))
    for row in (first, *others):
        row.digest = digest
    return [first, *others]


def _entry(session: Session, row: NotificationMessageRow) -> MessageEntry:
    notification = row.notification
    study = session.get_one(StudyRow, notification.study_id)
    return MessageEntry(
        message_id=row.id,
        notification_id=notification.id,
        title=notification.title,
        said=notification.said,
        model=notification.model,
        priority=notification.priority,
        rule=notification.rule,
        step=row.step,
        reason=row.held or notification.reason,
        raised_at=notification.created_at,
        study=notice_study(study),
    )


def mark_sent(session: Session, due: DueMessage, *, now: datetime) -> None:
    """Note that the person's server took it, also where it was cancelled on its way."""
    for row in _rows_of(session, due, (MessageState.SENDING, MessageState.CANCELLED)):
        row.state, row.sent_at = MessageState.SENT, now
        row.lease_until, row.last_error = None, ""
        mark_told(session, row.notification, row, now)


def mark_not_sent(
    session: Session, due: DueMessage, error: str, *, retry_after: timedelta | None, now: datetime
) -> None:
    """Note why the attempt failed; with `retry_after` None it was the last one.

    Where the last attempts to reach anybody of a step have failed, the next step is due at once.
    """
    for row in _rows_of(session, due, (MessageState.SENDING,)):
        row.last_error, row.lease_until = error, None
        if retry_after is not None:
            row.state = MessageState.HELD if row.held else MessageState.WAITING
            row.due_at = now + retry_after
            continue
        row.state = MessageState.DEAD
        notification = row.notification
        # Not the words of the other side: the history is never deleted.
        said = f"{row.recipient} not told by {row.channel}: {error.partition(SAYING)[0]}"
        add_event(session, notification, "undeliverable", said, now)
        note(session, notification.study_id, "undeliverable", said, at=now)
        _escalate_where_nobody_is_reached(notification, row.step, now)


def _escalate_where_nobody_is_reached(
    notification: NotificationRow, step: int, now: datetime
) -> None:
    of_step = [m for m in notification.messages if m.step == step and m.kind is MessageKind.ALERT]
    if notification.state.is_open and all(m.state is MessageState.DEAD for m in of_step):
        notification.due_at = now


def _rows_of(
    session: Session, due: DueMessage, states: Collection[MessageState]
) -> list[NotificationMessageRow]:
    """Return the rows of the message that are in one of the states, and still this attempt's."""
    for number in sorted({entry.notification_id for entry in due.entries}):
        locked(session, number)
    rows = session.scalars(
        select(NotificationMessageRow)
        .where(NotificationMessageRow.id.in_([entry.message_id for entry in due.entries]))
        .order_by(NotificationMessageRow.id)
    ).all()
    return [row for row in rows if row.state in states and row.attempts == due.attempt]
