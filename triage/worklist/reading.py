"""What the radiologist does to the list: a study is read, or put back."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.runs import StudyState
from triage.store.history import note
from triage.store.notifications import reopen_of_study
from triage.store.study_workitems import end_reading, schedule_reading
from triage.store.tables import StudyRow


class UnknownStudyError(LookupError):
    """Triage holds no study of that UID."""


def mark_as_read(session: Session, study_instance_uid: str, *, now: datetime) -> None:
    """Take the study off the list, because a person has read it.

    Raises:
        UnknownStudyError: there is no such study.
    """
    study = _locked(session, study_instance_uid)
    if study.read_at is None:
        study.read_at = now
        note(session, study.id, "read", "marked as read", at=now)
        end_reading(session, study, now)


def mark_as_unread(session: Session, study_instance_uid: str, *, now: datetime) -> None:
    """Put the study back to its place on the list.

    Raises:
        UnknownStudyError: there is no such study.
    """
    study = _locked(session, study_instance_uid)
    if study.read_at is not None:
        study.read_at = None
        note(session, study.id, "unread", "put back on the worklist", at=now)
        reopen_of_study(session, study.id, now=now)
        if study.state is StudyState.COMPLETE:  # else when it is complete
            schedule_reading(session, study, now)


def _locked(session: Session, study_instance_uid: str) -> StudyRow:
    study = session.scalar(
        select(StudyRow)
        .where(StudyRow.study_instance_uid == study_instance_uid)
        .with_for_update(of=StudyRow)
    )
    if study is None:
        raise UnknownStudyError(f"there is no study {study_instance_uid}")
    return study
