"""The JSON API, version 1."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Response
from pydantic import BaseModel

from triage.web.context import MOST_OFFSET, Context, Uid
from triage.web.security import require_same_origin
from triage.worklist.operations import Operations, operations
from triage.worklist.queue import (
    PAGE_SIZE,
    WorklistCounts,
    WorklistEntry,
    count_worklist,
    reading_list,
)
from triage.worklist.reading import UnknownStudyError, mark_as_read, mark_as_unread
from triage.worklist.study_view import StudyView, study_view

router = APIRouter(prefix="/api/v1", tags=["worklist"])


class Worklist(BaseModel):
    """A part of the reading list, in reading order."""

    generated_at: datetime
    counts: WorklistCounts
    offset: int
    entries: list[WorklistEntry]


@router.get("/worklist")
def worklist(
    context: Context,
    limit: Annotated[int, Query(ge=1, le=1000)] = PAGE_SIZE,
    offset: Annotated[int, Query(ge=0, le=MOST_OFFSET)] = 0,
) -> Worklist:
    """Give the studies to be read, most urgent first."""
    now = context.now()
    with context.database.reading() as session:
        return Worklist(
            generated_at=now,
            counts=count_worklist(session, now),
            offset=offset,
            entries=reading_list(session, now, limit=limit, offset=offset),
        )


@router.get("/studies/{study_instance_uid}")
def study(study_instance_uid: Uid, context: Context) -> StudyView:
    """Give everything that is known about one study."""
    with context.database.reading() as session:
        view = study_view(session, study_instance_uid, context.now())
    if view is None:
        raise HTTPException(404, "Triage holds no such study")
    return view


@router.put(
    "/studies/{study_instance_uid}/read",
    status_code=204,
    dependencies=[Depends(require_same_origin)],
)
def read(study_instance_uid: Uid, context: Context) -> Response:
    """Take the study off the list: a person has read it."""
    try:
        with context.database.transaction() as session:
            mark_as_read(session, study_instance_uid, now=context.now())
    except UnknownStudyError as error:
        raise HTTPException(404, str(error)) from error
    return Response(status_code=204)


@router.delete(
    "/studies/{study_instance_uid}/read",
    status_code=204,
    dependencies=[Depends(require_same_origin)],
)
def unread(study_instance_uid: Uid, context: Context) -> Response:
    """Put the study back on the list."""
    try:
        with context.database.transaction() as session:
            mark_as_unread(session, study_instance_uid, now=context.now())
    except UnknownStudyError as error:
        raise HTTPException(404, str(error)) from error
    return Response(status_code=204)


@router.get("/status")
def status(context: Context) -> Operations:
    """Give the counts of runs and deliveries, the workers, and what is stuck."""
    with context.database.reading() as session:
        return operations(session, context.now(), context.disk(), context.settings.destinations)
