"""The pages "find a study" and "where is this study", and their buttons."""

from __future__ import annotations

from datetime import date
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from triage.core.permissions import Permission
from triage.store import study_actions
from triage.store.delivery_decisions import Decision
from triage.web.access import may
from triage.web.context import Context, Uid
from triage.web.deliveries_api import SAME_ORIGIN
from triage.web.people import Person
from triage.web.rendering import templates
from triage.web.studies_api import SEARCHING, RunNumber, acting
from triage.web.timeline import timeline
from triage.worklist.lifeline import study_life
from triage.worklist.study_search import FoundStudies, StudySearch, find_studies

router = APIRouter(include_in_schema=False, dependencies=[Depends(may(Permission.SEE_OPERATIONS))])
Why = Annotated[str, Form(min_length=1, max_length=1000, pattern=r"\S")]
_Said = Annotated[str, Form(max_length=128)]


@router.get("/find")
def find_page(request: Request) -> Response:
    """Show the form that asks for a study."""
    content = {"asked": StudySearch(), "found": None, "problem": ""}
    return templates.TemplateResponse(request, "find.html", content)


# A POST, because what is searched for is patient data, which has no place in an address.
@router.post("/find", dependencies=SEARCHING)
def find(
    request: Request,
    context: Context,
    *,
    text: _Said = "",
    accession_number: _Said = "",
    patient_id: _Said = "",
    patient_name: _Said = "",
    study_instance_uid: _Said = "",
    study_date: _Said = "",
    sender: _Said = "",
) -> Response:
    """Show the studies that match; what was asked stays in the form."""
    found: FoundStudies | None = None
    problem = ""
    try:
        asked = StudySearch(
            text=text,
            accession_number=accession_number,
            patient_id=patient_id,
            patient_name=patient_name,
            study_instance_uid=study_instance_uid.strip(),
            study_date=date.fromisoformat(study_date) if study_date else None,
            sender=sender.strip(),
        )
    except (ValidationError, ValueError):
        asked = StudySearch()
        problem = "A Study Instance UID has digits and full stops; a date is written 2026-03-01."
    if not problem and asked.is_empty:
        problem = "Give at least one of these."
    if not problem:
        with context.database.reading() as session:
            found = find_studies(session, asked, context.now())
    content = {"asked": asked, "found": found, "problem": problem}
    return templates.TemplateResponse(request, "find.html", content)


@router.get("/studies/{study_instance_uid}/history")
def history_page(request: Request, study_instance_uid: Uid, context: Context) -> Response:
    """Show a study's whole life on one line of time, and where it is now."""
    with context.database.reading() as session:
        life = study_life(session, study_instance_uid, context.now())
    if life is None:
        raise HTTPException(404, "Triage holds no such study.")
    content = {
        "life": life,
        "picture": timeline(life.lanes),
        "models": sorted({run.name for run in life.runs}),
        "prefect_ui": context.settings.prefect_ui_url,
        "now": context.now(),
    }
    return templates.TemplateResponse(request, "study_history.html", content)


@router.post("/studies/{study_instance_uid}/complete", dependencies=SAME_ORIGIN)
def complete(study_instance_uid: Uid, context: Context, who: Person, reason: Why) -> Response:
    """Let a study that waits for images be complete with those that are here."""
    with acting(context) as session:
        decision = Decision(who, context.now(), reason)
        study_actions.complete_now(session, study_instance_uid, decision)
    return _history_of(study_instance_uid)


@router.post("/studies/{study_instance_uid}/rerun", dependencies=SAME_ORIGIN)
def rerun(
    study_instance_uid: Uid,
    context: Context,
    who: Person,
    reason: Why,
    model: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Queue new runs of a complete study."""
    with acting(context) as session:
        decision = Decision(who, context.now(), reason)
        study_actions.rerun(session, study_instance_uid, decision, model)
    return _history_of(study_instance_uid)


@router.post("/runs/{run_id}/cancel", dependencies=SAME_ORIGIN)
def cancel(
    request: Request, run_id: RunNumber, context: Context, who: Person, reason: Why
) -> Response:
    """End a pending or running run for good."""
    with acting(context) as session:
        decision = Decision(who, context.now(), reason)
        uid = study_actions.cancel_run(session, run_id, decision)
    came_from = urlsplit(request.headers.get("referer", "")).path
    return RedirectResponse("/status", 303) if came_from == "/status" else _history_of(uid)


def _history_of(study_instance_uid: str) -> Response:
    return RedirectResponse(f"/studies/{study_instance_uid}/history", status_code=303)
