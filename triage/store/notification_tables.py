"""The tables of notifications to people: what they are told of, the messages, and what became."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from triage.core.notifications import MessageKind, MessageState, NotificationState
from triage.core.priority import Priority
from triage.store.base import Key, Table, state_of

_SPEAKS = text("state NOT IN ('withdrawn', 'suppressed')")


class NotificationRow(Table):
    """A finding class of a study that people are told of, once.

    `finding_class` is the code with its scheme. `run_id` is the newest run that found it. `steps`
    counts the steps of the rule that were told; `due_at` is when it is looked at next, None when it
    is over. `reason` says why it is not told, waits, or is over. It holds no patient data.
    """

    __tablename__ = "notifications"
    __table_args__ = (
        Index(
            "uq_notifications_study_id_finding_class",
            "study_id",
            "finding_class",
            unique=True,
            sqlite_where=_SPEAKS,
            postgresql_where=_SPEAKS,
        ),
        Index("ix_notifications_due_at", "due_at"),
        Index("ix_notifications_state", "state", "id"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("analysis_runs.id"), index=True)
    finding_key: Mapped[str] = mapped_column(String(64))
    finding_class: Mapped[str] = mapped_column(String(96))
    title: Mapped[str] = mapped_column(String(64))
    said: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(String(160))
    priority: Mapped[Priority]
    rule: Mapped[str] = mapped_column(String(64))
    state: Mapped[NotificationState] = mapped_column(
        state_of(NotificationState), default=NotificationState.PENDING
    )
    reason: Mapped[str] = mapped_column(Text, default="")
    steps: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime | None] = mapped_column(default=None)
    created_at: Mapped[datetime]
    told_at: Mapped[datetime | None] = mapped_column(default=None)
    acknowledged_at: Mapped[datetime | None] = mapped_column(default=None)
    acknowledged_by: Mapped[str] = mapped_column(String(160), default="")
    acknowledged_via: Mapped[str] = mapped_column(String(64), default="")
    closed_at: Mapped[datetime | None] = mapped_column(default=None)

    messages: Mapped[list[NotificationMessageRow]] = relationship(
        back_populates="notification", order_by="NotificationMessageRow.id"
    )
    events: Mapped[list[NotificationEventRow]] = relationship(order_by="NotificationEventRow.id")


class NotificationMessageRow(Table):
    """What one person is told over one channel, as an outbox of its own.

    `held` is the `triage.core.notifications.HoldReason` why it was not told at once. Messages that
    go out together carry the same `digest`, which is then their identity, so that an attempt after
    a crash is the same digest.
    """

    __tablename__ = "notification_messages"
    __table_args__ = (
        UniqueConstraint(
            "notification_id",
            "kind",
            "step",
            "recipient",
            "channel",
            name="uq_notification_messages_once",
        ),
        Index("ix_notification_messages_due", "channel", "state", "due_at"),
        Index("ix_notification_messages_recipient", "recipient", "created_at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    notification_id: Mapped[int] = mapped_column(ForeignKey("notifications.id"))
    kind: Mapped[MessageKind] = mapped_column(state_of(MessageKind), default=MessageKind.ALERT)
    step: Mapped[int]
    recipient: Mapped[str] = mapped_column(String(64))
    channel: Mapped[str] = mapped_column(String(64))
    state: Mapped[MessageState] = mapped_column(state_of(MessageState))
    held: Mapped[str] = mapped_column(Text, default="")
    digest: Mapped[str] = mapped_column(String(36), default="")
    created_at: Mapped[datetime]
    due_at: Mapped[datetime]
    lease_until: Mapped[datetime | None] = mapped_column(default=None)
    attempts: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str] = mapped_column(Text, default="")
    sent_at: Mapped[datetime | None] = mapped_column(default=None)

    notification: Mapped[NotificationRow] = relationship(back_populates="messages")


class NotificationEventRow(Table):
    """A line on a notification's time line. Rows are only ever added.

    `kind` is one of: raised, found-again, waits, told, held, suppressed, sent, undeliverable,
    acknowledged, expired, withdrawn, fault.
    """

    __tablename__ = "notification_events"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    notification_id: Mapped[int] = mapped_column(ForeignKey("notifications.id"), index=True)
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(32))
    who: Mapped[str] = mapped_column(String(160), default="")
    text: Mapped[str] = mapped_column(Text)


class NotificationSnoozeRow(Table):
    """A person who asked to be left in peace until a moment."""

    __tablename__ = "notification_snoozes"

    recipient: Mapped[str] = mapped_column(String(64), primary_key=True)
    until: Mapped[datetime]
    at: Mapped[datetime]
    who: Mapped[str] = mapped_column(String(160))
