"""The page of operations and its buttons."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse

from triage.core.permissions import Permission
from triage.store import delivery_decisions, quarantine
from triage.store.delivery_decisions import Decision
from triage.web.access import may
from triage.web.context import Context
from triage.web.deliveries_api import SAME_ORIGIN
from triage.web.operations_api import ObjectNumber, delete_quarantined
from triage.web.people import Person
from triage.web.rendering import templates
from triage.web.studies_api import acting
from triage.web.surroundings import surroundings
from triage.worklist.operations import operations
from triage.worklist.operations_board import board

router = APIRouter(include_in_schema=False, dependencies=[Depends(may(Permission.SEE_OPERATIONS))])
Why = Annotated[str, Form(min_length=1, max_length=1000, pattern=r"\S")]


@router.get("/status")
def status(request: Request, context: Context) -> Response:
    """Show the administrator what comes in, what runs, what waits and what is stuck."""
    now = context.now()
    around = surroundings(context)
    with context.database.reading() as session:
        content = {
            "state": operations(session, now, context.disk(), context.settings.destinations),
            "board": board(session, now, around),
            "prefect_ui": context.settings.prefect_ui_url,
            "now": now,
        }
    return templates.TemplateResponse(request, "status.html", content)


@router.post("/quarantine/{object_id}/release", dependencies=SAME_ORIGIN)
def release(object_id: ObjectNumber, context: Context, who: Person, reason: Why) -> Response:
    """Let an object in quarantine be judged anew."""
    with acting(context) as session:
        quarantine.judge_anew(session, object_id, Decision(who, context.now(), reason))
    return _to_quarantine()


@router.post("/quarantine/{object_id}/delete", dependencies=SAME_ORIGIN)
def delete(object_id: ObjectNumber, context: Context, who: Person, reason: Why) -> Response:
    """Delete an object in quarantine for good."""
    delete_quarantined(context, object_id, Decision(who, context.now(), reason))
    return _to_quarantine()


@router.post("/deliveries/resend", dependencies=SAME_ORIGIN)
def resend_dead(context: Context, who: Person) -> Response:
    """Send all dead letters of all destinations again."""
    with acting(context) as session:
        delivery_decisions.resend_everything(session, Decision(who, context.now()))
    return RedirectResponse("/status#stuck", status_code=303)


def _to_quarantine() -> Response:
    return RedirectResponse("/status#quarantine", status_code=303)
