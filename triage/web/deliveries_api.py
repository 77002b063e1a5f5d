"""Deliveries and destinations as JSON, and what a person decides about them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from triage.core.permissions import Permission
from triage.core.runs import DeliveryState
from triage.store import delivery_decisions as decide
from triage.store.delivery_decisions import Decision, DecisionError
from triage.web.access import may
from triage.web.context import MOST_OFFSET, UID_PATTERN, Context, WebContext
from triage.web.people import Person
from triage.web.security import require_same_origin
from triage.worklist.deliveries import (
    NOT_ARRIVED,
    PAGE_SIZE,
    Deliveries,
    DeliveryQuery,
    DestinationView,
    knows_destination,
    list_deliveries,
    list_destinations,
)

router = APIRouter(
    prefix="/api/v1", tags=["deliveries"], dependencies=[Depends(may(Permission.SEE_OPERATIONS))]
)

DeliveryNumber = Annotated[int, Path(ge=1, le=2**63 - 1)]
DestinationName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
SAME_ORIGIN = [Depends(may(Permission.OPERATE)), Depends(require_same_origin)]
Why = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"\S")]
_REFUSED: dict[int | str, dict[str, str]] = {
    404: {"description": "No such destination"},
    409: {"description": "Not in a state for this; the detail says why"},
}


class Asked(BaseModel):
    """Which deliveries are to be shown; `not-arrived` is dead, waiting and sending."""

    destination: Annotated[str, Field(pattern=r"^[a-z0-9-]*$", max_length=64)] = ""
    state: Literal["not-arrived", "all"] | DeliveryState = "not-arrived"
    study: Annotated[str, Field(max_length=64, pattern=rf"^$|{UID_PATTERN}")] = ""

    def query(self) -> DeliveryQuery:
        """Return it as the store is asked."""
        states: dict[str, tuple[DeliveryState, ...]] = {"not-arrived": NOT_ARRIVED, "all": ()}
        wanted = (self.state,) if isinstance(self.state, DeliveryState) else states[str(self.state)]
        return DeliveryQuery(
            destination=self.destination, states=wanted, study_instance_uid=self.study
        )


class AskedPart(Asked):
    """The same, a part of the list."""

    limit: Annotated[int, Field(ge=1, le=1000)] = PAGE_SIZE
    offset: Annotated[int, Field(ge=0, le=MOST_OFFSET)] = 0


class Who(BaseModel):
    """Who decides, through a program."""

    model_config = ConfigDict(extra="forbid")

    who: Annotated[str, Field(max_length=128)] = ""
    """Where `web.user_header` names the person, that name counts instead."""


class WhoAndWhy(Who):
    """The same, and why."""

    reason: Why


class Done(BaseModel):
    """How many deliveries a decision was about."""

    deliveries: int


@router.get("/deliveries")
def deliveries(context: Context, asked: Annotated[AskedPart, Query()]) -> Deliveries:
    """Give deliveries of objects and notices: dead ones first, and of each kind the newest."""
    with context.database.reading() as session:
        return list_deliveries(
            session,
            asked.query(),
            context.settings.destinations,
            offset=asked.offset,
            limit=asked.limit,
        )


@router.post(
    "/deliveries/{delivery_id}/resend",
    status_code=204,
    dependencies=SAME_ORIGIN,
    responses=_REFUSED,
)
def resend(delivery_id: DeliveryNumber, body: Who, context: Context, person: Person) -> Response:
    """Give a dead delivery, or one that was given up, another round of attempts."""
    with deciding(context) as session:
        decide.resend(session, delivery_id, _decision(context, person, body))
    return Response(status_code=204)


@router.post(
    "/deliveries/{delivery_id}/give-up",
    status_code=204,
    dependencies=SAME_ORIGIN,
    responses=_REFUSED,
)
def give_up(
    delivery_id: DeliveryNumber, body: WhoAndWhy, context: Context, person: Person
) -> Response:
    """Decide that a dead delivery need not arrive; retention no longer waits for it."""
    with deciding(context) as session:
        decide.give_up(session, delivery_id, _decision(context, person, body, body.reason))
    return Response(status_code=204)


@router.get("/destinations")
def destinations(context: Context) -> tuple[DestinationView, ...]:
    """Give the destinations, what waits for each, and which are paused."""
    with context.database.reading() as session:
        return list_destinations(session, context.settings.destinations)


@router.post(
    "/destinations/{name}/pause", status_code=204, dependencies=SAME_ORIGIN, responses=_REFUSED
)
def pause(name: DestinationName, body: WhoAndWhy, context: Context, person: Person) -> Response:
    """Send nothing to a destination until it is resumed; what is queued waits."""
    with deciding(context, name) as session:
        decide.pause(session, name, _decision(context, person, body, body.reason))
    return Response(status_code=204)


@router.post(
    "/destinations/{name}/resume", status_code=204, dependencies=SAME_ORIGIN, responses=_REFUSED
)
def resume(name: DestinationName, body: Who, context: Context, person: Person) -> Response:
    """Let what waits for a destination go on."""
    with deciding(context, name) as session:
        decide.resume(session, name, _decision(context, person, body))
    return Response(status_code=204)


@router.post("/destinations/{name}/resend", dependencies=SAME_ORIGIN, responses=_REFUSED)
def resend_all(name: DestinationName, body: Who, context: Context, person: Person) -> Done:
    """Send all dead letters of a destination again."""
    with deciding(context, name) as session:
        return Done(deliveries=decide.resend_all(session, name, _decision(context, person, body)))


@router.post("/destinations/{name}/give-up", dependencies=SAME_ORIGIN, responses=_REFUSED)
def give_up_all(name: DestinationName, body: WhoAndWhy, context: Context, person: Person) -> Done:
    """Give up all dead letters of a destination."""
    with deciding(context, name) as session:
        decision = _decision(context, person, body, body.reason)
        return Done(deliveries=decide.give_up_all(session, name, decision))


def _decision(context: WebContext, person: str, body: Who, reason: str = "") -> Decision:
    is_named = context.settings.names_people
    who = person if is_named else body.who.strip() or person
    return Decision(who, context.now(), reason)


@contextmanager
def deciding(context: WebContext, destination: str = "") -> Iterator[Session]:
    """Give a session for a decision; one that cannot be carried out is refused with 409.

    Raises:
        HTTPException: 404, there is no such destination.
    """
    try:
        with context.database.transaction() as session:
            configured = context.settings.destinations
            if destination and not knows_destination(session, destination, configured):
                raise HTTPException(404, f"There is no destination {destination}.")
            yield session
    except DecisionError as error:
        raise HTTPException(409, f"Nothing was changed: {error}.") from None
