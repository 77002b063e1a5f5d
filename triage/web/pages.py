"""The pages: worklist, study, operations."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.templating import Jinja2Templates

from triage.core.permissions import Permission
from triage.core.withdrawals import PERSONAL_REASONS, rejection_for
from triage.web.access import may
from triage.web.callers import note_studies
from triage.web.context import UID_PATTERN, Context, Uid, WebContext
from triage.web.people import person_at
from triage.web.rendering import templates
from triage.web.security import require_same_origin
from triage.web.viewer import viewer_address, viewer_folder
from triage.worklist.operations import operations
from triage.worklist.queue import PAGE_SIZE, count_worklist, reading_list, recently_read
from triage.worklist.reading import UnknownStudyError, mark_as_read, mark_as_unread
from triage.worklist.study_view import study_view

router = APIRouter(include_in_schema=False)
_SEEING = [Depends(may(Permission.SEE_PATIENTS))]
_FOLLOWING = [Depends(may(Permission.SEE_PATIENTS, is_background=True))]
Page = Annotated[int, Query(ge=1, le=10_000)]


@router.get("/", dependencies=_SEEING)
def worklist(request: Request, context: Context, page: Page = 1) -> Response:
    """Show the studies to be read, most urgent first."""
    return _render(request, "worklist.html", _worklist(request, context, page))


@router.get("/worklist/rows", dependencies=_FOLLOWING)
def worklist_rows(
    request: Request,
    context: Context,
    page: Page = 1,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Give the list alone, for a page that is open already."""
    answer = _render(request, "_list.html", _worklist(request, context, page))
    tag = f'"{hashlib.sha256(bytes(answer.body)).hexdigest()[:32]}"'
    if if_none_match == tag:
        return Response(
            status_code=304, headers={"ETag": tag, "Cache-Control": "private, no-cache"}
        )
    answer.headers["ETag"] = tag
    answer.headers["Cache-Control"] = "private, no-cache"
    return answer


def _worklist(request: Request, context: WebContext, page: int) -> dict[str, Any]:
    now = context.now()
    with context.database.reading() as session:
        entries = reading_list(session, now, offset=(page - 1) * PAGE_SIZE)
        counts = count_worklist(session, now)
    note_studies(request, [entry.study_instance_uid for entry in entries])
    return {
        "entries": entries,
        "counts": counts,
        "page": page,
        "pages": max(1, -(-counts.total // PAGE_SIZE)),
        "now": now,
    }


@router.get("/read", dependencies=_SEEING)
def read_studies(request: Request, context: Context) -> Response:
    """Show what was read lately, to put it back or to see what changed since."""
    now = context.now()
    with context.database.reading() as session:
        content: dict[str, Any] = {
            "entries": recently_read(session, now),
            "counts": count_worklist(session, now),
            "now": now,
        }
    note_studies(request, [entry.study_instance_uid for entry in content["entries"]])
    return _render(request, "read.html", content)


@router.get("/next", dependencies=_SEEING)
def next_study(
    context: Context, after: Annotated[str, Query(pattern=UID_PATTERN, max_length=64)]
) -> Response:
    """Go to the study that is to be read next, or to the list where no other is."""
    with context.database.reading() as session:
        following = [
            entry.study_instance_uid
            for entry in reading_list(session, context.now(), limit=2)
            if entry.study_instance_uid != after
        ]
    return RedirectResponse(f"/studies/{following[0]}" if following else "/", status_code=303)


@router.get(
    "/events",
    dependencies=[Depends(may(Permission.SEE_PATIENTS, is_background=True, is_audited=False))],
)
def events(context: Context) -> Response:
    """Tell an open page of every change, as Server-Sent Events."""
    return StreamingResponse(
        context.live.stream(),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.get("/studies/{study_instance_uid}", dependencies=_SEEING)
def study(request: Request, study_instance_uid: Uid, context: Context) -> Response:
    """Show one study: images, findings, runs, results and history."""
    now = context.now()
    with context.database.reading() as session:
        view = study_view(session, study_instance_uid, now)
    if view is None:
        raise HTTPException(404, "Triage holds no such study.")
    is_there = viewer_folder(context.settings) is not None
    content = {
        "study": view,
        "now": now,
        "who": person_at(request),
        "viewer": viewer_address(context.settings, request) if is_there else "",
        "withdrawal_reasons": {r.value: rejection_for(r).words for r in PERSONAL_REASONS},
    }
    return _render(request, "study.html", content)


@router.post(
    "/studies/{study_instance_uid}/read",
    dependencies=[Depends(may(Permission.CHANGE_WORKLIST)), Depends(require_same_origin)],
)
def read(request: Request, study_instance_uid: Uid, context: Context) -> Response:
    """Take the study off the list, and go back to where the button was."""
    try:
        with context.database.transaction() as session:
            mark_as_read(session, study_instance_uid, now=context.now())
    except UnknownStudyError:
        raise HTTPException(404, "Triage holds no such study.") from None
    return _back(request)


@router.post(
    "/studies/{study_instance_uid}/unread",
    dependencies=[Depends(may(Permission.CHANGE_WORKLIST)), Depends(require_same_origin)],
)
def unread(request: Request, study_instance_uid: Uid, context: Context) -> Response:
    """Put the study back on the list."""
    try:
        with context.database.transaction() as session:
            mark_as_unread(session, study_instance_uid, now=context.now())
    except UnknownStudyError:
        raise HTTPException(404, "Triage holds no such study.") from None
    return _back(request)


@router.get("/status", dependencies=[Depends(may(Permission.SEE_OPERATIONS))])
def status(request: Request, context: Context) -> Response:
    """Show the administrator what runs, what waits and what is stuck."""
    now = context.now()
    with context.database.reading() as session:
        state = operations(session, now, context.disk(), context.settings.destinations)
    return _render(request, "status.html", {"state": state, "now": now})


def _render(request: Request, name: str, content: dict[str, Any]) -> Response:
    pages: Jinja2Templates = templates
    return pages.TemplateResponse(request, name, content)


def _back(request: Request) -> Response:
    # Only the path: where the browser says it came from could be another site.
    path = urlsplit(request.headers.get("referer", "")).path or "/"
    return RedirectResponse("/" if path.startswith("//") else path, status_code=303)
