"""Received HL7 messages: the page, the API, and the button that processes one again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from triage.core.permissions import Permission
from triage.receiver.hl7 import Hl7Intake, UnknownMessageError
from triage.store.order_tables import MessageState
from triage.web.access import may
from triage.web.context import Context, WebContext
from triage.web.rendering import templates
from triage.web.security import require_same_origin
from triage.worklist.messages import ReceivedMessages, received_messages

router = APIRouter(dependencies=[Depends(may(Permission.SEE_OPERATIONS))])

State = Annotated[MessageState | None, Query()]
MessageId = Annotated[int, Path(ge=1, le=2**62)]


class ProcessedAgain(BaseModel):
    """What became of a message that was processed again."""

    said: str


@router.get("/hl7", include_in_schema=False)
def page(request: Request, context: Context, state: State = None) -> Response:
    """Show what was received over HL7, and why some of it was refused."""
    with context.database.reading() as session:
        received = received_messages(session, state)
    content = {
        "received": received,
        "state": state,
        "port": context.settings.hl7.port,
        "now": context.now(),
    }
    return templates.TemplateResponse(request, "hl7.html", content)


@router.post(
    "/hl7/{message_id}/again",
    include_in_schema=False,
    dependencies=[Depends(may(Permission.OPERATE)), Depends(require_same_origin)],
)
def again_and_back(message_id: MessageId, context: Context) -> Response:
    """Process a refused message again, and go back to the list."""
    _again(context, message_id)
    return RedirectResponse("/hl7", status_code=303)


@router.get("/api/v1/hl7/messages", tags=["hl7"])
def messages(context: Context, state: State = None) -> ReceivedMessages:
    """Give the newest received messages, with the reason where one was refused."""
    with context.database.reading() as session:
        return received_messages(session, state)


@router.post(
    "/api/v1/hl7/messages/{message_id}/again",
    tags=["hl7"],
    dependencies=[Depends(may(Permission.OPERATE)), Depends(require_same_origin)],
    responses={409: {"description": "It is not there, or was not refused; the detail says why."}},
)
def again(message_id: MessageId, context: Context) -> ProcessedAgain:
    """Process a message again that was refused, and give what became of it."""
    return ProcessedAgain(said=_again(context, message_id))


def _again(context: WebContext, message_id: int) -> str:
    try:
        return Hl7Intake(context.settings, context.database, context.clock).take_again(message_id)
    except UnknownMessageError as error:
        raise HTTPException(409, f"Not processed again: {error}.") from None
