"""What a person decides about deliveries: pause, resume, send again, give up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.core.runs import DeliveryState
from triage.store.history import note
from triage.store.outbox import label_of
from triage.store.tables import DeliveryRow, DestinationEventRow, PausedDestinationRow

_LONGEST_NAME = 128
_DEAD = (DeliveryState.DEAD, DeliveryState.GIVEN_UP)


class Action(StrEnum):
    """What was decided about a destination."""

    PAUSED = "paused"
    RESUMED = "resumed"
    RESENT = "resent"
    GIVEN_UP = "given-up"


class DecisionError(TriageError):
    """A decision about a delivery or destination cannot be carried out; the message says why."""


class DeliveryNotDeadError(DecisionError):
    """A delivery was to be sent again or given up that is not dead, or does not exist."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Who decides, why and when."""

    who: str
    at: datetime
    reason: str = ""

    def with_reason(self) -> Decision:
        """Return the same, or refuse a decision that gives no reason.

        Raises:
            DecisionError: the reason is empty.
        """
        if not self.reason.strip():
            raise DecisionError("reason: say why; it stays in the history")
        return self


@dataclass(frozen=True, slots=True)
class Pause:
    """Why nothing is sent to a destination."""

    who: str
    reason: str
    at: datetime


def pauses(session: Session) -> dict[str, Pause]:
    """Return the paused destinations by name."""
    rows = session.scalars(select(PausedDestinationRow)).all()
    return {row.name: Pause(row.who, row.reason, row.at) for row in rows}


def pause(session: Session, destination: str, decision: Decision) -> None:
    """Let nothing be sent to `destination` until it is resumed; what is on its way arrives.

    A destination that is paused already stays so, with the new reason.

    Raises:
        DecisionError: no reason is given.
    """
    decision.with_reason()
    row = session.get(PausedDestinationRow, destination) or PausedDestinationRow(name=destination)
    row.who, row.reason, row.at = decision.who[:_LONGEST_NAME], decision.reason.strip(), decision.at
    session.add(row)
    _record(session, destination, Action.PAUSED, decision)


def resume(session: Session, destination: str, decision: Decision) -> None:
    """Let what waits for `destination` go on.

    Raises:
        DecisionError: it is not paused.
    """
    row = session.get(PausedDestinationRow, destination)
    if row is None:
        raise DecisionError(f"{destination} is not paused")
    session.delete(row)
    _record(session, destination, Action.RESUMED, decision)


def resend(session: Session, delivery_id: int, decision: Decision) -> None:
    """Give a dead delivery, or one that was given up, another round of attempts.

    Raises:
        DeliveryNotDeadError: it is not dead (any more), or there is no such delivery.
    """
    _resend(session, _dead(session, delivery_id, "sent again by hand", _DEAD), decision)


def resend_all(session: Session, destination: str, decision: Decision) -> int:
    """Send all dead letters of `destination` again, and return how many there were.

    What waits there for its next attempt is tried at once: whoever asks has mended the cause.
    """
    rows = _of(session, destination, DeliveryState.DEAD)
    for row in rows:
        _resend(session, row, decision)
    for row in _of(session, destination, DeliveryState.WAITING):
        row.next_attempt_at = min(row.next_attempt_at, decision.at)
    _record(session, destination, Action.RESENT, decision)
    return len(rows)


def resend_everything(session: Session, decision: Decision) -> int:
    """Send the dead letters of all destinations again, and return how many there were."""
    named = select(DeliveryRow.destination).where(DeliveryRow.state == DeliveryState.DEAD)
    destinations = sorted(session.scalars(named.distinct()))
    return sum(resend_all(session, destination, decision) for destination in destinations)


def give_up(session: Session, delivery_id: int, decision: Decision) -> None:
    """Decide that a dead delivery need not arrive; retention no longer waits for it.

    Raises:
        DeliveryNotDeadError: it is not dead (any more), or there is no such delivery.
        DecisionError: no reason is given.
    """
    decision.with_reason()
    _give_up(session, _dead(session, delivery_id, "given up", (DeliveryState.DEAD,)), decision)


def give_up_all(session: Session, destination: str, decision: Decision) -> int:
    """Give up all dead letters of `destination`, and return how many there were.

    Raises:
        DecisionError: no reason is given.
    """
    decision.with_reason()
    rows = _of(session, destination, DeliveryState.DEAD)
    for row in rows:
        _give_up(session, row, decision)
    _record(session, destination, Action.GIVEN_UP, decision)
    return len(rows)


def _dead(
    session: Session, delivery_id: int, done: str, states: tuple[DeliveryState, ...]
) -> DeliveryRow:
    row = session.scalars(
        select(DeliveryRow).where(DeliveryRow.id == delivery_id).with_for_update(of=DeliveryRow)
    ).first()
    if row is None:
        raise DeliveryNotDeadError(f"there is no delivery {delivery_id}")
    if row.state not in states:
        raise DeliveryNotDeadError(
            f"delivery {delivery_id} is {row.state.value}; only a dead one is {done}"
        )
    return row


def _of(session: Session, destination: str, state: DeliveryState) -> Sequence[DeliveryRow]:
    return session.scalars(
        select(DeliveryRow)
        .where(DeliveryRow.destination == destination, DeliveryRow.state == state)
        .order_by(DeliveryRow.id)
        .with_for_update(of=DeliveryRow)
    ).all()


def _resend(session: Session, row: DeliveryRow, decision: Decision) -> None:
    row.state = DeliveryState.WAITING
    row.attempts = 0
    row.next_attempt_at = decision.at
    row.given_up_by = row.given_up_reason = ""
    text = f"{label_of(row)} to {row.destination} is sent again at a person's request"
    _note(session, row, "resent", text, decision)


def _give_up(session: Session, row: DeliveryRow, decision: Decision) -> None:
    row.state = DeliveryState.GIVEN_UP
    row.given_up_by, row.given_up_reason = decision.who[:_LONGEST_NAME], decision.reason.strip()
    text = f"{label_of(row)} to {row.destination} is given up at a person's request"
    _note(session, row, "given-up", text, decision)


def _note(session: Session, row: DeliveryRow, kind: str, text: str, decision: Decision) -> None:
    said = "; ".join(filter(None, (decision.who.strip(), decision.reason.strip())))
    note(session, row.study_id, kind, f"{text} ({said})", at=decision.at, run_id=row.run_id)


def _record(session: Session, destination: str, action: Action, decision: Decision) -> None:
    session.add(
        DestinationEventRow(
            destination=destination,
            action=action.value,
            who=decision.who.strip()[:_LONGEST_NAME],
            reason=decision.reason.strip(),
            at=decision.at,
        )
    )
