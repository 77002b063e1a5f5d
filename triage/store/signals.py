"""What modalities and archives announce of a study's images, kept until the study has come."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from triage.core.completeness import Source
from triage.store.chunks import chunks
from triage.store.history import note
from triage.store.tables import ArrivalSignalRow, ExpectedInstanceRow, StudyRow


class SignalState(StrEnum):
    """Performed Procedure Step Status (0040,0252), or that a notification is what it is about."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"
    AVAILABLE = "AVAILABLE"


class SignalError(Exception):
    """The signal cannot be kept as it came."""


class DuplicateSignalError(SignalError):
    """A signal of this SOP Instance UID is there already."""


class UnknownSignalError(SignalError):
    """No signal has this SOP Instance UID."""


class FinalStepError(SignalError):
    """The step is completed or discontinued and no longer changes (DICOM PS3.4 F.7.2.2.3)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An instance that a signal names, and whether it is said to be there for the asking."""

    series_instance_uid: str
    sop_instance_uid: str
    is_available: bool = True


def create_step(
    session: Session,
    sop_instance_uid: str,
    study_instance_uids: Collection[str],
    references: Iterable[Reference],
    *,
    calling_ae_title: str,
    now: datetime,
) -> None:
    """Keep a performed procedure step that is in progress; it may be for more than one study.

    Raises:
        DuplicateSignalError: a step of this UID is there already.
    """
    _refuse_duplicate(session, Source.MPPS, sop_instance_uid)
    kept = list(references)
    for study_instance_uid in study_instance_uids:
        row = ArrivalSignalRow(
            source=Source.MPPS,
            sop_instance_uid=sop_instance_uid,
            study_instance_uid=study_instance_uid,
            state=SignalState.IN_PROGRESS,
            calling_ae_title=calling_ae_title,
        )
        _keep(session, row, kept, now)
        _note(session, row, "performed procedure step in progress", now)


def update_step(
    session: Session,
    sop_instance_uid: str,
    *,
    state: SignalState,
    references: Iterable[Reference] | None,
    now: datetime,
) -> None:
    """Change a step that is in progress; `references` None leaves those that it has.

    Raises:
        UnknownSignalError: no step has this UID.
        FinalStepError: it is completed or discontinued.
    """
    rows = session.scalars(
        select(ArrivalSignalRow)
        .where(
            ArrivalSignalRow.source == Source.MPPS,
            ArrivalSignalRow.sop_instance_uid == sop_instance_uid,
        )
        .order_by(ArrivalSignalRow.id)
        .with_for_update()
    ).all()
    if not rows:
        raise UnknownSignalError(sop_instance_uid)
    if any(row.state != SignalState.IN_PROGRESS for row in rows):
        raise FinalStepError(sop_instance_uid)
    kept = None if references is None else list(references)
    for row in rows:
        row.state = state
        row.updated_at = now
        if kept is not None:
            session.execute(
                delete(ExpectedInstanceRow).where(ExpectedInstanceRow.signal_id == row.id)
            )
            _expect(session, row, kept)
        if state is not SignalState.IN_PROGRESS:
            _note(session, row, f"performed procedure step {state.lower()}", now)


def record_availability(
    session: Session,
    sop_instance_uid: str,
    study_instance_uid: str,
    *,
    references: Iterable[Reference],
    calling_ae_title: str,
    now: datetime,
) -> None:
    """Keep what an Instance Availability Notification says; of one instance, the newest counts.

    Raises:
        DuplicateSignalError: a notification of this UID is there already.
    """
    _refuse_duplicate(session, Source.AVAILABILITY, sop_instance_uid)
    kept = list(references)
    _forget_earlier(session, study_instance_uid, {r.sop_instance_uid for r in kept})
    row = ArrivalSignalRow(
        source=Source.AVAILABILITY,
        sop_instance_uid=sop_instance_uid,
        study_instance_uid=study_instance_uid,
        state=SignalState.AVAILABLE,
        calling_ae_title=calling_ae_title,
    )
    _keep(session, row, kept, now)
    count = sum(r.is_available for r in kept)
    _note(session, row, f"{count} of {len(kept)} instances are available", now)


def forget_signals_before(session: Session, moment: datetime) -> None:
    """Drop the signals that nothing was added to since `moment`."""
    old = select(ArrivalSignalRow.id).where(ArrivalSignalRow.updated_at < moment)
    session.execute(delete(ExpectedInstanceRow).where(ExpectedInstanceRow.signal_id.in_(old)))
    session.execute(delete(ArrivalSignalRow).where(ArrivalSignalRow.updated_at < moment))


def _refuse_duplicate(session: Session, source: Source, sop_instance_uid: str) -> None:
    known = select(ArrivalSignalRow.id).where(
        ArrivalSignalRow.source == source, ArrivalSignalRow.sop_instance_uid == sop_instance_uid
    )
    if session.scalars(known.limit(1)).first() is not None:
        raise DuplicateSignalError(sop_instance_uid)


def _keep(
    session: Session, row: ArrivalSignalRow, references: Iterable[Reference], now: datetime
) -> None:
    row.calling_ae_title = row.calling_ae_title[:16]
    row.created_at = row.updated_at = now
    session.add(row)
    session.flush()
    _expect(session, row, references)


def _expect(session: Session, row: ArrivalSignalRow, references: Iterable[Reference]) -> None:
    by_instance = {r.sop_instance_uid: r for r in references}  # some name an instance twice
    values = [
        {
            "signal_id": row.id,
            "series_instance_uid": r.series_instance_uid,
            "sop_instance_uid": r.sop_instance_uid,
            "is_available": r.is_available,
        }
        for r in by_instance.values()
    ]
    if values:
        session.execute(insert(ExpectedInstanceRow), values)


def _forget_earlier(session: Session, study_instance_uid: str, named: set[str]) -> None:
    rows = session.execute(
        select(ExpectedInstanceRow.id, ExpectedInstanceRow.sop_instance_uid)
        .join(ArrivalSignalRow, ArrivalSignalRow.id == ExpectedInstanceRow.signal_id)
        .where(
            ArrivalSignalRow.source == Source.AVAILABILITY,
            ArrivalSignalRow.study_instance_uid == study_instance_uid,
        )
    )
    ids = [row_id for row_id, instance in rows if instance in named]
    for some in chunks(ids):
        session.execute(delete(ExpectedInstanceRow).where(ExpectedInstanceRow.id.in_(some)))


def _note(session: Session, row: ArrivalSignalRow, text: str, now: datetime) -> None:
    """Write it into the study's history, where any image of the study has come already."""
    study_id = session.scalar(
        select(StudyRow.id).where(StudyRow.study_instance_uid == row.study_instance_uid)
    )
    if study_id is not None:
        note(session, study_id, "announced", f"{row.source}: {text}", at=now)
