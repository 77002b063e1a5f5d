"""Where results and notices go, what has arrived, and what a person has to do about the rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, joinedload

from triage.core.runs import DeliveryKind, DeliveryState
from triage.settings import Destination
from triage.store.delivery_decisions import Pause, pauses
from triage.store.outbox import label_of
from triage.store.tables import DeliveryRow, StudyRow

PAGE_SIZE = 50
NOT_ARRIVED = (DeliveryState.DEAD, DeliveryState.WAITING, DeliveryState.SENDING)


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class DeliveryView(_View):
    """An object or a notice on its way to a destination; `what` is "SR" or "Priority notice"."""

    delivery_id: int
    kind: DeliveryKind
    what: str
    destination: str
    state: str
    attempts: int
    last_error: str
    delivered_at: datetime | None
    committed_at: datetime | None
    next_attempt_at: datetime
    given_up_by: str
    given_up_reason: str


class ListedDelivery(_View):
    """A delivery in a list, with its study and what is to be done about it."""

    delivery: DeliveryView
    study_instance_uid: str
    next_step: str


class PauseView(_View):
    """Who has paused a destination, and why."""

    who: str
    reason: str
    at: datetime


class DestinationView(_View):
    """A destination: how much waits for it, and whether anything is sent.

    `kind` is empty where it is not in the settings any more and deliveries to it are left.
    """

    name: str
    kind: str
    pause: PauseView | None
    waiting: int
    sending: int
    dead: int
    delivered: int
    last_delivered_at: datetime | None


class DeliveryQuery(_View):
    """Which deliveries are asked for; without `states` all."""

    destination: str = ""
    states: tuple[DeliveryState, ...] = ()
    study_instance_uid: str = ""


class Deliveries(_View):
    """A part of a list of deliveries, and how long the list is."""

    total: int
    offset: int
    entries: tuple[ListedDelivery, ...]


def delivery_view(row: DeliveryRow) -> DeliveryView:
    """Return a delivery as pages state it."""
    return DeliveryView(
        delivery_id=row.id,
        kind=row.kind,
        what=label_of(row),
        destination=row.destination,
        state=row.state.value,
        attempts=row.attempts,
        last_error=row.last_error,
        delivered_at=row.delivered_at,
        committed_at=row.committed_at,
        next_attempt_at=row.next_attempt_at,
        given_up_by=row.given_up_by,
        given_up_reason=row.given_up_reason,
    )


def list_deliveries(
    session: Session,
    query: DeliveryQuery,
    configured: Sequence[Destination],
    *,
    offset: int = 0,
    limit: int = PAGE_SIZE,
) -> Deliveries:
    """Return the deliveries that `query` asks for: dead ones first, and of each kind the newest."""
    wanted = _conditions(query)
    rows = session.execute(
        select(DeliveryRow, StudyRow.study_instance_uid)
        .join(StudyRow, StudyRow.id == DeliveryRow.study_id)
        .where(*wanted)
        .options(joinedload(DeliveryRow.result_object))
        .order_by(DeliveryRow.state != DeliveryState.DEAD, DeliveryRow.id.desc())
        .offset(offset)
        .limit(limit)
    )
    total = select(func.count(DeliveryRow.id)).join(StudyRow, StudyRow.id == DeliveryRow.study_id)
    paused = pauses(session)
    names = {destination.name for destination in configured}
    return Deliveries(
        total=session.scalars(total.where(*wanted)).one(),
        offset=offset,
        entries=tuple(
            ListedDelivery(
                delivery=delivery_view(row),
                study_instance_uid=uid,
                next_step=_next_step(row, row.destination in names, paused.get(row.destination)),
            )
            for row, uid in rows
        ),
    )


def _conditions(query: DeliveryQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.destination:
        conditions.append(DeliveryRow.destination == query.destination)
    if query.states:
        conditions.append(DeliveryRow.state.in_(query.states))
    if query.study_instance_uid:
        conditions.append(StudyRow.study_instance_uid == query.study_instance_uid)
    return conditions


def _next_step(row: DeliveryRow, is_configured: bool, pause: Pause | None) -> str:
    """Return what is to be done about a delivery, empty where nothing is."""
    if row.state is DeliveryState.DEAD:
        if not is_configured:
            return f"Configure {row.destination} again and send this again, or give it up."
        return "Mend what is said here and send this again, or give it up."
    if row.state is DeliveryState.WAITING and pause is not None:
        return f"{row.destination} is paused; resume it."
    if row.state is DeliveryState.WAITING and row.attempts:
        return "It is tried again by itself."
    return ""


def list_destinations(
    session: Session, configured: Sequence[Destination]
) -> tuple[DestinationView, ...]:
    """Return the configured destinations, and those that deliveries are left of."""
    counts: dict[str, dict[DeliveryState, int]] = {}
    newest: dict[str, datetime] = {}
    rows = session.execute(
        select(
            DeliveryRow.destination,
            DeliveryRow.state,
            func.count(),
            func.max(DeliveryRow.delivered_at),
        ).group_by(DeliveryRow.destination, DeliveryRow.state)
    )
    for name, state, count, latest in rows:
        counts.setdefault(name, {})[state] = count
        if state is DeliveryState.DELIVERED and latest is not None:
            newest[name] = latest
    kinds: dict[str, str] = {destination.name: destination.kind for destination in configured}
    left = [
        name
        for name, states in sorted(counts.items())
        if name not in kinds and any(states.get(state) for state in NOT_ARRIVED)
    ]
    paused = pauses(session)
    return tuple(
        DestinationView(
            name=name,
            kind=kinds.get(name, ""),
            pause=_pause_view(paused.get(name)),
            waiting=counts.get(name, {}).get(DeliveryState.WAITING, 0),
            sending=counts.get(name, {}).get(DeliveryState.SENDING, 0),
            dead=counts.get(name, {}).get(DeliveryState.DEAD, 0),
            delivered=counts.get(name, {}).get(DeliveryState.DELIVERED, 0),
            last_delivered_at=newest.get(name),
        )
        for name in (*kinds, *left)
    )


def knows_destination(session: Session, name: str, configured: Sequence[Destination]) -> bool:
    """Return whether `name` is configured, or deliveries to it are there."""
    if name in {destination.name for destination in configured}:
        return True
    of_it = select(DeliveryRow.id).where(DeliveryRow.destination == name).limit(1)
    return session.scalars(of_it).first() is not None


def _pause_view(pause: Pause | None) -> PauseView | None:
    return PauseView(who=pause.who, reason=pause.reason, at=pause.at) if pause else None
