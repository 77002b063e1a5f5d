"""What the radiologist does to the list: a study is read, or put back."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.places import Source
from triage.core.runs import StudyState
from triage.store.claims import end_claim
from triage.store.history import note
from triage.store.prioritising import reprioritise
from triage.store.sign_offs import open_again, sign_off, sign_offs_of, standing_sign_off
from triage.store.study_workitems import end_reading, schedule_reading
from triage.store.tables import StudyRow


class UnknownStudyError(LookupError):
    """Triage holds no study of that UID."""


def mark_as_read(
    session: Session, study_instance_uid: str, *, now: datetime, signed_by: str = ""
) -> None:
    """Take the study off the list, because a person has read it.

    `signed_by` signs it off with the same act, which closes the answers to what the AI said.

    Raises:
        UnknownStudyError: there is no such study.
    """
    study = locked_study(session, study_instance_uid)
    if study.read_at is None:
        study.read_at = now
        note(session, study.id, "read", "marked as read", at=now)
        end_claim(session, study.id)
        end_reading(session, study, now)
    if signed_by:
        sign_off(session, study.id, who=signed_by, now=now)


def mark_as_unread(
    session: Session, study_instance_uid: str, *, now: datetime, by: str = ""
) -> None:
    """Put the study back to its place on the list; its answers are open again.

    Raises:
        UnknownStudyError: there is no such study.
    """
    study = locked_study(session, study_instance_uid)
    if study.read_at is not None:
        study.read_at = None
        text = "put back on the worklist"
        note(session, study.id, "unread", text, at=now)
        reprioritise(session, study, Source.POLICY, text, now=now)  # it may have changed since
        if study.state is StudyState.COMPLETE:  # else when it is complete
            schedule_reading(session, study, now)
    if standing_sign_off(sign_offs_of(session, study.id), study.generation) is not None:
        open_again(session, study.id, who=by or "a person", reason="put back on the list", now=now)


def locked_study(session: Session, study_instance_uid: str) -> StudyRow:
    """Return the study, locked until the end of the transaction.

    Raises:
        UnknownStudyError: there is no such study.
    """
    study = session.scalar(
        select(StudyRow)
        .where(StudyRow.study_instance_uid == study_instance_uid)
        .with_for_update(of=StudyRow)
    )
    if study is None:
        raise UnknownStudyError(f"there is no study {study_instance_uid}")
    return study
