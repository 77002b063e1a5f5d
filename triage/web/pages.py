"""The pages: study, operations."""

from __future__ import annotations

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from triage.core.permissions import Permission
from triage.core.withdrawals import PERSONAL_REASONS, rejection_for
from triage.store.missed import known_codes
from triage.web.access import may
from triage.web.context import Context, Uid
from triage.web.first_picture import first_picture, stored_opening
from triage.web.going_back import go_back
from triage.web.people import person_at
from triage.web.reading import signing_person
from triage.web.rendering import templates
from triage.web.security import require_same_origin
from triage.web.viewer import viewer_address
from triage.web.viewer_files import viewer_folder
from triage.worklist.places import explain_place_of
from triage.worklist.reading import UnknownStudyError, mark_as_read, mark_as_unread
from triage.worklist.study_view import study_view

router = APIRouter(include_in_schema=False)
_SEEING = [Depends(may(Permission.SEE_PATIENTS))]


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
        codes = known_codes(session) if view is not None else []
        place = explain_place_of(session, study_instance_uid, now)
        stored = stored_opening(session, view.opening) if view and view.opening else None
    if view is None:
        raise HTTPException(404, "Triage holds no such study.")
    is_there = viewer_folder(context.settings) is not None
    content = {
        "study": view,
        "first": first_picture(view, stored, context.files) if stored is not None else None,
        "place": place,
        "now": now,
        "who": person_at(request),
        # Three times in the life of a claim, so that a request or two may be lost.
        "renew_claim_s": context.settings.worklist.claim_expires_after_s / 3,
        "viewer": viewer_address(context.settings, request) if is_there else "",
        "codes": codes,
        "signs_with_read": context.settings.reading.sign_off_with_read,
        "withdrawal_reasons": {r.value: rejection_for(r).words for r in PERSONAL_REASONS},
    }
    return templates.TemplateResponse(request, "study.html", content)


@router.post(
    "/studies/{study_instance_uid}/read",
    dependencies=[Depends(may(Permission.CHANGE_WORKLIST)), Depends(require_same_origin)],
)
def read(request: Request, study_instance_uid: Uid, context: Context) -> Response:
    """Take the study off the list, and go back to where the button was."""
    try:
        with context.database.transaction() as session:
            mark_as_read(
                session, study_instance_uid, now=context.now(), signed_by=signing_person(request)
            )
    except UnknownStudyError:
        raise HTTPException(404, "Triage holds no such study.") from None
    return go_back(request)


@router.post(
    "/studies/{study_instance_uid}/unread",
    dependencies=[Depends(may(Permission.CHANGE_WORKLIST)), Depends(require_same_origin)],
)
def unread(request: Request, study_instance_uid: Uid, context: Context) -> Response:
    """Put the study back on the list."""
    try:
        with context.database.transaction() as session:
            mark_as_unread(session, study_instance_uid, now=context.now(), by=person_at(request))
    except UnknownStudyError:
        raise HTTPException(404, "Triage holds no such study.") from None
    return go_back(request)
