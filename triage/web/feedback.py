"""Agree, disagree or unsure: what radiologists say of findings, from the study page and the API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from triage.core.agreement import Verdict
from triage.core.permissions import Permission
from triage.store.feedback import (
    LONGEST_REASON,
    Feedback,
    UnknownFindingError,
    record_feedback,
)
from triage.store.sign_offs import AnswersClosedError
from triage.web.access import may
from triage.web.context import Context, WebContext
from triage.web.going_back import go_back
from triage.web.people import Person
from triage.web.security import require_same_origin
from triage.web.subjects import note_study_of_finding

router = APIRouter(dependencies=[Depends(may(Permission.SEE_PATIENTS))])
FindingNumber = Annotated[int, Path(ge=1, le=2**63 - 1)]


class Said(BaseModel):
    """What a person says of a finding."""

    model_config = ConfigDict(extra="forbid")

    verdict: Verdict
    reason: Annotated[str, Field(max_length=LONGEST_REASON)] = ""


class SaidThrough(Said):
    """The same, through a program such as the reporting system."""

    who: Annotated[str, Field(max_length=128)] = ""
    """Who says it; where `web.user_header` names the person, that name counts instead."""


class FeedbackKept(BaseModel):
    """What was kept of it."""

    finding_id: int
    who: str
    verdict: Verdict
    reason: str
    at: datetime
    present: bool
    """What the finding said: whether it was there."""


@router.post(
    "/findings/{finding_id}/feedback",
    include_in_schema=False,
    dependencies=[
        Depends(may(Permission.ANSWER_FINDINGS)),
        Depends(note_study_of_finding),
        Depends(require_same_origin),
    ],
)
def give_feedback(
    request: Request,
    finding_id: FindingNumber,
    context: Context,
    who: Person,
    said: Annotated[Said, Form()],
) -> Response:
    """Keep what the person at the browser says, and go back to the finding."""
    _record(context, finding_id, who, said)
    return go_back(request, mark=f"#finding-{finding_id}")


@router.post(
    "/api/v1/findings/{finding_id}/feedback",
    tags=["models"],
    dependencies=[
        Depends(may(Permission.ANSWER_FINDINGS)),
        Depends(note_study_of_finding),
        Depends(require_same_origin),
    ],
)
def post_feedback(
    finding_id: FindingNumber, said: SaidThrough, context: Context, who: Person
) -> FeedbackKept:
    """Keep what a person says of a finding; it takes the place of what they said of it before."""
    is_named = context.settings.names_people
    person = who if is_named else said.who.strip() or who
    kept = _record(context, finding_id, person, said)
    return FeedbackKept.model_validate(kept, from_attributes=True)


def _record(context: WebContext, finding_id: int, who: str, said: Said) -> Feedback:
    try:
        with context.database.transaction() as session:
            return record_feedback(
                session,
                finding_id,
                who=who,
                verdict=said.verdict,
                reason=said.reason,
                now=context.now(),
            )
    except UnknownFindingError as error:
        raise HTTPException(404, str(error)) from error
    except AnswersClosedError as error:
        raise HTTPException(409, str(error)) from error
