"""The page of the deliveries, and its buttons."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from pydantic import Field

from triage.core.permissions import Permission
from triage.core.runs import DeliveryState
from triage.store import delivery_decisions as decide
from triage.store.delivery_decisions import Decision
from triage.web.access import may
from triage.web.context import Context
from triage.web.deliveries_api import (
    SAME_ORIGIN,
    Asked,
    DeliveryNumber,
    DestinationName,
    deciding,
)
from triage.web.going_back import go_back
from triage.web.people import Person
from triage.web.rendering import templates
from triage.worklist.deliveries import PAGE_SIZE, list_deliveries, list_destinations

router = APIRouter(include_in_schema=False, dependencies=[Depends(may(Permission.SEE_OPERATIONS))])
Why = Annotated[str, Form(min_length=1, max_length=1000, pattern=r"\S")]


class AskedPage(Asked):
    """The same, one page of the list."""

    page: Annotated[int, Field(ge=1, le=10_000)] = 1


@router.get("/deliveries")
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


@router.post("/deliveries/{delivery_id}/resend", dependencies=SAME_ORIGIN)
def resend(
    request: Request, delivery_id: DeliveryNumber, context: Context, who: Person
) -> Response:
    """Give a dead delivery another round of attempts."""
    with deciding(context) as session:
        decide.resend(session, delivery_id, Decision(who, context.now()))
    return go_back(request, with_query=True)


@router.post("/deliveries/{delivery_id}/give-up", dependencies=SAME_ORIGIN)
def give_up(
    request: Request, delivery_id: DeliveryNumber, context: Context, who: Person, reason: Why
) -> Response:
    """Decide that a dead delivery need not arrive."""
    with deciding(context) as session:
        decide.give_up(session, delivery_id, Decision(who, context.now(), reason))
    return go_back(request, with_query=True)


@router.post("/destinations/{name}/pause", dependencies=SAME_ORIGIN)
def pause(
    request: Request, name: DestinationName, context: Context, who: Person, reason: Why
) -> Response:
    """Send nothing to a destination until it is resumed."""
    with deciding(context, name) as session:
        decide.pause(session, name, Decision(who, context.now(), reason))
    return go_back(request, with_query=True)


@router.post("/destinations/{name}/resume", dependencies=SAME_ORIGIN)
def resume(request: Request, name: DestinationName, context: Context, who: Person) -> Response:
    """Let what waits for a destination go on."""
    with deciding(context, name) as session:
        decide.resume(session, name, Decision(who, context.now()))
    return go_back(request, with_query=True)


@router.post("/destinations/{name}/resend", dependencies=SAME_ORIGIN)
def resend_all(request: Request, name: DestinationName, context: Context, who: Person) -> Response:
    """Send all dead letters of a destination again."""
    with deciding(context, name) as session:
        decide.resend_all(session, name, Decision(who, context.now()))
    return go_back(request, with_query=True)


@router.post("/destinations/{name}/give-up", dependencies=SAME_ORIGIN)
def give_up_all(
    request: Request, name: DestinationName, context: Context, who: Person, reason: Why
) -> Response:
    """Give up all dead letters of a destination."""
    with deciding(context, name) as session:
        decide.give_up_all(session, name, Decision(who, context.now(), reason))
    return go_back(request, with_query=True)
