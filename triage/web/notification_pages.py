"""The pages of the notifications: the list, one with its time line, and their buttons."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from pydantic import BaseModel, Field

from triage.core.permissions import Permission
from triage.store.notifications import acknowledge, snoozed_until
from triage.web.access import may
from triage.web.context import Context
from triage.web.going_back import go_back
from triage.web.notifications_api import (
    SAME_ORIGIN,
    Number,
    Snooze,
    changing,
    detail_of,
    note_shown,
    reader_at,
    snooze_for,
)
from triage.web.people import Person, is_named
from triage.web.rendering import templates
from triage.worklist.notification_health import problems_of
from triage.worklist.notifications import PAGE_SIZE, Shown, figures_of, list_notifications

router = APIRouter(include_in_schema=False, dependencies=[Depends(may(Permission.SEE_PATIENTS))])

_FIGURES_DAYS = 30


class AskedPage(BaseModel):
    """Which notifications, and which page of them."""

    show: Shown = "open"
    page: Annotated[int, Field(ge=1, le=10_000)] = 1


@router.get("/notifications")
def notifications_page(
    request: Request, context: Context, asked: Annotated[AskedPage, Query()]
) -> Response:
    """Show what people were told of, and what became of it."""
    reader = reader_at(request)
    settings = context.settings.notifications
    with context.database.reading() as session:
        found = list_notifications(session, asked.show, reader, offset=(asked.page - 1) * PAGE_SIZE)
        figures = figures_of(session, days=_FIGURES_DAYS, now=context.now())
        problems = problems_of(session, settings, context.now())
        snoozes = snoozed_until(session, [one.name for one in settings.recipients])
    note_shown(request, found.entries)
    content = {
        "found": found,
        "figures": figures,
        "problems": problems,
        "asked": asked,
        "pages": max(1, -(-found.total // PAGE_SIZE)),
        "settings": settings,
        "me": reader.recipient,
        "is_named": is_named(request),
        "snoozes": {name: until for name, until in snoozes.items() if until > context.now()},
    }
    return templates.TemplateResponse(request, "notifications.html", content)


@router.get("/notifications/{number}")
def notification_page(request: Request, number: Number, context: Context) -> Response:
    """Show one notification. Opening it acknowledges nothing: mail scanners open links, too."""
    content = {"one": detail_of(request, context, number)}
    return templates.TemplateResponse(request, "notification.html", content)


@router.post(
    "/notifications/{number}/acknowledge",
    dependencies=[Depends(may(Permission.ANSWER_FINDINGS)), *SAME_ORIGIN],
)
def acknowledge_one(request: Request, number: Number, context: Context, who: Person) -> Response:
    """Note that the person at the browser has seen it."""
    with changing(context) as session:
        acknowledge(session, number, who=who, via="page", now=context.now())
    return go_back(request, otherwise="/notifications", with_query=True)


@router.post("/notifications/snooze", dependencies=SAME_ORIGIN)
def snooze_me(
    request: Request, context: Context, who: Person, asked: Annotated[Snooze, Form()]
) -> Response:
    """Leave a person in peace for a while."""
    snooze_for(request, asked, context, who)
    return go_back(request, otherwise="/notifications", with_query=True)
