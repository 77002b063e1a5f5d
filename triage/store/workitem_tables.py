"""The tables of unified procedure steps: workitems, who is subscribed, and what they are told."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from triage.core.workitems import StepPriority, StepState
from triage.store.base import Key, Table, state_of


class Channel(StrEnum):
    """How a subscriber hears of events: we call it, or it has called us."""

    DIMSE = "dimse"
    WEBSOCKET = "websocket"


class EventState(StrEnum):
    """Whether a subscriber was told of an event; DEAD is given up."""

    WAITING = "waiting"
    SENT = "sent"
    DEAD = "dead"


class WorkitemRow(Table):
    """A unified procedure step (DICOM PS3.4 annex CC).

    `study_id` is set where Triage made it so that the study be read. `attributes` are in the DICOM
    JSON model; what is a column too is kept the same. `transaction_uid` is the lock of whoever
    claimed it and is never given out. `asked_priority` is what another system asked for, which may
    only raise what the study's own priority says.
    """

    __tablename__ = "workitems"
    __table_args__ = (
        Index("ix_workitems_study_id", "study_id", "id"),
        Index("ix_workitems_state", "state", "finished_at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    study_id: Mapped[int | None] = mapped_column(ForeignKey("studies.id"), default=None)
    state: Mapped[StepState] = mapped_column(state_of(StepState), default=StepState.SCHEDULED)
    priority: Mapped[StepPriority] = mapped_column(state_of(StepPriority))
    asked_priority: Mapped[StepPriority | None] = mapped_column(
        state_of(StepPriority), default=None
    )
    transaction_uid: Mapped[str] = mapped_column(String(64), default="")
    attributes: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None] = mapped_column(default=None)


class WorkitemSubscriptionRow(Table):
    """An application entity that is told of what becomes of one workitem."""

    __tablename__ = "workitem_subscriptions"
    __table_args__ = (UniqueConstraint("workitem_id", "ae_title"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    workitem_id: Mapped[int] = mapped_column(ForeignKey("workitems.id", ondelete="CASCADE"))
    ae_title: Mapped[str] = mapped_column(String(16), index=True)
    channel: Mapped[Channel] = mapped_column(state_of(Channel))
    has_deletion_lock: Mapped[bool]


class GlobalSubscriptionRow(Table):
    """An application entity that is subscribed to each new workitem, or to those that match.

    `filter_keys` are in the DICOM JSON model and empty where all match. `worklist_label` is what
    workitems without a Worklist Label of their own were said to have when the filter was set.
    """

    __tablename__ = "workitem_global_subscriptions"
    __table_args__ = (UniqueConstraint("ae_title", "is_filtered"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    ae_title: Mapped[str] = mapped_column(String(16))
    is_filtered: Mapped[bool]
    filter_keys: Mapped[dict[str, Any]]
    worklist_label: Mapped[str] = mapped_column(String(64), default="")
    channel: Mapped[Channel] = mapped_column(state_of(Channel))
    has_deletion_lock: Mapped[bool]


class WorkitemEventRow(Table):
    """An event that one subscriber is to be told of; they are told in the order of `id`.

    `next_attempt_at` is also the lease of the process `claimed_by` that is calling.
    """

    __tablename__ = "workitem_events"
    __table_args__ = (
        Index("ix_workitem_events_due", "state", "channel", "next_attempt_at"),
        Index("ix_workitem_events_ae_title", "ae_title", "state", "id"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    ae_title: Mapped[str] = mapped_column(String(16))
    channel: Mapped[Channel] = mapped_column(state_of(Channel))
    event_type: Mapped[int]
    information: Mapped[dict[str, Any]]
    state: Mapped[EventState] = mapped_column(state_of(EventState), default=EventState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    claimed_by: Mapped[str] = mapped_column(String(128), default="")
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None] = mapped_column(default=None)
    last_error: Mapped[str] = mapped_column(Text, default="")
