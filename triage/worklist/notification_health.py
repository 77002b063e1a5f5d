"""What an administrator must mend so that people hear of findings."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from triage.core.notifications import OPEN_STATES, MessageState, NotificationState
from triage.settings.notifications import GroupSettings, NotificationSettings
from triage.store.notification_rounds import NOBODY_IN_TIME
from triage.store.notification_tables import NotificationMessageRow, NotificationRow

_OVERDUE = timedelta(minutes=5)
_STRIDE = timedelta(minutes=15)
_A_DAY = timedelta(days=1)
_A_WEEK = timedelta(days=7)


def problems_of(session: Session, settings: NotificationSettings, now: datetime) -> tuple[str, ...]:
    """Return what is wrong, each with the fix; empty where all is well."""
    return (
        *_overdue(session, now),
        *_not_sent(session, now),
        *_not_acknowledged(session, now),
        *(said for group in settings.groups for said in _gap(group, settings, now)),
    )


def _overdue(session: Session, now: datetime) -> Iterator[str]:
    count = session.scalar(
        select(func.count(NotificationRow.id)).where(
            NotificationRow.state.in_(OPEN_STATES), NotificationRow.due_at < now - _OVERDUE
        )
    )
    if count:
        yield f"{count} wait for a worker to decide who is told; start `triage work`"


def _not_sent(session: Session, now: datetime) -> Iterator[str]:
    """Yield one line for each channel that does not take messages, with what it said last."""
    rows = session.scalars(
        select(NotificationMessageRow)
        .where(
            NotificationMessageRow.last_error != "",
            NotificationMessageRow.state.in_(
                (MessageState.WAITING, MessageState.HELD, MessageState.DEAD)
            ),
            NotificationMessageRow.created_at >= now - _A_DAY,
        )
        .order_by(NotificationMessageRow.id)
    ).all()
    newest = {row.channel: row for row in rows}
    for channel, row in sorted(newest.items()):
        count = sum(one.channel == channel for one in rows)
        yield f"{count} messages by {channel} did not arrive in the last day: {row.last_error}"


def _not_acknowledged(session: Session, now: datetime) -> Iterator[str]:
    count = session.scalar(
        select(func.count(NotificationRow.id)).where(
            NotificationRow.state == NotificationState.EXPIRED,
            NotificationRow.reason == NOBODY_IN_TIME,
            NotificationRow.created_at >= now - _A_DAY,
        )
    )
    if count:
        yield f"{count} of the last day nobody acknowledged in time; look at the steps of the rules"


def _gap(group: GroupSettings, settings: NotificationSettings, now: datetime) -> Iterator[str]:
    """Yield the first time of the coming week at which nobody of the group is on call."""
    if group.members:
        return
    zone = group.time_zone or settings.time_zone
    shifts = [shift.in_zone(zone) for shift in group.shifts]
    for step in range(_A_WEEK // _STRIDE):
        at = now + step * _STRIDE
        if not any(hours.holds(at) for hours in shifts):
            yield (
                f"nobody of {group.name} is on call at {at:%a %Y-%m-%d %H:%M} UTC, so all of them "
                "are told; close the gap between its shifts"
            )
            return
