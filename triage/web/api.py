"""The JSON API, version 1: studies and operations."""

from __future__ import annotations

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from triage.core.permissions import Permission
from triage.web.access import may
from triage.web.context import Context, Uid
from triage.web.people import person_at
from triage.web.reading import signing_person
from triage.web.security import require_same_origin
from triage.worklist.operations import Operations, operations
from triage.worklist.reading import UnknownStudyError, mark_as_read, mark_as_unread
from triage.worklist.study_view import StudyView, study_view

router = APIRouter(prefix="/api/v1", tags=["worklist"])
_SEEING = [Depends(may(Permission.SEE_PATIENTS))]


@router.get("/studies/{study_instance_uid}", dependencies=_SEEING)
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
    dependencies=[Depends(may(Permission.CHANGE_WORKLIST)), Depends(require_same_origin)],
)
def read(request: Request, study_instance_uid: Uid, context: Context) -> Response:
    """Take the study off the list: a person has read it, and has signed it off with that.

    With `reading.sign_off_with_read = false` signing off is an act of its own.
    """
    try:
        with context.database.transaction() as session:
            mark_as_read(
                session, study_instance_uid, now=context.now(), signed_by=signing_person(request)
            )
    except UnknownStudyError as error:
        raise HTTPException(404, str(error)) from error
    return Response(status_code=204)


@router.delete(
    "/studies/{study_instance_uid}/read",
    status_code=204,
    dependencies=[Depends(may(Permission.CHANGE_WORKLIST)), Depends(require_same_origin)],
)
def unread(request: Request, study_instance_uid: Uid, context: Context) -> Response:
    """Put the study back on the list; its answers are open again."""
    try:
        with context.database.transaction() as session:
            mark_as_unread(session, study_instance_uid, now=context.now(), by=person_at(request))
    except UnknownStudyError as error:
        raise HTTPException(404, str(error)) from error
    return Response(status_code=204)


@router.get("/status", dependencies=[Depends(may(Permission.SEE_OPERATIONS))])
def status(context: Context) -> Operations:
    """Give the counts of runs and deliveries, the workers, and what is stuck."""
    with context.database.reading() as session:
        return operations(session, context.now(), context.disk(), context.settings.destinations)
