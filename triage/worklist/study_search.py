"""Which studies Triage holds or ever held, by what a person on the telephone can say of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, and_, func, select, union
from sqlalchemy.orm import Session, joinedload

from triage.core.days import Day
from triage.store.tables import InstanceRow, PatientRow, SeriesRow, StudyRow
from triage.worklist.expected import ExpectedStudy, expected_studies
from triage.worklist.search import (
    conditions_of_text,
    has_accession_number,
    is_of_patient_named,
    is_of_patient_numbered,
)
from triage.worklist.whereabouts import Whereabouts, whereabouts_of
from triage.worklist.wording import calendar_date, patient_identifier, person_name

_MOST = 100
_Said = Annotated[str, Field(max_length=128)]


class StudySearch(BaseModel):
    """What is known of a study; all that is given must match, and something must be given.

    A name matches by the beginnings of its words, as on the worklist, whatever order, case and
    accents ("ada love" finds Lovelace^Ada); an accession number or Patient ID as a whole or, where
    none is the same, without regard to case and leading zeros.
    """

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, frozen=True)

    accession_number: _Said = ""
    patient_id: _Said = ""
    patient_name: _Said = ""
    study_instance_uid: Annotated[str, Field(max_length=64, pattern=r"^[0-9.]*$")] = ""
    study_date: Day | None = None
    sender: Annotated[str, Field(max_length=16)] = ""
    text: _Said = ""
    """One of the above, when nobody said which; where no number is the same, also by beginnings."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return not (self.text or self.is_precise)

    @property
    def is_precise(self) -> bool:
        """Whether it was said which of the attributes is meant."""
        return any(self.model_dump(exclude={"text"}).values())


class FoundStudy(BaseModel):
    """A study in the answer, with where it stands in one sentence."""

    model_config = ConfigDict(frozen=True)

    study_instance_uid: str
    patient_name: str
    patient_id: str
    accession_number: str
    study_date: str
    modalities: tuple[str, ...]
    description: str
    calling_ae_title: str
    first_instance_at: datetime
    images: int
    where: Whereabouts


class FoundStudies(BaseModel):
    """The newest studies that match, whether there are more, and what was ordered and not sent."""

    model_config = ConfigDict(frozen=True)

    studies: tuple[FoundStudy, ...]
    is_cut_off: bool
    expected: tuple[ExpectedStudy, ...] = ()


def find_studies(session: Session, search: StudySearch, now: datetime) -> FoundStudies:
    """Return the studies that match, the newest first: also those read, purged, or only priors."""
    if search.is_empty:
        return FoundStudies(studies=(), is_cut_off=False)
    rows = _rows(session, _conditions(session, search))
    if not rows and (search.accession_number or search.patient_id or search.text):
        rows = _rows(session, _conditions(session, search, nearly=True))
    shown = rows[:_MOST]
    images = _images(session, [study.id for study in shown])
    where = whereabouts_of(session, shown, now)
    return FoundStudies(
        studies=tuple(_found(study, images.get(study.id, 0), where[study.id]) for study in shown),
        is_cut_off=len(rows) > _MOST,
        expected=_expected(session, search),
    )


def _expected(session: Session, search: StudySearch) -> tuple[ExpectedStudy, ...]:
    """Return orders without a study; names and dates stand in none of them."""
    if search.patient_name or search.study_date or search.sender:
        return ()
    return expected_studies(
        session,
        numbers=[one for one in (search.accession_number, search.text) if one],
        patient_ids=[one for one in (search.patient_id, search.text) if one],
        uids=[one for one in (search.study_instance_uid, search.text) if one],
    )


def _rows(session: Session, conditions: list[ColumnElement[bool]]) -> Sequence[StudyRow]:
    return session.scalars(
        select(StudyRow)
        .where(*conditions)
        .options(joinedload(StudyRow.patient))
        .order_by(StudyRow.last_instance_at.desc(), StudyRow.id.desc())
        .limit(_MOST + 1)
    ).all()


def _conditions(
    session: Session, search: StudySearch, *, nearly: bool = False
) -> list[ColumnElement[bool]]:
    is_number = has_accession_number if nearly else _has_exactly_accession_number
    is_patient = is_of_patient_numbered if nearly else _is_of_exactly_patient
    conditions: list[ColumnElement[bool]] = []
    if search.accession_number:
        conditions.append(is_number(search.accession_number))
    if search.patient_id:
        conditions.append(is_patient(search.patient_id))
    if search.patient_name:
        conditions.append(is_of_patient_named(search.patient_name))
    if search.study_instance_uid:
        conditions.append(StudyRow.study_instance_uid == search.study_instance_uid)
    if search.study_date:
        # Old objects write it as ACR-NEMA did, with full stops (DICOM PS3.5 6.2).
        said = (search.study_date.strftime("%Y%m%d"), search.study_date.strftime("%Y.%m.%d"))
        conditions.append(StudyRow.study_date.in_(said))
    if search.sender:
        conditions.append(_is_from(search.sender))
    if search.text:
        text = search.text
        ways = [is_number(text), is_patient(text), StudyRow.study_instance_uid == text]
        # The name only if no number is the same.
        if nearly and (words := conditions_of_text(session, text, conditions)):
            ways.append(and_(*words))
        # Not by OR: so each way uses an index of its own.
        conditions.append(StudyRow.id.in_(union(*(select(StudyRow.id).where(w) for w in ways))))
    return conditions


def _has_exactly_accession_number(number: str) -> ColumnElement[bool]:
    return StudyRow.accession_number == number


def _is_of_exactly_patient(patient_id: str) -> ColumnElement[bool]:
    # Not by a join: so each of several conditions can use an index of its own.
    return StudyRow.patient_id.in_(select(PatientRow.id).where(PatientRow.patient_id == patient_id))


def _is_from(sender: str) -> ColumnElement[bool]:
    sent_any = (
        select(SeriesRow.study_id)
        .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
        .where(InstanceRow.calling_ae_title == sender)
    )
    return (StudyRow.calling_ae_title == sender) | StudyRow.id.in_(sent_any)


def _images(session: Session, ids: list[int]) -> dict[int, int]:
    counted = session.execute(
        select(SeriesRow.study_id, func.count())
        .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
        .where(SeriesRow.study_id.in_(ids), SeriesRow.is_result.is_(False))
        .group_by(SeriesRow.study_id)
    )
    return {row[0]: row[1] for row in counted}


def _found(study: StudyRow, images: int, where: Whereabouts) -> FoundStudy:
    return FoundStudy(
        study_instance_uid=study.study_instance_uid,
        patient_name=person_name(study.patient.name),
        patient_id=patient_identifier(study.patient.patient_id),
        accession_number=study.accession_number,
        study_date=calendar_date(study.study_date),
        modalities=tuple(filter(None, study.modalities.split("\\"))),
        description=study.description,
        calling_ae_title=study.calling_ae_title,
        first_instance_at=study.first_instance_at,
        images=images,
        where=where,
    )
