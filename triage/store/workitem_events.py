"""The outbox of events about workitems: each subscriber is told in order, and later if away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, or_, select, union, update
from sqlalchemy.orm import Session

from triage.core.workitem_attributes import (
    EventType,
    UpsEvent,
    going_down_report,
    restart_report,
)
from triage.core.workitems import GLOBAL_SUBSCRIPTION
from triage.store.chunks import chunks
from triage.store.workitem_tables import (
    Channel,
    EventState,
    GlobalSubscriptionRow,
    WorkitemEventRow,
    WorkitemRow,
    WorkitemSubscriptionRow,
)

_MOST_AT_ONCE = 100
# Built once: it is asked up to ten times a second.
_ANY_DUE = (
    select(WorkitemEventRow.id)
    .where(
        WorkitemEventRow.state == EventState.WAITING,
        WorkitemEventRow.channel == Channel.DIMSE,
        WorkitemEventRow.next_attempt_at <= bindparam("now"),
    )
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Subscriber:
    """An application entity, and how it hears of events."""

    ae_title: str
    channel: Channel


@dataclass(frozen=True, slots=True)
class DueEvent:
    """An event that this process is to tell a subscriber of."""

    event_id: int
    ae_title: str
    sop_instance_uid: str
    event_type: EventType
    information: dict[str, Any]
    attempt: int


def subscribers_of(session: Session, workitem_id: int) -> list[Subscriber]:
    """Return who is told of what becomes of a workitem."""
    return _subscribers(session, [workitem_id])[workitem_id]


def _subscribers(session: Session, workitem_ids: Sequence[int]) -> dict[int, list[Subscriber]]:
    row = WorkitemSubscriptionRow
    found: dict[int, list[Subscriber]] = defaultdict(list)
    for some in chunks(workitem_ids):
        for workitem_id, ae_title, channel in session.execute(
            select(row.workitem_id, row.ae_title, row.channel)
            .where(row.workitem_id.in_(some))
            .order_by(row.id)
        ):
            found[workitem_id].append(Subscriber(ae_title, channel))
    return found


def tell_all(
    session: Session, workitem: WorkitemRow, events: Sequence[UpsEvent], now: datetime
) -> None:
    """Put events of a workitem in the outbox, for each of its subscribers."""
    tell_all_of_each(session, [(workitem, events)], now)


def tell_all_of_each(
    session: Session, said: Sequence[tuple[WorkitemRow, Sequence[UpsEvent]]], now: datetime
) -> None:
    """Do the same for several workitems, whose subscribers are asked for at once."""
    said = [(workitem, events) for workitem, events in said if events]
    subscribers = _subscribers(session, [workitem.id for workitem, _ in said])
    for workitem, events in said:
        for subscriber in subscribers[workitem.id]:
            tell(session, subscriber, workitem.sop_instance_uid, events, now)


def tell(
    session: Session,
    subscriber: Subscriber,
    sop_instance_uid: str,
    events: Iterable[UpsEvent],
    now: datetime,
) -> None:
    """Put events in the outbox, for one subscriber."""
    for event in events:
        session.add(
            WorkitemEventRow(
                sop_instance_uid=sop_instance_uid,
                ae_title=subscriber.ae_title,
                channel=subscriber.channel,
                event_type=int(event.event_type),
                information=event.information,
                next_attempt_at=now,
                created_at=now,
            )
        )
        session.flush()  # one by one: they are told in the order of their numbers


def tell_of_restart(session: Session, now: datetime) -> None:
    """Tell every subscriber that we are back (DICOM PS3.4 CC.2.4.3, SCP Status Change).

    Of several restarts, one that is still to be told is enough.
    """
    _tell_everybody(session, restart_report(), now)


def tell_of_going_down(session: Session, now: datetime) -> None:
    """Tell every subscriber that we stop (DICOM PS3.4 CC.2.4.3, SCP Status Change).

    Of several processes that stop together the first says it for all.
    """
    report = going_down_report()
    last = session.scalars(
        select(WorkitemEventRow.information)
        .where(WorkitemEventRow.event_type == int(EventType.SCP_STATUS_CHANGE))
        .order_by(WorkitemEventRow.id.desc())
        .limit(1)
    ).first()
    if last != report.information:
        _tell_everybody(session, report, now)


def has_subscribers(session: Session) -> bool:
    """Return whether anybody is subscribed to anything; a cheap read without any lock."""
    asked = (select(GlobalSubscriptionRow.ae_title), select(WorkitemSubscriptionRow.ae_title))
    return any(session.scalars(one.limit(1)).first() is not None for one in asked)


def _tell_everybody(session: Session, report: UpsEvent, now: datetime) -> None:
    # Not what is being told at this moment: SQLite would give its number to a new event, and that
    # would count as told in its place.
    is_nobodys = or_(
        WorkitemEventRow.attempts == 0,
        and_(WorkitemEventRow.channel == Channel.DIMSE, WorkitemEventRow.claimed_by == ""),
    )
    session.execute(
        delete(WorkitemEventRow).where(
            WorkitemEventRow.state == EventState.WAITING,
            WorkitemEventRow.event_type == int(EventType.SCP_STATUS_CHANGE),
            is_nobodys,
        )
    )
    everybody = session.execute(
        union(
            select(GlobalSubscriptionRow.ae_title, GlobalSubscriptionRow.channel),
            select(WorkitemSubscriptionRow.ae_title, WorkitemSubscriptionRow.channel),
        )
    )
    for subscriber in sorted({(row[0], row[1]) for row in everybody}):
        tell(session, Subscriber(*subscriber), GLOBAL_SUBSCRIPTION, [report], now)


def withdraw_events(session: Session, ae_title: str, sop_instance_uid: str | None = None) -> None:
    """Take what was not told out of the outbox, because the subscriber no longer wants it."""
    statement = delete(WorkitemEventRow).where(
        WorkitemEventRow.ae_title == ae_title, WorkitemEventRow.state == EventState.WAITING
    )
    if sop_instance_uid is not None:
        statement = statement.where(WorkitemEventRow.sop_instance_uid == sop_instance_uid)
    session.execute(statement)


def has_due_events(session: Session, now: datetime) -> bool:
    """Return whether `claim_events` might find some; a cheap read without any lock."""
    return session.scalar(_ANY_DUE, {"now": now}) is not None


def claim_events(
    session: Session, *, lease: timedelta, now: datetime, holder: str = ""
) -> list[DueEvent]:
    """Claim the events that one subscriber on DIMSE is to be told of, the oldest first.

    A subscriber whose oldest event is not due (it was away, or somebody is calling it) is left.
    """
    waiting = (
        WorkitemEventRow.state == EventState.WAITING,
        WorkitemEventRow.channel == Channel.DIMSE,
    )
    heads = (
        select(func.min(WorkitemEventRow.id)).where(*waiting).group_by(WorkitemEventRow.ae_title)
    )
    ae_title = session.scalars(
        select(WorkitemEventRow.ae_title)
        .where(
            WorkitemEventRow.id.in_(heads.scalar_subquery()),
            WorkitemEventRow.next_attempt_at <= now,
            *waiting,
        )
        .order_by(WorkitemEventRow.next_attempt_at, WorkitemEventRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).first()
    if ae_title is None:
        return []
    return _claim_of(session, ae_title, Channel.DIMSE, lease=lease, now=now, holder=holder)


def release_claims(session: Session, holder: str, now: datetime) -> None:
    """Let what a killed process of this name was telling be told at once."""
    session.execute(
        update(WorkitemEventRow)
        .where(WorkitemEventRow.state == EventState.WAITING, WorkitemEventRow.claimed_by == holder)
        .values(next_attempt_at=now, claimed_by="")
    )


def has_waiting_events(session: Session, ae_title: str) -> bool:
    """Return whether `claim_events_of` might find some; a cheap read without any lock."""
    return (
        session.scalars(
            select(WorkitemEventRow.id)
            .where(
                WorkitemEventRow.ae_title == ae_title,
                WorkitemEventRow.state == EventState.WAITING,
                WorkitemEventRow.channel == Channel.WEBSOCKET,
            )
            .limit(1)
        ).first()
        is not None
    )


def claim_events_of(
    session: Session, ae_title: str, *, lease: timedelta, now: datetime
) -> list[DueEvent]:
    """Claim the events of a subscriber that has opened an event channel, the oldest first."""
    return _claim_of(session, ae_title, Channel.WEBSOCKET, lease=lease, now=now)


def _claim_of(
    session: Session,
    ae_title: str,
    channel: Channel,
    *,
    lease: timedelta,
    now: datetime,
    holder: str = "",
) -> list[DueEvent]:
    rows = session.scalars(
        select(WorkitemEventRow)
        .where(
            WorkitemEventRow.ae_title == ae_title,
            WorkitemEventRow.channel == channel,
            WorkitemEventRow.state == EventState.WAITING,
        )
        .order_by(WorkitemEventRow.id)
        .limit(_MOST_AT_ONCE)
        .with_for_update()
    ).all()
    if not rows or rows[0].next_attempt_at > now:
        return []
    for row in rows:
        row.attempts += 1
        row.next_attempt_at = now + lease
        row.claimed_by = holder
    return [
        DueEvent(
            event_id=row.id,
            ae_title=row.ae_title,
            sop_instance_uid=row.sop_instance_uid,
            event_type=EventType(row.event_type),
            information=row.information,
            attempt=row.attempts,
        )
        for row in rows
    ]


def mark_told(session: Session, event_ids: Sequence[int], *, now: datetime) -> None:
    """Note that the subscriber was told."""
    session.execute(
        update(WorkitemEventRow)
        .where(WorkitemEventRow.id.in_(event_ids))
        .values(state=EventState.SENT, sent_at=now, last_error="")
    )


def give_up(session: Session, event_id: int, error: str) -> None:
    """Note that the subscriber did not want an event."""
    session.execute(
        update(WorkitemEventRow)
        .where(WorkitemEventRow.id == event_id)
        .values(state=EventState.DEAD, last_error=error)
    )


def mark_not_told(
    session: Session,
    due: Sequence[DueEvent],
    error: str,
    *,
    retry_after: timedelta,
    maximum_attempts: int,
    now: datetime,
) -> int:
    """Note why a subscriber was not told of `due`; return how many of them are given up."""
    rows = session.scalars(
        select(WorkitemEventRow)
        .where(
            WorkitemEventRow.id.in_([one.event_id for one in due]),
            WorkitemEventRow.state == EventState.WAITING,
        )
        .with_for_update()
    ).all()
    for row in rows:
        row.last_error = error
        row.claimed_by = ""
        row.next_attempt_at = now + retry_after
        if row.attempts >= maximum_attempts:
            row.state = EventState.DEAD
    return sum(row.state is EventState.DEAD for row in rows)
