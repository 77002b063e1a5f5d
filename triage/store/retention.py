"""Which studies' images may be deleted, and the rows that say that they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, func, or_, select, update
from sqlalchemy.orm import Session, joinedload

from triage.core.runs import DeliveryState, RunState, StudyState
from triage.settings import RetentionSettings
from triage.store.commitments import is_committed
from triage.store.feedback import forget_reasons_given
from triage.store.history import note
from triage.store.missed import forget_words
from triage.store.orders import forget_order
from triage.store.sign_offs import forget_reasons
from triage.store.study_workitems import forget_workitems
from triage.store.tables import (
    AnalysisRunRow,
    DeliveryRow,
    InstanceRow,
    OpenAssociationRow,
    PatientRow,
    ResultObjectRow,
    RunInputRow,
    SeriesRow,
    StudyRow,
    stand_in_patient_id,
)

_ON_THE_WAY = (DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.DEAD)
_NOT_OVER = (RunState.PENDING, RunState.RUNNING)
SPACE_REASON = "the disk was filling up"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A study whose images may go, with the reason for which they would."""

    study_id: int
    study_instance_uid: str
    reason: str
    size_bytes: int


def _is_worked_off() -> ColumnElement[bool]:
    """The conditions that no setting relaxes: nothing is still to come of the study's images.

    A dead delivery counts as still to come: a person may send it again.
    """
    of_study = AnalysisRunRow.study_id == StudyRow.id
    waits_for_run = exists(
        select(AnalysisRunRow.id).where(of_study, AnalysisRunRow.state.in_(_NOT_OVER))
    )
    is_input_of_run = exists(
        select(RunInputRow.id)
        .join(AnalysisRunRow, AnalysisRunRow.id == RunInputRow.run_id)
        .join(SeriesRow, SeriesRow.id == RunInputRow.series_id)
        .where(SeriesRow.study_id == StudyRow.id, AnalysisRunRow.state.in_(_NOT_OVER))
    )
    waits_for_delivery = exists(
        select(DeliveryRow.id).where(
            DeliveryRow.study_id == StudyRow.id, DeliveryRow.state.in_(_ON_THE_WAY)
        )
    )
    may_get_more = exists(
        select(OpenAssociationRow.id).where(OpenAssociationRow.study_id == StudyRow.id)
    )
    return and_(
        StudyRow.state == StudyState.COMPLETE,
        StudyRow.completed_at.is_not(None),
        ~waits_for_run,
        ~is_input_of_run,
        ~waits_for_delivery,
        ~may_get_more,
    )


def _is_routed() -> ColumnElement[bool]:
    return exists(
        select(AnalysisRunRow.id).where(
            AnalysisRunRow.study_id == StudyRow.id,
            AnalysisRunRow.generation == StudyRow.generation,
        )
    )


def may_be_purged(session: Session, study_id: int, retention: RetentionSettings) -> bool:
    """Return whether the study's images may be deleted now, whatever the reason would be."""
    found = session.scalar(
        select(StudyRow.id).where(
            StudyRow.id == study_id, StudyRow.purged_at.is_(None), _is_worked_off()
        )
    )
    if found is None:
        return False
    return not retention.require_commitment or is_committed(session, study_id)


def due_by_age(
    session: Session, retention: RetentionSettings, now: datetime
) -> Iterator[Candidate]:
    """Yield the studies whose images have been kept for as long as the settings say."""
    days = _days(retention)
    if all(limit is None for limit in days.values()):
        return
    age = []
    for (is_read, is_routed), limit in days.items():
        if limit is not None:
            before = now - timedelta(days=limit)
            age.append(
                and_(
                    StudyRow.completed_at <= before,
                    # Counted from reading too: images do not vanish from under the reader.
                    StudyRow.read_at <= before if is_read else StudyRow.read_at.is_(None),
                    _is_routed() if is_routed else ~_is_routed(),
                )
            )
    for row in _candidates(session, retention, or_(*age)):
        is_read, is_routed = row.read_at is not None, bool(row.is_routed)
        limit = days[is_read, is_routed]
        what = "read" if is_read else "unread"
        wanted = "" if is_routed else ", which no model wanted"
        reason = f"images of {what} studies{wanted} are kept for {limit:g} days"
        yield Candidate(row.id, row.study_instance_uid, reason, int(row.size_bytes))


def due_by_space(session: Session, retention: RetentionSettings) -> Iterator[Candidate]:
    """Yield the studies whose images may go where space is short, the first to go first.

    Those of read studies, the oldest first; then, where the settings allow it, of unread ones.
    """
    taken = None if retention.space_takes_unread else StudyRow.read_at.is_not(None)
    for row in _candidates(session, retention, taken):
        yield Candidate(row.id, row.study_instance_uid, SPACE_REASON, int(row.size_bytes))


def _days(retention: RetentionSettings) -> dict[tuple[bool, bool], float | None]:
    """Return the limits by (is read, is routed)."""
    read, unread = retention.not_routed_read_days, retention.not_routed_unread_days
    return {
        (True, True): retention.read_days,
        (False, True): retention.unread_days,
        (True, False): retention.read_days if read is None else read,
        (False, False): retention.unread_days if unread is None else unread,
    }


def _candidates(
    session: Session, retention: RetentionSettings, condition: ColumnElement[bool] | None
) -> Iterator[Any]:
    size = (
        select(func.coalesce(func.sum(InstanceRow.size_bytes), 0))
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(SeriesRow.study_id == StudyRow.id, InstanceRow.purged_at.is_(None))
        .where(*_what_goes(retention))
        .scalar_subquery()
    )
    wanted = (
        select(
            StudyRow.id,
            StudyRow.study_instance_uid,
            StudyRow.read_at,
            _is_routed().label("is_routed"),
            size.label("size_bytes"),
        )
        .where(StudyRow.purged_at.is_(None), _is_worked_off())
        .order_by(
            case((StudyRow.read_at.is_(None), 1), else_=0), StudyRow.completed_at, StudyRow.id
        )
    )
    if condition is not None:
        wanted = wanted.where(condition)
    for row in session.execute(wanted).all():
        if not retention.require_commitment or is_committed(session, row.id):
            yield row


def _what_goes(retention: RetentionSettings) -> list[ColumnElement[bool]]:
    return [] if retention.result_files else [SeriesRow.is_result.is_(False)]


def lock_study(session: Session, study_id: int) -> StudyRow | None:
    """Return the study, locked against images that arrive; None if somebody else works on it."""
    return session.scalars(
        select(StudyRow)
        .where(StudyRow.id == study_id)
        .with_for_update(skip_locked=True, key_share=True, of=StudyRow)
    ).first()


def mark_purged(
    session: Session, candidate: Candidate, retention: RetentionSettings, *, now: datetime
) -> bool:
    """Note that the study's images are deleted, and return whether they still may be.

    The rows come first and the files after the commit: a crash in between leaves files that the
    rows name as going, never rows whose files are gone unsaid.
    """
    study = lock_study(session, candidate.study_id)
    if study is None or not may_be_purged(session, study.id, retention):
        return False
    study.purged_at = now
    study.purge_reason = candidate.reason
    of_study = select(SeriesRow.id).where(SeriesRow.study_id == study.id, *_what_goes(retention))
    _mark_instances(session, InstanceRow.series_id.in_(of_study), now)
    note(session, study.id, "purged", f"images deleted: {candidate.reason}", at=now)
    return True


def _mark_instances(session: Session, which: ColumnElement[bool], now: datetime) -> None:
    session.execute(
        update(InstanceRow).where(which, InstanceRow.purged_at.is_(None)).values(purged_at=now)
    )


def studies_with_files_to_delete(session: Session, limit: int) -> list[int]:
    """Return studies that have files which are marked and not yet deleted."""
    return list(
        session.scalars(
            select(SeriesRow.study_id)
            .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
            .where(InstanceRow.purged_at.is_not(None), InstanceRow.path != "")
            .distinct()
            .limit(limit)
        )
    )


def instances_to_delete(session: Session, study_id: int, limit: int) -> Sequence[InstanceRow]:
    """Return instances of a locked study whose files are marked and not yet deleted."""
    return session.scalars(
        select(InstanceRow)
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(
            SeriesRow.study_id == study_id,
            InstanceRow.purged_at.is_not(None),
            InstanceRow.path != "",
        )
        .order_by(InstanceRow.id)
        .limit(limit)
    ).all()


def note_deleted(session: Session, instance: InstanceRow) -> None:
    """Note that the file of a purged instance is gone."""
    session.execute(
        update(ResultObjectRow).where(ResultObjectRow.path == instance.path).values(path="")
    )
    instance.path = ""


def due_to_be_forgotten(session: Session, retention: RetentionSettings, now: datetime) -> list[int]:
    """Return the studies whose patient data go: purged long ago, and read."""
    if retention.forget_patient_days is None:
        return []
    before = now - timedelta(days=retention.forget_patient_days)
    return list(session.scalars(select(StudyRow.id).where(_may_be_forgotten(before))))


def _may_be_forgotten(before: datetime) -> ColumnElement[bool]:
    return and_(
        StudyRow.purged_at <= before,
        StudyRow.forgotten_at.is_(None),
        # A study without a name on the reading worklist would help nobody.
        StudyRow.read_at.is_not(None),
        _is_worked_off(),
    )


def forget_patient(
    session: Session, study_id: int, retention: RetentionSettings, *, now: datetime
) -> bool:
    """Delete the patient data of a purged study, and return whether they still might go.

    What stays says nothing about the person: UIDs, runs, findings, priorities and the history. The
    files of results carry the patient's name, so they go too.
    """
    if retention.forget_patient_days is None or lock_study(session, study_id) is None:
        return False
    before = now - timedelta(days=retention.forget_patient_days)
    study = session.scalar(
        select(StudyRow)
        .where(StudyRow.id == study_id, _may_be_forgotten(before))
        .options(joinedload(StudyRow.patient))
    )
    if study is None:
        return False
    series = session.scalars(select(SeriesRow).where(SeriesRow.study_id == study.id)).all()
    of_study = InstanceRow.series_id.in_([one.id for one in series])
    _mark_instances(session, of_study, now)
    session.execute(update(InstanceRow).where(of_study).values(headers={}))
    # What a destination answered may name the patient.
    deliveries = update(DeliveryRow).where(DeliveryRow.study_id == study.id)
    session.execute(deliveries.values(last_error=""))
    for one in series:
        one.description = ""
    study.accession_number = study.description = study.study_date = study.study_time = ""
    study.raised_reason = ""  # a person's words, in which the patient may be named
    study.forgotten_at = now
    forget_workitems(session, study.id)
    forget_order(session, study)
    forget_reasons_given(session, study.id)
    forget_words(session, study.id)
    forget_reasons(session, study.id)
    _replace_patient(session, study)
    note(session, study.id, "forgotten", "patient data deleted", at=now)
    return True


def _replace_patient(session: Session, study: StudyRow) -> None:
    known = study.patient
    # The form in which a patient without a Patient ID is kept: one for each study.
    identity = stand_in_patient_id(study.study_instance_uid)
    nobody = session.scalar(select(PatientRow).where(PatientRow.patient_id == identity))
    if nobody is None:
        nobody = PatientRow(patient_id=identity)
        session.add(nobody)
    nobody.name = nobody.birth_date = nobody.sex = ""
    session.flush()
    study.patient = nobody
    session.flush()
    others = select(StudyRow.id).where(StudyRow.patient_id == known.id).limit(1)
    if known is not nobody and session.scalar(others) is None:
        session.delete(known)
