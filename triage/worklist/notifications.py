"""Notifications as pages, the API and the commands show them, and their figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from triage.core.notifications import (
    OPEN_STATES,
    MessageKind,
    MessageState,
    NotificationState,
)
from triage.settings.notifications import BROWSER
from triage.store.notification_tables import NotificationMessageRow, NotificationRow
from triage.store.tables import StudyRow
from triage.worklist.wording import person_name

PAGE_SIZE = 50
Shown = Literal["mine", "open", "all"]
_BELL_SIZE = 5


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class NotificationView(_View):
    """A notification. `patient` is for pages and programs that show the worklist, too."""

    notification_id: int
    study_instance_uid: str
    patient: str
    modalities: tuple[str, ...]
    description: str
    finding: str
    said: str
    model: str
    priority: Literal["low", "routine", "high", "stat"]
    rule: str
    state: NotificationState
    reason: str
    step: int
    due_at: datetime | None
    created_at: datetime
    told_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str
    acknowledged_via: str

    @property
    def can_be_acknowledged(self) -> bool:
        """Whether somebody may still say that they have seen it."""
        return self.state.is_open or self.state is NotificationState.EXPIRED


class MessageView(_View):
    """What one person is told over one channel."""

    recipient: str
    channel: str
    kind: MessageKind
    step: int
    state: MessageState
    held: str
    due_at: datetime
    sent_at: datetime | None
    attempts: int
    last_error: str


class EventView(_View):
    """A line of a notification's time line."""

    at: datetime
    kind: str
    who: str
    text: str


class NotificationDetail(NotificationView):
    """A notification with whom it was told to, and all that became of it."""

    messages: tuple[MessageView, ...]
    events: tuple[EventView, ...]


class Notifications(_View):
    """Part of the list, the open ones first, then the newest."""

    total: int
    entries: tuple[NotificationView, ...]


class Bell(_View):
    """What the bell of a person shows: how many wait for an acknowledgement, and the first."""

    count: int
    entries: tuple[NotificationView, ...]


class Figures(_View):
    """What became of the notifications of some days.

    `median_s` and `p90_s` are from the flag to the acknowledgement; None where there was none.
    `held` counts messages that went into digests by why.
    """

    days: int
    total: int
    states: dict[NotificationState, int]
    escalated: int
    median_s: float | None
    p90_s: float | None
    reasons: dict[str, int]
    held: dict[str, int]


@dataclass(frozen=True, slots=True)
class Reader:
    """Who looks: a recipient by name, or, with None, a browser of nobody in particular.

    Where nobody logs in, a browser stands for everybody who is told by browser.
    """

    recipient: str | None


def list_notifications(
    session: Session,
    shown: Shown,
    reader: Reader,
    *,
    offset: int = 0,
    limit: int = PAGE_SIZE,
) -> Notifications:
    """Return those that a reader asks for: theirs, all that are open, or all."""
    conditions: list[ColumnElement[bool]] = []
    if shown == "open":
        conditions.append(NotificationRow.state.in_(OPEN_STATES))
    elif shown == "mine":
        conditions.append(_was_told(reader, browser_only=False))
    total = session.scalar(select(func.count(NotificationRow.id)).where(*conditions)) or 0
    is_closed = NotificationRow.state.not_in(OPEN_STATES)
    rows = session.execute(
        select(NotificationRow, StudyRow)
        .join(StudyRow, StudyRow.id == NotificationRow.study_id)
        .where(*conditions)
        .order_by(is_closed, NotificationRow.id.desc())
        .offset(offset)
        .limit(limit)
    ).all()
    return Notifications(total=total, entries=tuple(_view(row, study) for row, study in rows))


def bell_of(session: Session, reader: Reader) -> Bell:
    """Return what waits for the reader's acknowledgement and was told by browser."""
    conditions = (NotificationRow.state.in_(OPEN_STATES), _was_told(reader, browser_only=True))
    total = session.scalar(select(func.count(NotificationRow.id)).where(*conditions)) or 0
    rows = session.execute(
        select(NotificationRow, StudyRow)
        .join(StudyRow, StudyRow.id == NotificationRow.study_id)
        .where(*conditions)
        .order_by(NotificationRow.priority.desc(), NotificationRow.id.desc())
        .limit(_BELL_SIZE)
    ).all()
    return Bell(count=total, entries=tuple(_view(row, study) for row, study in rows))


def find_notification(session: Session, number: int) -> NotificationDetail | None:
    """Return one with its messages and its time line, or None."""
    row = session.get(NotificationRow, number)
    if row is None:
        return None
    study = session.get_one(StudyRow, row.study_id)
    return NotificationDetail(
        **dict(_view(row, study)),
        messages=tuple(
            MessageView.model_validate(message, from_attributes=True) for message in row.messages
        ),
        events=tuple(EventView.model_validate(one, from_attributes=True) for one in row.events),
    )


def figures_of(session: Session, *, days: int, now: datetime) -> Figures:
    """Return what became of the notifications that were made in the last days."""
    since = now - timedelta(days=days)
    rows = session.scalars(select(NotificationRow).where(NotificationRow.created_at >= since)).all()
    seconds = sorted(
        (row.acknowledged_at - row.created_at).total_seconds()
        for row in rows
        if row.acknowledged_at is not None
    )
    untold = (NotificationState.SUPPRESSED, NotificationState.EXPIRED)
    held = session.execute(
        select(NotificationMessageRow.held, func.count().label("number"))
        .where(NotificationMessageRow.created_at >= since, NotificationMessageRow.held != "")
        .group_by(NotificationMessageRow.held)
    )
    return Figures(
        days=days,
        total=len(rows),
        states=dict(Counter(row.state for row in rows)),
        escalated=_count_escalated(session, since),
        median_s=_quantile(seconds, 0.5),
        p90_s=_quantile(seconds, 0.9),
        reasons=dict(Counter(row.reason for row in rows if row.state in untold)),
        held={row.held: row.number for row in held},
    )


def _count_escalated(session: Session, since: datetime) -> int:
    later = select(func.count(func.distinct(NotificationMessageRow.notification_id))).where(
        NotificationMessageRow.created_at >= since,
        NotificationMessageRow.kind == MessageKind.ALERT,
        NotificationMessageRow.step > 1,
    )
    return session.scalar(later) or 0


def _quantile(values: Sequence[float], share: float) -> float | None:
    """Return the least value that at least `share` of them do not exceed."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else None


def _was_told(reader: Reader, *, browser_only: bool) -> ColumnElement[bool]:
    told = select(NotificationMessageRow.id).where(
        NotificationMessageRow.notification_id == NotificationRow.id,
        NotificationMessageRow.kind == MessageKind.ALERT,
    )
    if reader.recipient is not None:
        told = told.where(NotificationMessageRow.recipient == reader.recipient)
    if browser_only:
        told = told.where(
            NotificationMessageRow.channel == BROWSER,
            NotificationMessageRow.state == MessageState.SENT,
        )
    return exists(told)


def _view(row: NotificationRow, study: StudyRow) -> NotificationView:
    return NotificationView.model_validate(
        {
            "notification_id": row.id,
            "study_instance_uid": study.study_instance_uid,
            "patient": person_name(study.patient.name),
            "modalities": tuple(filter(None, study.modalities.split("\\"))),
            "description": study.description,
            "finding": row.title,
            "said": row.said,
            "model": row.model,
            "priority": row.priority.name.lower(),
            "rule": row.rule,
            "state": row.state,
            "reason": row.reason,
            "step": row.steps,
            "due_at": row.due_at,
            "created_at": row.created_at,
            "told_at": row.told_at,
            "acknowledged_at": row.acknowledged_at,
            "acknowledged_by": row.acknowledged_by,
            "acknowledged_via": row.acknowledged_via,
        }
    )
