"""Deliveries and destinations: what has not arrived, and what a person decides about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Form, HTTPException, Path, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from triage.core.runs import DeliveryState
from triage.store import delivery_decisions as decide
from triage.store.delivery_decisions import Decision, DecisionError
from triage.web.context import UID_PATTERN, Context, WebContext
from triage.web.people import known_person_at
from triage.web.rendering import templates
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

pages = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1", tags=["deliveries"])

DeliveryNumber = Annotated[int, Path(ge=1, le=2**63 - 1)]
DestinationName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
Person = Annotated[str, Depends(known_person_at)]
Why = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"\S")]
FormWhy = Annotated[str, Form(min_length=1, max_length=1000, pattern=r"\S")]
_SAME_ORIGIN = [Depends(require_same_origin)]
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


class AskedPage(Asked):
    """The same, one page of the list."""

    page: Annotated[int, Field(ge=1, le=10_000)] = 1


class AskedPart(Asked):
    """The same, a part of the list."""

    limit: Annotated[int, Field(ge=1, le=1000)] = PAGE_SIZE
    offset: Annotated[int, Field(ge=0)] = 0


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


@pages.get("/deliveries")
def deliveries_page(
    request: Request, context: Context, asked: Annotated[AskedPage, Query()]
) -> Response:
    """Show where results go, and what has not arrived."""
    with context.database.reading() as session:
        found = list_deliveries(
            session,
            asked.query(),
            context.settings.destinations,
            offset=(asked.page - 1) * PAGE_SIZE,
        )
        destinations = list_destinations(session, context.settings.destinations)
    content = {
        "found": found,
        "destinations": destinations,
        "asked": asked,
        "states": ["not-arrived", "all", *(state.value for state in DeliveryState)],
        "pages": max(1, -(-found.total // PAGE_SIZE)),
        "now": context.now(),
    }
    return templates.TemplateResponse(request, "deliveries.html", content)


@pages.post("/deliveries/{delivery_id}/resend", dependencies=_SAME_ORIGIN)
def resend_from_page(
    request: Request, delivery_id: DeliveryNumber, context: Context, who: Person
) -> Response:
    """Give a dead delivery another round of attempts."""
    with _deciding(context) as session:
        decide.resend(session, delivery_id, Decision(who, context.now()))
    return _back(request)


@pages.post("/deliveries/{delivery_id}/give-up", dependencies=_SAME_ORIGIN)
def give_up_from_page(
    request: Request, delivery_id: DeliveryNumber, context: Context, who: Person, reason: FormWhy
) -> Response:
    """Decide that a dead delivery need not arrive."""
    with _deciding(context) as session:
        decide.give_up(session, delivery_id, Decision(who, context.now(), reason))
    return _back(request)


@pages.post("/destinations/{name}/pause", dependencies=_SAME_ORIGIN)
def pause_from_page(
    request: Request, name: DestinationName, context: Context, who: Person, reason: FormWhy
) -> Response:
    """Send nothing to a destination until it is resumed."""
    with _deciding(context, name) as session:
        decide.pause(session, name, Decision(who, context.now(), reason))
    return _back(request)


@pages.post("/destinations/{name}/resume", dependencies=_SAME_ORIGIN)
def resume_from_page(
    request: Request, name: DestinationName, context: Context, who: Person
) -> Response:
    """Let what waits for a destination go on."""
    with _deciding(context, name) as session:
        decide.resume(session, name, Decision(who, context.now()))
    return _back(request)


@pages.post("/destinations/{name}/resend", dependencies=_SAME_ORIGIN)
def resend_all_from_page(
    request: Request, name: DestinationName, context: Context, who: Person
) -> Response:
    """Send all dead letters of a destination again."""
    with _deciding(context, name) as session:
        decide.resend_all(session, name, Decision(who, context.now()))
    return _back(request)


@pages.post("/destinations/{name}/give-up", dependencies=_SAME_ORIGIN)
def give_up_all_from_page(
    request: Request, name: DestinationName, context: Context, who: Person, reason: FormWhy
) -> Response:
    """Give up all dead letters of a destination."""
    with _deciding(context, name) as session:
        decide.give_up_all(session, name, Decision(who, context.now(), reason))
    return _back(request)


@api.get("/deliveries")
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


@api.post(
    "/deliveries/{delivery_id}/resend",
    status_code=204,
    dependencies=_SAME_ORIGIN,
    responses=_REFUSED,
)
def resend(delivery_id: DeliveryNumber, body: Who, context: Context, person: Person) -> Response:
    """Give a dead delivery, or one that was given up, another round of attempts."""
    with _deciding(context) as session:
        decide.resend(session, delivery_id, _decision(context, person, body))
    return Response(status_code=204)


@api.post(
    "/deliveries/{delivery_id}/give-up",
    status_code=204,
    dependencies=_SAME_ORIGIN,
    responses=_REFUSED,
)
def give_up(
    delivery_id: DeliveryNumber, body: WhoAndWhy, context: Context, person: Person
) -> Response:
    """Decide that a dead delivery need not arrive; retention no longer waits for it."""
    with _deciding(context) as session:
        decide.give_up(session, delivery_id, _decision(context, person, body, body.reason))
    return Response(status_code=204)


@api.get("/destinations")
def destinations(context: Context) -> tuple[DestinationView, ...]:
    """Give the destinations, what waits for each, and which are paused."""
    with context.database.reading() as session:
        return list_destinations(session, context.settings.destinations)


@api.post(
    "/destinations/{name}/pause", status_code=204, dependencies=_SAME_ORIGIN, responses=_REFUSED
)
def pause(name: DestinationName, body: WhoAndWhy, context: Context, person: Person) -> Response:
    """Send nothing to a destination until it is resumed; what is queued waits."""
    with _deciding(context, name) as session:
        decide.pause(session, name, _decision(context, person, body, body.reason))
    return Response(status_code=204)


@api.post(
    "/destinations/{name}/resume", status_code=204, dependencies=_SAME_ORIGIN, responses=_REFUSED
)
def resume(name: DestinationName, body: Who, context: Context, person: Person) -> Response:
    """Let what waits for a destination go on."""
    with _deciding(context, name) as session:
        decide.resume(session, name, _decision(context, person, body))
    return Response(status_code=204)


@api.post("/destinations/{name}/resend", dependencies=_SAME_ORIGIN, responses=_REFUSED)
def resend_all(name: DestinationName, body: Who, context: Context, person: Person) -> Done:
    """Send all dead letters of a destination again."""
    with _deciding(context, name) as session:
        return Done(deliveries=decide.resend_all(session, name, _decision(context, person, body)))


@api.post("/destinations/{name}/give-up", dependencies=_SAME_ORIGIN, responses=_REFUSED)
def give_up_all(name: DestinationName, body: WhoAndWhy, context: Context, person: Person) -> Done:
    """Give up all dead letters of a destination."""
    with _deciding(context, name) as session:
        decision = _decision(context, person, body, body.reason)
        return Done(deliveries=decide.give_up_all(session, name, decision))


def _decision(context: WebContext, person: str, body: Who, reason: str = "") -> Decision:
    is_named = bool(context.settings.web.user_header)
    who = person if is_named else body.who.strip() or person
    return Decision(who, context.now(), reason)


@contextmanager
def _deciding(context: WebContext, destination: str = "") -> Iterator[Session]:
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


def _back(request: Request) -> Response:
    # Only the path and what is shown there: the browser might come from another site.
    came_from = urlsplit(request.headers.get("referer", ""))
    path = came_from.path or "/"
    place = f"{path}?{came_from.query}" if came_from.query else path
    return RedirectResponse("/" if path.startswith("//") else place, status_code=303)
