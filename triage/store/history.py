"""A study's history: one line for everything that a person would ask about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, insert, select
from sqlalchemy.orm import Session

from triage.core.stages import COUNTING_STAGES
from triage.store.tables import AnalysisRunRow, StudyEventRow

SHADOW_KIND = "shadow"
"""The kind of the lines about shadow models that belong to no run."""


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


def note_each(
    session: Session, kind: str, texts: Sequence[tuple[int, str]], *, at: datetime
) -> None:
    """Add a line to the history of each of these studies, in one statement.

    `texts` are pairs of a study's id and what is said of it.
    """
    if texts:
        lines = [{"study_id": study, "at": at, "kind": kind, "text": text} for study, text in texts]
        session.execute(insert(StudyEventRow), lines)


def texts_of_kind(session: Session, study_id: int, kind: str) -> list[str]:
    """Return the lines of one kind in a study's history, oldest first."""
    return list(
        session.scalars(
            select(StudyEventRow.text)
            .where(StudyEventRow.study_id == study_id, StudyEventRow.kind == kind)
            .order_by(StudyEventRow.id)
        )
    )


def is_for_readers() -> ColumnElement[bool]:
    """Return the condition that a line is not about a shadow run, which no radiologist sees."""
    of_shadow_run = exists(
        select(AnalysisRunRow.id).where(
            AnalysisRunRow.id == StudyEventRow.run_id,
            AnalysisRunRow.stage.not_in(COUNTING_STAGES),
        )
    )
    return and_(StudyEventRow.kind != SHADOW_KIND, ~of_shadow_run)
