"""What remote models are asked, and what they send back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from triage.core.remote import RemoteState, ReturnedState
from triage.core.routing import select_series
from triage.core.runs import StudyState
from triage.settings import RemoteModelSettings
from triage.store.contents import load_study
from triage.store.history import note
from triage.store.studies import ReceivedInstance
from triage.store.tables import (
    STAND_IN_PREFIX,
    InstanceRow,
    RemoteAnalysisRow,
    ReturnedObjectRow,
    SeriesRow,
    StudyRow,
)

_MOST_STUDIES = 50


@dataclass(frozen=True, slots=True)
class DueImages:
    """Images that are to be sent to a remote model.

    `contexts` are their SOP classes, each with a transfer syntax.
    """

    analysis_id: int
    attempt: int
    paths: tuple[str, ...]
    contexts: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class ReturnedObject:
    """An object that came back and waits; `study_instance_uid` is the pseudonym in it."""

    object_id: int
    calling_ae_title: str
    study_instance_uid: str
    path: str


@dataclass(frozen=True, slots=True)
class AskedStudy:
    """The study that a pseudonym stands for, as the index knows it.

    Attributes:
        analysis_id: what the remote model was asked.
        study_id: its row.
        uids: the UIDs of it that the remote model got pseudonyms of.
        paths: the files of the images that were sent; some may be gone.
        attributes: what the index has of the patient and the study, by DICOM keyword.
    """

    analysis_id: int
    study_id: int
    study_instance_uid: str
    uids: frozenset[str]
    paths: tuple[str, ...]
    attributes: Mapping[str, str]


def ask_about_new_studies(
    session: Session,
    model: RemoteModelSettings,
    *,
    pseudonym: Callable[[str], str],
    now: datetime,
) -> int:
    """Route the studies that `model` was not asked about yet, and return how many there were.

    They are complete, and not for longer than `model.maximum_age_h`. Those that it does not accept
    are kept with the reason, like those of our own models.
    """
    asked = exists(
        select(RemoteAnalysisRow.id).where(
            RemoteAnalysisRow.study_id == StudyRow.id,
            RemoteAnalysisRow.generation == StudyRow.generation,
            RemoteAnalysisRow.remote_model == model.name,
        )
    )
    studies = session.scalars(
        select(StudyRow)
        .where(
            StudyRow.state == StudyState.COMPLETE,
            StudyRow.completed_at >= now - timedelta(hours=model.maximum_age_h),
            StudyRow.is_prior.is_(False),
            StudyRow.purged_at.is_(None),
            ~asked,
        )
        .order_by(StudyRow.priority.desc(), StudyRow.completed_at)
        .limit(_MOST_STUDIES)
        .with_for_update(key_share=True, skip_locked=True, of=StudyRow)  # another worker asks
    ).all()
    for study in studies:
        _ask(session, model, study, pseudonym(study.study_instance_uid), now)
    return len(studies)


def _ask(
    session: Session, model: RemoteModelSettings, study: StudyRow, pseudonym: str, now: datetime
) -> None:
    selection = select_series(load_study(session, study.id), model.accepts)
    row = RemoteAnalysisRow(
        remote_model=model.name,
        study_id=study.id,
        generation=study.generation,
        pseudonym=pseudonym,
        next_attempt_at=now,
        created_at=now,
    )
    if selection.series is None:
        row.state, row.said = RemoteState.REFUSED, selection.reason
        note(session, study.id, "remote", f"not for {model.name}: {selection.reason}", at=now)
    else:
        row.series_instance_uid = selection.series.series_instance_uid
    session.add(row)


def claim_images(
    session: Session, model: RemoteModelSettings, *, lease: timedelta, now: datetime
) -> DueImages | None:
    """Claim the images that are to be sent next, those of the most urgent study, or None.

    The claim holds for `lease`; then they are sent again, which changes nothing at the remote.
    """
    row = session.scalars(
        select(RemoteAnalysisRow)
        .join(StudyRow, StudyRow.id == RemoteAnalysisRow.study_id)
        .where(
            RemoteAnalysisRow.remote_model == model.name,
            RemoteAnalysisRow.state == RemoteState.WAITING,
            RemoteAnalysisRow.next_attempt_at <= now,
        )
        .order_by(StudyRow.priority.desc(), RemoteAnalysisRow.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=RemoteAnalysisRow)
    ).first()
    if row is None:
        return None
    row.attempts += 1
    row.next_attempt_at = now + lease
    images = _images(session, row)
    return DueImages(
        analysis_id=row.id,
        attempt=row.attempts,
        paths=tuple(image.path for image in images),
        contexts=frozenset((image.sop_class_uid, image.transfer_syntax_uid) for image in images),
    )


def _images(session: Session, row: RemoteAnalysisRow) -> Sequence[InstanceRow]:
    return session.scalars(
        select(InstanceRow)
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(
            SeriesRow.study_id == row.study_id,
            SeriesRow.series_instance_uid == row.series_instance_uid,
            InstanceRow.conflicts_with.is_(None),
            InstanceRow.path != "",
        )
        .order_by(InstanceRow.id)
    ).all()


def mark_sent(
    session: Session, due: DueImages, model: RemoteModelSettings, *, now: datetime
) -> None:
    """Note that the remote model has the images; from now on its answer is waited for."""
    row = _row(session, due.analysis_id)
    if row.state is not RemoteState.WAITING:
        return  # it was quicker than we are
    row.state, row.sent_at, row.said = RemoteState.SENT, now, ""
    row.next_attempt_at = now + timedelta(seconds=model.answer_within_s)
    number = len(due.paths)
    text = f"{number} image{'' if number == 1 else 's'} sent to {model.name}, without identity"
    note(session, row.study_id, "remote", text, at=now)


def mark_not_sent(
    session: Session, due: DueImages, error: str, *, retry_at: datetime | None, now: datetime
) -> None:
    """Note why the images were not sent; with `retry_at` None that was the last attempt."""
    row = _row(session, due.analysis_id)
    row.said = error
    if retry_at is not None:
        row.next_attempt_at = retry_at
        return
    row.state = RemoteState.FAILED
    note(session, row.study_id, "remote", f"not sent to {row.remote_model}: {error}", at=now)


def note_unanswered(session: Session, *, now: datetime) -> int:
    """Say of each study whose answer is overdue that there is none, and return how many."""
    rows = session.scalars(
        select(RemoteAnalysisRow)
        .where(
            RemoteAnalysisRow.state == RemoteState.SENT, RemoteAnalysisRow.next_attempt_at <= now
        )
        .with_for_update(skip_locked=True, of=RemoteAnalysisRow)
    ).all()
    for row in rows:
        row.state = RemoteState.UNANSWERED
        assert row.sent_at is not None
        row.said = f"no answer since {row.sent_at:%Y-%m-%d %H:%M} UTC"
        note(session, row.study_id, "remote", f"{row.remote_model}: {row.said}", at=now)
    return len(rows)


def keep_returned(session: Session, received: ReceivedInstance) -> None:
    """Note an object that came from a remote model, once, whose file is durable."""
    known = session.scalar(
        select(ReturnedObjectRow.id).where(
            ReturnedObjectRow.sop_instance_uid == received.sop_instance_uid,
            ReturnedObjectRow.sha256 == received.file.sha256,
        )
    )
    if known is not None:
        return
    session.add(
        ReturnedObjectRow(
            calling_ae_title=received.calling_ae_title[:16],
            study_instance_uid=received.study_instance_uid,
            sop_instance_uid=received.sop_instance_uid,
            path=received.file.path,
            size_bytes=received.file.size_bytes,
            sha256=received.file.sha256,
            received_at=received.received_at,
        )
    )


def next_returned(session: Session) -> ReturnedObject | None:
    """Return the object that came back first and waits, or None."""
    row = session.scalars(
        select(ReturnedObjectRow)
        .where(ReturnedObjectRow.state == ReturnedState.WAITING)
        .order_by(ReturnedObjectRow.id)
        .limit(1)
    ).first()
    if row is None:
        return None
    return ReturnedObject(row.id, row.calling_ae_title, row.study_instance_uid, row.path)


def asked_study(session: Session, remote_model: str, pseudonym: str) -> AskedStudy | None:
    """Return the study that `remote_model` knows by `pseudonym`, None if it was sent none."""
    row = session.scalars(
        select(RemoteAnalysisRow)
        .where(
            RemoteAnalysisRow.remote_model == remote_model,
            RemoteAnalysisRow.pseudonym == pseudonym,
            RemoteAnalysisRow.series_instance_uid != "",
        )
        .order_by(RemoteAnalysisRow.generation.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    study, uids = row.study, {row.study.study_instance_uid}
    rows = session.execute(
        select(SeriesRow.series_instance_uid, InstanceRow.sop_instance_uid, InstanceRow.headers)
        .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
        .where(SeriesRow.study_id == study.id, SeriesRow.is_result.is_(False))
    )
    for series_uid, sop_uid, headers in rows:
        uids |= {series_uid, sop_uid, str(headers.get("FrameOfReferenceUID") or series_uid)}
    return AskedStudy(
        analysis_id=row.id,
        study_id=study.id,
        study_instance_uid=study.study_instance_uid,
        uids=frozenset(uids),
        paths=tuple(image.path for image in _images(session, row)),
        attributes=_attributes(study),
    )


def _attributes(study: StudyRow) -> dict[str, str]:
    patient = study.patient
    is_stand_in = patient.patient_id.startswith(STAND_IN_PREFIX)
    return {
        "PatientName": patient.name,
        "PatientID": "" if is_stand_in else patient.patient_id,
        "IssuerOfPatientID": patient.issuer,
        "PatientBirthDate": patient.birth_date,
        "PatientSex": patient.sex,
        "StudyInstanceUID": study.study_instance_uid,
        "StudyDate": study.study_date,
        "StudyTime": study.study_time,
        "AccessionNumber": study.accession_number,
        "StudyDescription": study.description,
        "StudyID": "",
        "ReferringPhysicianName": "",
    }


def mark_taken(
    session: Session,
    returned: ReturnedObject,
    asked: AskedStudy,
    model: RemoteModelSettings,
    *,
    role: str,
    now: datetime,
) -> None:
    """Note that the object belongs to its study now, and whether the answer is complete."""
    row = session.scalars(
        select(ReturnedObjectRow).where(ReturnedObjectRow.id == returned.object_id)
    ).one()
    row.state, row.study_id = ReturnedState.TAKEN, asked.study_id
    analysis = _row(session, asked.analysis_id)
    analysis.answers += 1
    if analysis.answers >= model.results and analysis.state is not RemoteState.ANSWERED:
        analysis.state, analysis.answered_at, analysis.said = RemoteState.ANSWERED, now, ""
    note(session, asked.study_id, "remote", f"{role.upper()} came from {model.name}", at=now)


def quarantine(session: Session, returned: ReturnedObject, reason: str) -> None:
    """Keep the object aside, with the reason; it belongs to no study."""
    row = session.scalars(
        select(ReturnedObjectRow).where(ReturnedObjectRow.id == returned.object_id)
    ).one()
    row.state, row.said = ReturnedState.QUARANTINED, reason


def quarantine_reasons(session: Session) -> dict[str, int]:
    """Return how many objects are in quarantine for each reason."""
    rows = session.execute(
        select(ReturnedObjectRow.said, func.count())
        .where(ReturnedObjectRow.state == ReturnedState.QUARANTINED)
        .group_by(ReturnedObjectRow.said)
        .order_by(ReturnedObjectRow.said)
    )
    return {row[0]: row[1] for row in rows}


def count_by_state(session: Session) -> dict[RemoteState, int]:
    """Return how many studies remote models were asked about, by what became of it."""
    rows = session.execute(
        select(RemoteAnalysisRow.state, func.count()).group_by(RemoteAnalysisRow.state)
    )
    return {row[0]: row[1] for row in rows}


def _row(session: Session, analysis_id: int) -> RemoteAnalysisRow:
    return session.scalars(
        select(RemoteAnalysisRow)
        .where(RemoteAnalysisRow.id == analysis_id)
        .with_for_update(of=RemoteAnalysisRow)
    ).one()
