"""A study's priors: what is wanted, what is here, and the images to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, selectinload

from triage.core.priors import Comparable, PriorState
from triage.store.studies import make_ordinary
from triage.store.tables import InstanceRow, PriorRow, SeriesRow, StudyRow, stand_in_patient_id


@dataclass(frozen=True, slots=True)
class HeldStudy:
    """Whether the store holds a study, and as what."""

    study_id: int
    is_prior: bool


def prior_rows(session: Session, study_id: int) -> Sequence[PriorRow]:
    """Return the priors of a study with what became of each, the most relevant first."""
    return session.scalars(
        select(PriorRow).where(PriorRow.study_id == study_id).order_by(PriorRow.place, PriorRow.id)
    ).all()


def comparable(session: Session, study_id: int) -> Comparable:
    """Return what the relevance of priors depends on."""
    study = session.scalars(
        select(StudyRow)
        .where(StudyRow.id == study_id)
        .options(joinedload(StudyRow.patient), selectinload(StudyRow.series))
    ).one()
    series = [one for one in study.series if not one.is_result]
    day = study.study_date or study.first_instance_at.astimezone().strftime("%Y%m%d")
    # Without a Patient ID, the row has a stand-in that names no patient to any archive.
    has_stand_in = study.patient.patient_id == stand_in_patient_id(study.study_instance_uid)
    return Comparable(
        study_instance_uid=study.study_instance_uid,
        patient_id="" if has_stand_in else study.patient.patient_id,
        issuer_of_patient_id=study.patient.issuer,
        birth_date=study.patient.birth_date,
        study_date=day,
        study_time=study.study_time or "235959",
        accession_number=study.accession_number,
        modalities=frozenset(filter(None, study.modalities.split("\\"))),
        description=study.description,
        body_parts=tuple(one.body_part for one in series if one.body_part),
    )


def want_priors(
    session: Session, study_id: int, priors: Sequence[Comparable], *, now: datetime
) -> None:
    """Note which priors are wanted; what became of one that was wanted before is kept."""
    known = {row.study_instance_uid: row for row in prior_rows(session, study_id)}
    for place, prior in enumerate(priors):
        row = known.get(prior.study_instance_uid)
        if row is not None:
            row.place = place
            continue
        session.add(
            PriorRow(
                study_id=study_id,
                study_instance_uid=prior.study_instance_uid,
                place=place,
                study_date=prior.study_date[:10],
                study_time=prior.study_time[:16],
                modalities="\\".join(sorted(prior.modalities))[:128],
                description=prior.description[:128],
                state=PriorState.WANTED,
                at=now,
            )
        )


def set_prior_state(
    session: Session,
    study_id: int,
    study_instance_uid: str,
    state: PriorState,
    said: str,
    *,
    now: datetime,
) -> None:
    """Note what became of one prior."""
    row = session.scalars(
        select(PriorRow).where(
            PriorRow.study_id == study_id, PriorRow.study_instance_uid == study_instance_uid
        )
    ).one()
    row.state = state
    row.said = said
    row.at = now


def held_study(session: Session, study_instance_uid: str) -> HeldStudy | None:
    """Return how the store holds the study, or None if it does not."""
    found = session.execute(
        select(StudyRow.id, StudyRow.is_prior).where(
            StudyRow.study_instance_uid == study_instance_uid
        )
    ).first()
    return HeldStudy(*found) if found else None


def sop_instance_uids_of(session: Session, study_instance_uid: str) -> set[str]:
    """Return the SOP Instance UIDs of the study that are in the store."""
    return set(
        session.scalars(
            select(InstanceRow.sop_instance_uid)
            .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
            .join(StudyRow, StudyRow.id == SeriesRow.study_id)
            .where(StudyRow.study_instance_uid == study_instance_uid)
        )
    )


def ask_to_read(session: Session, study_instance_uid: str, because: str, now: datetime) -> None:
    """Turn the study, if it was fetched as a prior, into one that is to be analysed and read."""
    study = session.scalars(
        select(StudyRow)
        .where(StudyRow.study_instance_uid == study_instance_uid, StudyRow.is_prior.is_(True))
        .with_for_update(key_share=True, of=StudyRow)
    ).first()
    if study is not None:
        make_ordinary(session, study, because, now)
