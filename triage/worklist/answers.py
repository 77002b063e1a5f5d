"""What radiologists answer to what was said of a study, as page and API show it."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from triage.core.missed import MissedFinding
from triage.store.missed import Reported, missed_of
from triage.store.sign_offs import sign_offs_of, standing_sign_off
from triage.store.tables import StudyRow


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class MissedView(_View):
    """Something that a person sees and no model said."""

    report_id: int
    who: str
    at: datetime
    words: str
    """What it is, with its side."""
    finding: MissedFinding


class SignOffView(_View):
    """Who closed the answers and when; who opened them again, None while they are closed."""

    who: str
    at: datetime
    reopened_by: str
    reopened_at: datetime | None
    reopen_reason: str


class AnswersView(_View):
    """Whether answers are open, by whom they were closed, and what was reported as missed."""

    is_open: bool
    signed_off_by: str
    signed_off_at: datetime | None
    sign_offs: tuple[SignOffView, ...]
    missed: tuple[MissedView, ...]


def answers_view(session: Session, study: StudyRow) -> AnswersView:
    """Return where the answers of a study stand."""
    signed = sign_offs_of(session, study.id)
    standing = standing_sign_off(signed, study.generation)
    return AnswersView(
        is_open=standing is None,
        signed_off_by=standing.who if standing else "",
        signed_off_at=standing.at if standing else None,
        sign_offs=tuple(
            SignOffView(
                who=one.who,
                at=one.at,
                reopened_by=one.reopened_by,
                reopened_at=one.reopened_at,
                reopen_reason=one.reopen_reason,
            )
            for one in signed
        ),
        missed=tuple(missed_view(one) for one in missed_of(session, study.id)),
    )


def missed_view(reported: Reported) -> MissedView:
    """Return a report of a missed finding with what it is in words."""
    return MissedView(
        report_id=reported.report_id,
        who=reported.who,
        at=reported.at,
        words=reported.finding.in_words(),
        finding=reported.finding,
    )
