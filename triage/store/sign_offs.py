"""Signing off a study: its answers are closed, until an addendum opens them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session, lazyload

from triage.core.errors import TriageError
from triage.store.answer_tables import SignOffRow
from triage.store.history import note
from triage.store.tables import StudyRow

LONGEST_ADDENDUM = 1000


class AnswersClosedError(TriageError):
    """The study is signed off; an addendum opens its answers again."""


class AnswersOpenError(TriageError):
    """The study is not signed off, so there is nothing to open again."""


@dataclass(frozen=True, slots=True)
class SignOff:
    """Who closed the answers, and who opened them again: `reopened_at` is None while closed."""

    who: str
    at: datetime
    generation: int
    reopened_by: str
    reopened_at: datetime | None
    reopen_reason: str


def sign_offs_of(session: Session, study_id: int) -> Sequence[SignOff]:
    """Return the sign-offs of a study, oldest first."""
    rows = session.scalars(
        select(SignOffRow).where(SignOffRow.study_id == study_id).order_by(SignOffRow.id)
    )
    return [_sign_off(row) for row in rows]


def standing_sign_off(signed: Sequence[SignOff], generation: int) -> SignOff | None:
    """Return the sign-off that closes the answers of a study of this generation, if one does.

    What is said after more images came is open: nobody has signed it.
    """
    newest = signed[-1] if signed else None
    if newest is None or newest.reopened_at is not None or newest.generation < generation:
        return None
    return newest


def lock_open_answers(session: Session, study_id: int) -> StudyRow:
    """Return the study, locked, so that nobody signs it off meanwhile.

    Raises:
        AnswersClosedError: it is signed off.
    """
    study = _locked(session, study_id)
    standing = standing_sign_off(sign_offs_of(session, study_id), study.generation)
    if standing is not None:
        raise AnswersClosedError(
            f"{standing.who} has signed off the study; add an addendum to answer again"
        )
    return study


def sign_off(session: Session, study_id: int, *, who: str, now: datetime) -> bool:
    """Close the answers of a study; return whether they were open."""
    study = _locked(session, study_id)
    if standing_sign_off(sign_offs_of(session, study_id), study.generation) is not None:
        return False
    session.add(SignOffRow(study_id=study_id, generation=study.generation, who=who, at=now))
    note(session, study_id, "signed", f"signed off by {who}", at=now)
    session.flush()
    return True


def open_again(session: Session, study_id: int, *, who: str, reason: str, now: datetime) -> None:
    """Open the answers of a study that is signed off, for an addendum.

    Raises:
        AnswersOpenError: it is not signed off.
    """
    study = _locked(session, study_id)
    row = session.scalars(
        select(SignOffRow).where(SignOffRow.study_id == study_id).order_by(SignOffRow.id.desc())
    ).first()
    if row is None or row.reopened_at is not None or row.generation < study.generation:
        raise AnswersOpenError("the study is not signed off; answer right away")
    row.reopened_by, row.reopened_at = who, now
    row.reopen_reason = reason.strip()[:LONGEST_ADDENDUM]
    note(session, study_id, "addendum", f"answers opened again by {who}", at=now)


def forget_reasons(session: Session, study_id: int) -> None:
    """Delete the free words of the addenda to a study whose patient is forgotten."""
    rows = update(SignOffRow).where(SignOffRow.study_id == study_id)
    session.execute(rows.values(reopen_reason=""))


def _locked(session: Session, study_id: int) -> StudyRow:
    return session.scalars(
        select(StudyRow)
        .where(StudyRow.id == study_id)
        .options(lazyload(StudyRow.patient))
        .with_for_update(key_share=True, of=StudyRow)
    ).one()


def _sign_off(row: SignOffRow) -> SignOff:
    return SignOff(
        who=row.who,
        at=row.at,
        generation=row.generation,
        reopened_by=row.reopened_by,
        reopened_at=row.reopened_at,
        reopen_reason=row.reopen_reason,
    )
