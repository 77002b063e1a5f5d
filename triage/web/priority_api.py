"""Why a study is where it is, and a person's raise, as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from triage.core.manifest import PriorityName
from triage.core.permissions import Permission
from triage.store.prioritising import (
    LONGEST_REASON,
    NoSuchStudyError,
    RaiseRefusedError,
    raise_by_hand,
    take_raise_back,
)
from triage.store.tables import StudyRow
from triage.web.access import may
from triage.web.context import Context, Uid, WebContext
from triage.web.people import known_person_at
from triage.web.refusals import Refusal, RefusedRequestError
from triage.web.security import require_same_origin
from triage.worklist.places import PlaceExplanation, explain_place

router = APIRouter(
    prefix="/api/v1/studies",
    tags=["worklist"],
    dependencies=[Depends(may(Permission.SEE_PATIENTS))],
)

Person = Annotated[str, Depends(known_person_at)]
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
    study_instance_uid: Uid, wanted: Raised, context: Context, who: Person
) -> PlaceExplanation:
    """Raise a study because a person says so; it counts as if its order said it."""
    with _saying_why(), context.database.transaction() as session:
        raise_by_hand(
            session,
            study_instance_uid,
            wanted.priority,
            who=_person(context, who, wanted.who),
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
    study_instance_uid: Uid, wanted: TakenBack, context: Context, who: Person
) -> PlaceExplanation:
    """Take a person's raise back; what the order and the AI say stays."""
    with _saying_why(), context.database.transaction() as session:
        take_raise_back(
            session,
            study_instance_uid,
            who=_person(context, who, wanted.who),
            reason=wanted.reason,
            now=context.now(),
        )
    return _explained(context, study_instance_uid)


def _person(context: WebContext, known: str, said: str) -> str:
    is_named = bool(context.settings.web.user_header)
    return known if is_named else said.strip() or known


def _explained(context: WebContext, uid: str) -> PlaceExplanation:
    with context.database.reading() as session:
        study_id = session.scalar(select(StudyRow.id).where(StudyRow.study_instance_uid == uid))
        found = None if study_id is None else explain_place(session, study_id, context.now())
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
