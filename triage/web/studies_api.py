"""Finding studies, their history, and what a person decides about their analysis, as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from triage.core.audit import AuditKind
from triage.core.permissions import Permission
from triage.store import study_actions
from triage.store.delivery_decisions import Decision, DecisionError
from triage.store.study_actions import ActionError, UnknownSubjectError
from triage.web.access import may
from triage.web.context import Context, Uid, WebContext
from triage.web.deliveries_api import SAME_ORIGIN, WhoAndWhy
from triage.web.people import Person, known_person_at
from triage.web.security import require_same_origin
from triage.worklist.lifeline import StudyLife, study_life
from triage.worklist.study_search import FoundStudies, StudySearch, find_studies

router = APIRouter(
    prefix="/api/v1", tags=["studies"], dependencies=[Depends(may(Permission.SEE_OPERATIONS))]
)
SEARCHING = [
    Depends(may(Permission.SEE_OPERATIONS, kind=AuditKind.QUERY)),
    Depends(require_same_origin),
    Depends(known_person_at),
]

RunNumber = Annotated[int, Path(ge=1, le=2**63 - 1)]
_REFUSED: dict[int | str, dict[str, str]] = {
    404: {"description": "No such study, run or model"},
    409: {"description": "Not in a state for this; the detail says why"},
}


class WhichModel(WhoAndWhy):
    """Who and why, and which model; all that want the study, where none is named."""

    model: Annotated[str, Field(max_length=64)] = ""


class RanAgain(BaseModel):
    """The models that were queued again, and those that were not, with the reason."""

    queued: tuple[str, ...]
    refused: tuple[str, ...]


# A POST, because what is searched for is patient data, which has no place in an address.
@router.post("/studies/search", dependencies=SEARCHING)
def search(body: StudySearch, context: Context) -> FoundStudies:
    """Find studies that Triage holds or ever held, also those read, purged or only priors."""
    if body.is_empty:
        raise HTTPException(422, f"Give at least one of: {', '.join(StudySearch.model_fields)}.")
    with context.database.reading() as session:
        return find_studies(session, body, context.now())


@router.get("/studies/{study_instance_uid}/history", responses={404: _REFUSED[404]})
def history(study_instance_uid: Uid, context: Context) -> StudyLife:
    """Give a study's whole life: senders, runs, deliveries, priority, and where it is now."""
    with context.database.reading() as session:
        life = study_life(session, study_instance_uid, context.now())
    if life is None:
        raise HTTPException(404, "Triage holds no such study.")
    return life


@router.post(
    "/studies/{study_instance_uid}/complete",
    status_code=204,
    dependencies=SAME_ORIGIN,
    responses=_REFUSED,
)
def complete(
    study_instance_uid: Uid, body: WhoAndWhy, context: Context, person: Person
) -> Response:
    """Let a study that waits for images be complete with those that are here."""
    with acting(context) as session:
        study_actions.complete_now(session, study_instance_uid, _decision(context, person, body))
    return Response(status_code=204)


@router.post("/studies/{study_instance_uid}/rerun", dependencies=SAME_ORIGIN, responses=_REFUSED)
def rerun(study_instance_uid: Uid, body: WhichModel, context: Context, person: Person) -> RanAgain:
    """Queue new runs of a complete study, of one model or of all; the flag stands meanwhile."""
    with acting(context) as session:
        decision = _decision(context, person, body)
        done = study_actions.rerun(session, study_instance_uid, decision, body.model)
    return RanAgain(queued=done.queued, refused=done.refused)


@router.post("/runs/{run_id}/cancel", status_code=204, dependencies=SAME_ORIGIN, responses=_REFUSED)
def cancel(run_id: RunNumber, body: WhoAndWhy, context: Context, person: Person) -> Response:
    """End a pending or running run for good; what it has found already stands."""
    with acting(context) as session:
        study_actions.cancel_run(session, run_id, _decision(context, person, body))
    return Response(status_code=204)


def _decision(context: WebContext, person: str, body: WhoAndWhy) -> Decision:
    is_named = bool(context.settings.web.user_header)
    who = person if is_named else body.who.strip() or person
    return Decision(who, context.now(), body.reason)


@contextmanager
def acting(context: WebContext) -> Iterator[Session]:
    """Give a session for a decision about a study or run.

    Raises:
        HTTPException: 404 where there is no such study or run, 409 where it is not in a state for
            the decision.
    """
    try:
        with context.database.transaction() as session:
            yield session
    except UnknownSubjectError as error:
        raise HTTPException(404, f"Nothing was changed: {error}.") from None
    except (ActionError, DecisionError) as error:
        raise HTTPException(409, f"Nothing was changed: {error}.") from None
