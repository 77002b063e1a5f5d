"""The worklist and the studies that were read, as pages."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Header, HTTPException, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from triage.core.permissions import Permission
from triage.store.worklist_views import default_view_of
from triage.web.access import may
from triage.web.board import Asked, Given, look
from triage.web.callers import note_studies
from triage.web.context import UID_PATTERN, Context, Uid, WebContext
from triage.web.key_images import find_key_image, small_picture
from triage.web.people import person_at
from triage.web.pixels import PixelError
from triage.web.rendering import templates
from triage.web.security import require_same_origin
from triage.worklist.filters import WorklistFilter, WorklistSearch
from triage.worklist.queue import PAGE_SIZE, next_to_read, recently_read

router = APIRouter(include_in_schema=False)
_SEEING = [Depends(may(Permission.SEE_PATIENTS))]
_FOLLOWING = [Depends(may(Permission.SEE_PATIENTS, is_background=True))]

LAST_PAGE = 10_000
Page = Annotated[int, Query(ge=1, le=LAST_PAGE)]
_UNCHANGED = {"Cache-Control": "private, no-cache"}


class AskedRows(BaseModel):
    """What an open page shows, and the tag of what it has."""

    model_config = ConfigDict(extra="forbid")

    wanted: WorklistSearch = WorklistSearch()
    page: Annotated[int, Field(ge=1, le=LAST_PAGE)] = 1
    tag: Annotated[str, Field(max_length=64)] = ""


@router.get("/", dependencies=_SEEING)
def worklist(request: Request, context: Context, page: Page = 1) -> Response:
    """Show the studies to be read, most urgent first, as the person's default view wants it."""
    who = person_at(request)
    with context.database.reading() as session:
        row = default_view_of(session, who) if who else None
        kept = WorklistFilter.model_validate(row.content) if row is not None else WorklistFilter()
        asked = Asked(WorklistSearch.model_validate(kept.model_dump()), who, page)
        now = context.now()
        part = look(session, asked, now, context.board.tally())
    note_studies(request, [entry.study_instance_uid for entry in part.entries])
    content = {
        **part.content(),
        "now": now,
        "who": who,
        "wanted": asked.wanted,
        "view": row.name if row is not None else "",
        "page_size": PAGE_SIZE,
    }
    return templates.TemplateResponse(request, "worklist.html", content)


@router.get("/worklist/rows", dependencies=_FOLLOWING)
async def rows(
    request: Request,
    context: Context,
    page: Page = 1,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Give all of the list's rows for a page that is open already."""
    known = (if_none_match or "").strip('"')
    return _as_json(request, await context.board.answer(Asked(page=page), known))


@router.post("/worklist/rows", dependencies=[*_FOLLOWING, Depends(require_same_origin)])
async def filtered_rows(request: Request, context: Context, body: AskedRows) -> Response:
    """Give the rows that a filter or a search leaves, as far as the page has not got them.

    What is searched for may name a patient, so it comes in the body: never in an address.
    """
    asked = Asked(body.wanted, person_at(request), body.page)
    return _as_json(request, await context.board.answer(asked, body.tag))


def _as_json(request: Request, given: Given) -> Response:
    headers = {**_UNCHANGED, "ETag": f'"{given.tag}"'}
    note_studies(request, list(given.studies))
    if not given.content:
        return Response(status_code=304, headers=headers)
    return Response(given.content, media_type="application/json", headers=headers)


@router.get("/read", dependencies=_SEEING)
def read_studies(request: Request, context: Context, page: Page = 1) -> Response:
    """Show what was read, to put it back or to see what changed since."""
    return _read(request, context, "", page)


@router.post("/read", dependencies=[*_SEEING, Depends(require_same_origin)])
def search_read_studies(
    request: Request,
    context: Context,
    text: Annotated[str, Form(max_length=200)] = "",
    page: Annotated[int, Form(ge=1, le=LAST_PAGE)] = 1,
) -> Response:
    """Show those of them that are searched for; a patient's name is in no address."""
    return _read(request, context, text, page)


def _read(request: Request, context: WebContext, text: str, page: int) -> Response:
    now = context.now()
    with context.database.reading() as session:
        entries = recently_read(
            session,
            now,
            wanted=WorklistSearch(text=text),
            limit=PAGE_SIZE + 1,
            offset=(page - 1) * PAGE_SIZE,
        )
    note_studies(request, [entry.study_instance_uid for entry in entries])
    unchanged = [entry for entry in entries if not entry.changed_after_reading]
    has_more = len(unchanged) > PAGE_SIZE
    content: dict[str, Any] = {
        "entries": entries[:-1] if has_more else entries,
        "now": now,
        "page": page,
        "first_place": (page - 1) * PAGE_SIZE + 1,
        "has_more": has_more,
        "text": text,
    }
    return templates.TemplateResponse(request, "read.html", content)


@router.get("/next", dependencies=_SEEING)
def next_study(
    request: Request,
    context: Context,
    after: Annotated[str, Query(pattern=UID_PATTERN, max_length=64)],
) -> Response:
    """Go to the study that is to be read next and that nobody else reads, or to the list."""
    with context.database.reading() as session:
        uid = next_to_read(session, context.now(), who=person_at(request), after=after)
    return RedirectResponse(f"/studies/{uid}" if uid else "/", status_code=303)


@router.get("/studies/{study_instance_uid}/key-images/{sop_instance_uid}", dependencies=_SEEING)
async def key_image(
    study_instance_uid: Uid,
    sop_instance_uid: Uid,
    context: Context,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Give a small picture of an image that shows a finding."""
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(
        context.decoders, find_key_image, context.database, study_instance_uid, sop_instance_uid
    )
    if found is None:
        raise HTTPException(404, "Triage holds no such image.")
    headers = {"ETag": f'"{found.tag}"', "Cache-Control": "private, max-age=86400, immutable"}
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    path = context.files.absolute(found.path)
    try:
        content = await loop.run_in_executor(context.decoders, small_picture, path)
    except PixelError as error:
        raise HTTPException(404, f"No picture can be made of it: {error}") from error
    return Response(content, media_type="image/jpeg", headers=headers)
