"""What a study can be compared with: the other studies of its patient that are in the store."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.store.tables import StudyRow
from triage.worklist.wording import calendar_date, clock_time


class ComparisonView(BaseModel):
    """Another study of the patient, received or fetched as a prior."""

    model_config = ConfigDict(frozen=True)

    study_instance_uid: str
    study_date: str
    study_time: str
    modalities: tuple[str, ...]
    description: str
    is_prior: bool


def comparisons(session: Session, study: StudyRow) -> tuple[ComparisonView, ...]:
    """Return the patient's other studies whose images are here, the newest first.

    A study without a Patient ID has none: nobody knows whose others are.
    """
    rows = session.scalars(
        select(StudyRow)
        .where(
            StudyRow.patient_id == study.patient_id,
            StudyRow.id != study.id,
            StudyRow.purged_at.is_(None),
        )
        .order_by(StudyRow.study_date.desc(), StudyRow.study_time.desc(), StudyRow.id.desc())
    )
    return tuple(
        ComparisonView(
            study_instance_uid=row.study_instance_uid,
            study_date=calendar_date(row.study_date),
            study_time=clock_time(row.study_time),
            modalities=tuple(filter(None, row.modalities.split("\\"))),
            description=row.description,
            is_prior=row.is_prior,
        )
        for row in rows
    )
