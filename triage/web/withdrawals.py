"""Taking back a result, from the study page and the API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from triage.core.permissions import Permission
from triage.core.withdrawals import PERSONAL_REASONS, WithdrawalReason
from triage.store.withdrawals import (
    LONGEST_TEXT,
    UnknownRunError,
    Withdrawal,
    WithdrawalRefusedError,
    record_withdrawal,
)
from triage.web.access import may
from triage.web.context import Context, WebContext
from triage.web.going_back import go_back
from triage.web.people import Person
from triage.web.security import require_same_origin
from triage.web.subjects import note_study_of_run

router = APIRouter(dependencies=[Depends(may(Permission.SEE_PATIENTS))])
RunNumber = Annotated[int, Path(ge=1, le=2**63 - 1)]


class Wanted(BaseModel):
    """Why a person takes a result back."""

    model_config = ConfigDict(extra="forbid")

    reason: WithdrawalReason
    text: Annotated[str, Field(max_length=LONGEST_TEXT)] = ""
    """What else there is to say; no patient data."""

    @field_validator("reason")
    @classmethod
    def _is_a_persons(cls, reason: WithdrawalReason) -> WithdrawalReason:
        if reason not in PERSONAL_REASONS:
            raise ValueError(f"choose one of {', '.join(PERSONAL_REASONS)}")
        return reason


class WantedThrough(Wanted):
    """The same, through a program such as the reporting system."""

    who: Annotated[str, Field(max_length=128)] = ""
    """Who takes it back; where `web.user_header` names the person, that name counts instead."""


class WithdrawalKept(BaseModel):
    """What was kept of it; the archives are told by the worker."""

    run_id: int
    who: str
    reason: WithdrawalReason
    text: str
    at: datetime


@router.post(
    "/runs/{run_id}/withdraw",
    include_in_schema=False,
    dependencies=[
        Depends(may(Permission.ANSWER_FINDINGS)),
        Depends(note_study_of_run),
        Depends(require_same_origin),
    ],
)
def withdraw(
    request: Request,
    run_id: RunNumber,
    context: Context,
    who: Person,
    wanted: Annotated[Wanted, Form()],
) -> Response:
    """Take the result back in the name of the person at the browser, and go back to the study."""
    _record(context, run_id, who, wanted)
    return go_back(request, mark=f"#run-{run_id}")


@router.post(
    "/api/v1/runs/{run_id}/withdraw",
    tags=["worklist"],
    dependencies=[
        Depends(may(Permission.ANSWER_FINDINGS)),
        Depends(note_study_of_run),
        Depends(require_same_origin),
    ],
    responses={409: {"description": "It cannot be taken back; the detail says why."}},
)
def post_withdrawal(
    run_id: RunNumber, wanted: WantedThrough, context: Context, who: Person
) -> WithdrawalKept:
    """Take the result of a run back: it counts no longer, and every archive that has it is told."""
    is_named = context.settings.names_people
    person = who if is_named else wanted.who.strip() or who
    kept = _record(context, run_id, person, wanted)
    return WithdrawalKept.model_validate(kept, from_attributes=True)


def _record(context: WebContext, run_id: int, who: str, wanted: Wanted) -> Withdrawal:
    try:
        with context.database.transaction() as session:
            return record_withdrawal(
                session,
                run_id,
                who=who,
                reason=wanted.reason,
                text=wanted.text,
                now=context.now(),
            )
    except UnknownRunError as error:
        raise HTTPException(404, str(error)) from error
    except WithdrawalRefusedError as error:
        raise HTTPException(409, f"Not withdrawn: {error}.") from error
