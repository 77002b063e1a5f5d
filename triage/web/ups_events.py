"""The event channel of UPS-RS: a WebSocket for each subscriber (DICOM PS3.18 11.13, 11.14)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter, Depends, WebSocket, WebSocketDisconnect
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from triage.core.dicom_json import element
from triage.core.permissions import Permission
from triage.core.workitems import UPS_PUSH
from triage.store.workitem_events import (
    DueEvent,
    claim_events_of,
    has_waiting_events,
    mark_not_told,
    mark_told,
)
from triage.web.access import may
from triage.web.context import WebContext
from triage.web.ups import AETitle, is_authorized

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/dicom-web")

_POLL_S = 0.2
_POLL_AFTER_ERROR_S = 2.0
_LEASE = timedelta(seconds=30)
_NO_LIMIT = 2**31 - 1
_POLICY_VIOLATION = 1008


@router.websocket(
    "/subscribers/{ae_title}",
    dependencies=[Depends(may(Permission.CHANGE_WORKLIST, program="ups"))],
)
async def event_channel(socket: WebSocket, ae_title: AETitle) -> None:
    """Send a subscriber its events, also those from before, until it goes.

    A client that is not authorised, or the page of another site, is refused with 403.
    """
    context: WebContext = socket.app.state.context
    if not _may_open(socket, context):
        await socket.close(_POLICY_VIOLATION)
        return
    await socket.accept()
    log.info("event channel opened", ae_title=ae_title)
    leaving = asyncio.create_task(_until_it_leaves(socket))
    try:
        while not leaving.done():
            pause_s = _POLL_S
            try:
                await _send_what_is_due(socket, context, ae_title)
            except SQLAlchemyError as error:
                log.warning("event channel: database away", error=type(error).__name__)
                pause_s = _POLL_AFTER_ERROR_S
            await asyncio.wait([leaving], timeout=pause_s)
    except (WebSocketDisconnect, RuntimeError):
        pass  # it went while it was being told: what was not told is told the next time
    finally:
        leaving.cancel()
        log.info("event channel closed", ae_title=ae_title)


def _may_open(socket: WebSocket, context: WebContext) -> bool:
    origin = socket.headers.get("origin")
    host = socket.headers.get("host", "").lower()
    is_ours = origin is None or urlsplit(origin).netloc.lower() == host
    is_known = is_authorized(socket, context)
    return context.settings.ups.enabled and is_ours and is_known


async def _until_it_leaves(socket: WebSocket) -> None:
    """Return when the client has closed the channel; what it says is not listened to."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await socket.receive_text()


async def _send_what_is_due(socket: WebSocket, context: WebContext, ae_title: str) -> None:
    due = await run_in_threadpool(_claim, context, ae_title)
    told = 0
    try:
        for event in due:
            await socket.send_text(message_of(event))
            told += 1
    finally:
        if due:
            await run_in_threadpool(_note, context, due[:told], due[told:])


def _claim(context: WebContext, ae_title: str) -> list[DueEvent]:
    with context.database.reading() as session:
        if not has_waiting_events(session, ae_title):
            return []
    with context.database.transaction() as session:
        return claim_events_of(session, ae_title, lease=_LEASE, now=context.now())


def _note(context: WebContext, told: Sequence[DueEvent], left: Sequence[DueEvent]) -> None:
    with context.database.transaction() as session:
        mark_told(session, [event.event_id for event in told], now=context.now())
        mark_not_told(
            session,
            left,
            "the event channel was closed",
            retry_after=timedelta(0),
            maximum_attempts=_NO_LIMIT,
            now=context.now(),
        )


def message_of(event: DueEvent) -> str:
    """Return an event report as DICOM JSON, with its command elements (11.14.1)."""
    command = {
        "00000002": element("UI", UPS_PUSH),
        "00000110": element("US", event.event_id % 65536),
        "00001000": element("UI", event.sop_instance_uid),
        "00001002": element("US", int(event.event_type)),
    }
    return json.dumps(command | dict(sorted(event.information.items())), ensure_ascii=False)
