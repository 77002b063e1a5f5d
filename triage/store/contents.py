"""What is held of a study, as routing and the models see it: its images, with one file each."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from triage.core.priors import PriorState
from triage.core.studies import Instance, Patient, Series, Study, age_in_years
from triage.store.tables import PriorRow, SeriesRow, StudyRow


def series_rows(session: Session, study_id: int) -> Sequence[SeriesRow]:
    """Return the series of a study with their instances, without those that Triage made."""
    return session.scalars(
        select(SeriesRow)
        .where(SeriesRow.study_id == study_id, SeriesRow.is_result.is_(False))
        .options(selectinload(SeriesRow.instances))
        .order_by(SeriesRow.number, SeriesRow.id)
    ).all()


def load_study(session: Session, study_id: int) -> Study:
    """Return the study without conflicting and purged images."""
    study = session.scalars(select(StudyRow).where(StudyRow.id == study_id)).one()
    series = tuple(_as_series(row) for row in series_rows(session, study_id))
    return Study(study.study_instance_uid, series, _patient(study, series))


def load_series(session: Session, series_id: int) -> Series:
    """Return one series with its instances, without conflicting and purged ones."""
    row = session.scalars(
        select(SeriesRow)
        .where(SeriesRow.id == series_id)
        .options(selectinload(SeriesRow.instances))
    ).one()
    return _as_series(row)


def prior_ids(session: Session, study_id: int) -> Sequence[int]:
    """Return the rows of a study's priors that are in the store, the most relevant first.

    A prior of which only a part has come is among them: its images are true, if not all.
    """
    return session.scalars(
        select(StudyRow.id)
        .join(PriorRow, PriorRow.study_instance_uid == StudyRow.study_instance_uid)
        .where(
            PriorRow.study_id == study_id,
            PriorRow.state.in_((PriorState.HERE, PriorState.INCOMPLETE)),
        )
        .order_by(PriorRow.place, PriorRow.id)
    ).all()


def priors_of(session: Session, study_id: int) -> tuple[Study, ...]:
    """Return the priors of a study that are in the store, the most relevant first."""
    return tuple(load_study(session, prior_id) for prior_id in prior_ids(session, study_id))


def _patient(study: StudyRow, series: Sequence[Series]) -> Patient:
    ages = [str(age) for one in series for age in one.values_of("PatientAge")]
    age = age_in_years(ages[0] if ages else "", study.patient.birth_date, study.study_date)
    return Patient(age, study.patient.sex.strip().upper())


def _as_series(row: SeriesRow) -> Series:
    return Series(
        series_instance_uid=row.series_instance_uid,
        modality=row.modality,
        instances=tuple(
            Instance(
                sop_instance_uid=i.sop_instance_uid,
                sop_class_uid=i.sop_class_uid,
                transfer_syntax_uid=i.transfer_syntax_uid,
                path=i.path,
                headers=i.headers,
            )
            for i in row.instances
            if i.conflicts_with is None and i.purged_at is None
        ),
    )
