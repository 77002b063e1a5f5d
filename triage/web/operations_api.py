"""The board of operations as JSON, and what a person decides about quarantine and dead letters."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from triage.core.permissions import Permission
from triage.store import delivery_decisions, quarantine
from triage.store.delivery_decisions import Decision
from triage.web.access import may
from triage.web.context import Context, WebContext
from triage.web.deliveries_api import SAME_ORIGIN, Done, Who, WhoAndWhy
from triage.web.people import Person
from triage.web.studies_api import acting
from triage.web.surroundings import surroundings
from triage.worklist.operations_board import Board, board

router = APIRouter(
    prefix="/api/v1", tags=["operations"], dependencies=[Depends(may(Permission.SEE_OPERATIONS))]
)

ObjectNumber = Annotated[int, Path(ge=1, le=2**63 - 1)]
_REFUSED: dict[int | str, dict[str, str]] = {
    404: {"description": "No such object"},
    409: {"description": "Not in quarantine, or no reason"},
}


@router.get("/operations")
def operations(context: Context) -> Board:
    """Give what comes in, what waits, what runs, the workers, the disk, and the quarantine."""
    with context.database.reading() as session:
        return board(session, context.now(), surroundings(context))


@router.post(
    "/quarantine/{object_id}/release",
    status_code=204,
    dependencies=SAME_ORIGIN,
    responses=_REFUSED,
)
def release(object_id: ObjectNumber, body: WhoAndWhy, context: Context, person: Person) -> Response:
    """Let an object in quarantine be judged anew; it is taken into its study if it fits now."""
    with acting(context) as session:
        decision = _decision(context, person, body, body.reason)
        quarantine.judge_anew(session, object_id, decision)
    return Response(status_code=204)


@router.post(
    "/quarantine/{object_id}/delete",
    status_code=204,
    dependencies=SAME_ORIGIN,
    responses=_REFUSED,
)
def delete(object_id: ObjectNumber, body: WhoAndWhy, context: Context, person: Person) -> Response:
    """Delete an object in quarantine for good."""
    delete_quarantined(context, object_id, _decision(context, person, body, body.reason))
    return Response(status_code=204)


@router.post("/deliveries/resend", dependencies=SAME_ORIGIN)
def resend_dead(body: Who, context: Context, person: Person) -> Done:
    """Send all dead letters of all destinations again."""
    with acting(context) as session:
        decision = _decision(context, person, body)
        return Done(deliveries=delivery_decisions.resend_everything(session, decision))


def delete_quarantined(context: WebContext, object_id: int, decision: Decision) -> None:
    """Delete an object in quarantine, its row first and then its file.

    Raises:
        HTTPException: 404 or 409, see `acting`.
    """
    with acting(context) as session:
        path = quarantine.delete(session, object_id, decision)
    context.files.absolute(path).unlink(missing_ok=True)


def _decision(context: WebContext, person: str, body: Who, reason: str = "") -> Decision:
    is_named = bool(context.settings.web.user_header)
    who = person if is_named else body.who.strip() or person
    return Decision(who, context.now(), reason)
