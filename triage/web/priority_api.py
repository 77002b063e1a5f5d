"""Why a study is where it is, and a person's raise: as JSON, and the buttons of its page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from triage.core.manifest import PriorityName
from triage.core.permissions import Permission
from triage.store.prioritising import (
    LONGEST_REASON,
    NoSuchStudyError,
    RaiseRefusedError,
    raise_by_hand,
    take_raise_back,
)
from triage.web.access import may
from triage.web.context import Context, Uid, WebContext
from triage.web.people import asking_person
from triage.web.refusals import Refusal, RefusedRequestError
from triage.web.security import require_same_origin
from triage.worklist.places import PlaceExplanation, explain_place_of

router = APIRouter(
    prefix="/api/v1/studies",
    tags=["worklist"],
    dependencies=[Depends(may(Permission.SEE_PATIENTS))],
)
page_router = APIRouter(
    prefix="/studies",
    include_in_schema=False,
    dependencies=[Depends(may(Permission.CHANGE_WORKLIST)), Depends(require_same_origin)],
)

Why = Annotated[str, Field(min_length=1, max_length=LONGEST_REASON, pattern=r"\S")]
_UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": Refusal, "description": "Triage holds no such study."}
}
_REFUSED: dict[int | str, dict[str, Any]] = {
    **_UNKNOWN,
    409: {"model": Refusal, "description": "It cannot be raised so; the detail says why."},
}


class TakenBack(BaseModel):
    """Why a person takes a raise back, and who it is where a program asks; no patient data."""

    model_config = ConfigDict(extra="forbid")

    reason: Why
    who: Annotated[str, Field(max_length=128)] = ""
    """Where Triage knows who asks, that name counts instead."""


class Raised(TakenBack):
    """What a study is raised to, and why."""

    priority: PriorityName


@router.get("/{study_instance_uid}/priority", responses=_UNKNOWN)
def get_priority(study_instance_uid: Uid, context: Context) -> PlaceExplanation:
    """Say why a study is where it is on the reading list."""
    return _explained(context, study_instance_uid)


@router.put(
    "/{study_instance_uid}/raise",
    responses=_REFUSED,
    dependencies=[Depends(may(Permission.CHANGE_WORKLIST)), Depends(require_same_origin)],
)
def put_raise(
    study_instance_uid: Uid, wanted: Raised, request: Request, context: Context
) -> PlaceExplanation:
    """Raise a study because a person says so; it counts as if its order said it."""
    with _saying_why(), context.database.transaction() as session:
        raise_by_hand(
            session,
            study_instance_uid,
            wanted.priority,
            who=asking_person(request, wanted.who),
            reason=wanted.reason,
            now=context.now(),
        )
    return _explained(context, study_instance_uid)


@router.post(
    "/{study_instance_uid}/take-raise-back",
    responses=_REFUSED,
    dependencies=[Depends(may(Permission.CHANGE_WORKLIST)), Depends(require_same_origin)],
)
def post_take_raise_back(
    study_instance_uid: Uid, wanted: TakenBack, request: Request, context: Context
) -> PlaceExplanation:
    """Take a person's raise back; what the order and the AI say stays."""
    with _saying_why(), context.database.transaction() as session:
        take_raise_back(
            session,
            study_instance_uid,
            who=asking_person(request, wanted.who),
            reason=wanted.reason,
            now=context.now(),
        )
    return _explained(context, study_instance_uid)


@page_router.post("/{study_instance_uid}/raise")
def raise_on_page(
    request: Request,
    study_instance_uid: Uid,
    context: Context,
    priority: Annotated[PriorityName, Form()],
    reason: Annotated[Why, Form()],
) -> Response:
    """Raise the study in the name of the person at the browser, and go back to it."""
    with _saying_why(), context.database.transaction() as session:
        who = asking_person(request, "")
        raise_by_hand(
            session, study_instance_uid, priority, who=who, reason=reason, now=context.now()
        )
    return RedirectResponse(f"/studies/{study_instance_uid}#why-place", status_code=303)


@page_router.post("/{study_instance_uid}/take-raise-back")
def take_back_on_page(
    request: Request, study_instance_uid: Uid, context: Context, reason: Annotated[Why, Form()]
) -> Response:
    """Take a raise back in the name of the person at the browser, and go back to the study."""
    with _saying_why(), context.database.transaction() as session:
        who = asking_person(request, "")
        take_raise_back(session, study_instance_uid, who=who, reason=reason, now=context.now())
    return RedirectResponse(f"/studies/{study_instance_uid}#why-place", status_code=303)


def _explained(context: WebContext, uid: str) -> PlaceExplanation:
    with context.database.reading() as session:
        found = explain_place_of(session, uid, context.now())
    if found is None:
        raise HTTPException(404, "Triage holds no such study")
    return found


@contextmanager
def _saying_why() -> Iterator[None]:
    try:
        yield
    except NoSuchStudyError as error:
        raise HTTPException(404, f"Not done: {error}.") from error
    except RaiseRefusedError as error:
        field, is_named, _ = str(error).partition(": ")
        raise RefusedRequestError(409, f"Not done: {error}.", field if is_named else "") from error
