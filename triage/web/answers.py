"""Answers of radiologists: what they say of findings, what was missed, and signing off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.agreement import Verdict
from triage.core.codes import Code
from triage.core.missed import MissedFinding
from triage.core.permissions import Permission
from triage.store.feedback import (
    LONGEST_REASON,
    UnknownFindingError,
    record_feedback,
    take_back_feedback,
)
from triage.store.missed import (
    MissedFindingError,
    UnknownReportError,
    known_codes,
    report_missed,
    take_back_missed,
)
from triage.store.sign_offs import (
    LONGEST_ADDENDUM,
    AnswersClosedError,
    AnswersOpenError,
    open_again,
    sign_off,
)
from triage.store.studies import find_study
from triage.store.tables import AnalysisRunRow, FindingRow, StudyRow
from triage.web.access import may
from triage.web.context import Context, Uid, WebContext
from triage.web.people import Person
from triage.web.refusals import Refusal, RefusedRequestError
from triage.web.security import require_same_origin
from triage.worklist.answers import AnswersView, MissedView, answers_view, missed_view
from triage.worklist.reading import mark_as_read
from triage.worklist.study_view import FeedbackView, study_view

router = APIRouter(
    prefix="/api/v1", tags=["answers"], dependencies=[Depends(may(Permission.SEE_PATIENTS))]
)
Number = Annotated[int, Path(ge=1, le=2**63 - 1)]

_SAME_ORIGIN = [Depends(may(Permission.ANSWER_FINDINGS)), Depends(require_same_origin)]
_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Refusal, "description": "Nobody is known to be at the browser."},
    404: {"model": Refusal, "description": "There is no such study, finding or report."},
    409: {"model": Refusal, "description": "The study is signed off, or not signed off yet."},
    422: {"model": Refusal, "description": "A field is missing or wrong; `field` says which."},
}


class Answer(BaseModel):
    """What the person says of a finding."""

    model_config = ConfigDict(extra="forbid")

    verdict: Verdict
    reason: Annotated[str, Field(max_length=LONGEST_REASON)] = ""
    """Optional; no patient data."""


class Addendum(BaseModel):
    """Why the answers are opened again."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=LONGEST_ADDENDUM)] = ""
    """Optional; no patient data."""


class AnsweredFinding(BaseModel):
    """A finding, and what persons say of it; each person's newest word."""

    finding_id: int
    run_id: int
    key: str
    title: str
    present: bool
    model: str
    answers: tuple[FeedbackView, ...]


class StudyAnswers(AnswersView):
    """All answers to what was said of a study."""

    study_instance_uid: str
    read_at: datetime | None
    findings: tuple[AnsweredFinding, ...]


class FindingCode(BaseModel):
    """A finding that registered models look for."""

    code: Code
    models: tuple[str, ...]


@router.get("/finding-codes")
def finding_codes(context: Context) -> list[FindingCode]:
    """Give what registered models look for: what can be reported as missed by code."""
    with context.database.reading() as session:
        known = known_codes(session)
    return [FindingCode(code=one.code, models=one.models) for one in known]


@router.get("/studies/{study_instance_uid}/answers", responses={404: _REFUSALS[404]})
def answers(study_instance_uid: Uid, context: Context) -> StudyAnswers:
    """Give what persons say of the study's findings, what was missed, and who signed it off."""
    with context.database.reading() as session:
        view = study_view(session, study_instance_uid, context.now())
    if view is None:
        raise HTTPException(404, "Triage holds no such study")
    return StudyAnswers(
        **dict(view.answers),
        study_instance_uid=view.study_instance_uid,
        read_at=view.read_at,
        findings=tuple(
            AnsweredFinding(
                finding_id=one.finding_id,
                run_id=one.run_id,
                key=one.key,
                title=one.title,
                present=one.present,
                model=one.model,
                answers=one.feedback,
            )
            for one in view.findings
        ),
    )


@router.put(
    "/studies/{study_instance_uid}/answers/{finding_id}",
    dependencies=_SAME_ORIGIN,
    responses=_REFUSALS,
)
def answer(
    study_instance_uid: Uid, finding_id: Number, said: Answer, context: Context, who: Person
) -> FeedbackView:
    """Say what the person thinks of a finding; it takes the place of what they said before."""
    with _answering(context, study_instance_uid) as (session, study):
        _require_finding_of(session, study, finding_id)
        kept = record_feedback(
            session,
            finding_id,
            who=who,
            verdict=said.verdict,
            reason=said.reason,
            now=context.now(),
        )
    return FeedbackView(who=kept.who, verdict=kept.verdict, reason=kept.reason, at=kept.at)


@router.delete(
    "/studies/{study_instance_uid}/answers/{finding_id}",
    status_code=204,
    dependencies=_SAME_ORIGIN,
    responses=_REFUSALS,
)
def take_back_answer(
    study_instance_uid: Uid, finding_id: Number, context: Context, who: Person
) -> Response:
    """Take back what the person said of a finding."""
    with _answering(context, study_instance_uid) as (session, study):
        _require_finding_of(session, study, finding_id)
        take_back_feedback(session, finding_id, who=who, now=context.now())
    return Response(status_code=204)


@router.post(
    "/studies/{study_instance_uid}/missed-findings",
    status_code=201,
    dependencies=_SAME_ORIGIN,
    responses=_REFUSALS,
)
def report(
    study_instance_uid: Uid, finding: MissedFinding, context: Context, who: Person
) -> MissedView:
    """Report something that the person sees and no model said.

    A model that said there is none of it gets the person's disagreement: it counts as missed.
    """
    with _answering(context, study_instance_uid) as (session, study):
        return missed_view(report_missed(session, study, finding, who=who, now=context.now()))


@router.delete(
    "/studies/{study_instance_uid}/missed-findings/{report_id}",
    status_code=204,
    dependencies=_SAME_ORIGIN,
    responses=_REFUSALS,
)
def take_back_report(
    study_instance_uid: Uid, report_id: Number, context: Context, who: Person
) -> Response:
    """Take back a report of one's own, with the disagreements that came with it."""
    with _answering(context, study_instance_uid) as (session, study):
        take_back_missed(session, study, report_id, who=who, now=context.now())
    return Response(status_code=204)


@router.post(
    "/studies/{study_instance_uid}/sign-off", dependencies=_SAME_ORIGIN, responses=_REFUSALS
)
def sign(study_instance_uid: Uid, context: Context, who: Person) -> AnswersView:
    """Sign the study off: its answers are closed.

    With `reading.sign_off_with_read` it is marked as read with that.
    """
    now = context.now()
    with _answering(context, study_instance_uid) as (session, study):
        if context.settings.reading.sign_off_with_read:
            mark_as_read(session, study_instance_uid, now=now, signed_by=who)
        else:
            sign_off(session, study.id, who=who, now=now)
        session.flush()
        return answers_view(session, study)


@router.post(
    "/studies/{study_instance_uid}/addenda", dependencies=_SAME_ORIGIN, responses=_REFUSALS
)
def add_addendum(
    study_instance_uid: Uid, addendum: Addendum, context: Context, who: Person
) -> AnswersView:
    """Open the answers of a study that is signed off; it stays off the list."""
    with _answering(context, study_instance_uid) as (session, study):
        open_again(session, study.id, who=who, reason=addendum.reason, now=context.now())
        session.flush()
        return answers_view(session, study)


@contextmanager
def _answering(context: WebContext, study_uid: str) -> Iterator[tuple[Session, StudyRow]]:
    """Give a transaction and the study, and turn what is refused into an answer."""
    try:
        with context.database.transaction() as session:
            study = find_study(session, study_uid)
            if study is None:
                raise HTTPException(404, "Triage holds no such study")
            yield session, study
    except (UnknownFindingError, UnknownReportError) as error:
        raise HTTPException(404, str(error)) from error
    except (AnswersClosedError, AnswersOpenError) as error:
        raise HTTPException(409, str(error)) from error
    except MissedFindingError as error:
        raise RefusedRequestError(422, f"{error.field}: {error}", error.field) from error


def _require_finding_of(session: Session, study: StudyRow, finding_id: int) -> None:
    run_id = session.scalar(select(FindingRow.run_id).where(FindingRow.id == finding_id))
    run = session.get(AnalysisRunRow, run_id) if run_id is not None else None
    if run is None or run.study_id != study.id:
        raise UnknownFindingError(f"the study has no finding {finding_id}; open it anew")
