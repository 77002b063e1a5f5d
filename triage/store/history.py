"""A study's history: one line for everything that a person would ask about."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.store.tables import StudyEventRow


def note(
    session: Session,
    study_id: int,
    kind: str,
    text: str,
    *,
    at: datetime,
    run_id: int | None = None,
) -> None:
    """Add a line to the history of a study; `kind` is one of those that StudyEventRow lists."""
    session.add(StudyEventRow(study_id=study_id, run_id=run_id, at=at, kind=kind, text=text))


def texts_of_kind(session: Session, study_id: int, kind: str) -> list[str]:
    """Return the lines of one kind in a study's history, oldest first."""
    return list(
        session.scalars(
            select(StudyEventRow.text)
            .where(StudyEventRow.study_id == study_id, StudyEventRow.kind == kind)
            .order_by(StudyEventRow.id)
        )
    )
