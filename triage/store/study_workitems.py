"""The workitem by which a study is to be read: made, kept in step with the study, and ended.

A study that is to be read has one that is not ended, from its completion on, or from the moment at
which an early run flags it. It follows the study in the same transaction. The reverse holds for one
thing only: whoever completes the workitem has read the study.

Whatever goes wrong with a workitem, the study is completed, flagged and read all the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from triage.core.dicom_json import element
from triage.core.runs import StudyState
from triage.core.workitem_attributes import (
    REASON_FOR_CANCELLATION,
    StudyToRead,
    cancel_report,
    reading_workitem,
    refreshed,
)
from triage.core.workitems import StepState
from triage.store.chunks import chunks
from triage.store.claims import end_workitem_claim
from triage.store.raises import reason_of_priority
from triage.store.tables import STAND_IN_PREFIX, StudyRow
from triage.store.workitem_events import tell_all
from triage.store.workitem_tables import WorkitemEventRow, WorkitemRow
from triage.store.workitems import (
    add_workitem,
    cancel_unclaimed,
    put_in_state,
    write_attributes,
    write_attributes_of_each,
)

log = structlog.get_logger(__name__)

_MOST_AT_ONCE = 50
_READ_HERE = {
    REASON_FOR_CANCELLATION: element("LT", "The study was marked as read on Triage's worklist")
}


def new_uid() -> str:
    """Return a UID derived from a UUID (DICOM PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def schedule_reading(session: Session, study: StudyRow, now: datetime) -> bool:
    """See to it that a study which is to be read has a workitem that says how it is now.

    Where the one it had was ended and the study is still to be read, it gets a new one that
    replaces it: something about the study is new. The study must be locked. Returns False where
    that failed.
    """
    with _apart(session, study.id) as outcome:
        _schedule(session, study, now)
    return outcome.is_done


def _schedule(session: Session, study: StudyRow, now: datetime) -> None:
    if study.is_prior or study.read_at is not None:
        return
    newest = _newest(session, study.id)
    if newest is not None and not newest.state.is_final:
        _refresh(session, newest, study, now)
        return
    uid = new_uid()
    replaced_uid = newest.sop_instance_uid if newest is not None else ""
    attributes = reading_workitem(uid, _as_it_is(study), now, replaced_uid)
    add_workitem(session, uid, attributes, study_id=study.id, now=now)


def follow_study(session: Session, study: StudyRow, now: datetime) -> None:
    """Let the study's workitem say how it is now, if it has one that is not ended."""
    with _apart(session, study.id):
        newest = _newest(session, study.id)
        if newest is not None and not newest.state.is_final:
            _refresh(session, newest, study, now)


def follow_studies(session: Session, studies: Sequence[StudyRow], now: datetime) -> None:
    """Do the same for many studies in a few statements; if that fails, for one after the other."""
    for some in chunks(studies):
        try:
            with session.begin_nested():
                _follow_at_once(session, some, now)
        except Exception as error:  # one of them fails: the others follow all the same
            log.exception("workitems not written at once", error=type(error).__name__)
            for study in some:
                follow_study(session, study, now)


def _follow_at_once(session: Session, studies: Sequence[StudyRow], now: datetime) -> None:
    by_id = {study.id: study for study in studies}
    newest = (
        select(func.max(WorkitemRow.id))
        .where(WorkitemRow.study_id.in_(by_id))
        .group_by(WorkitemRow.study_id)
    )
    rows = session.scalars(
        select(WorkitemRow)
        .where(WorkitemRow.id.in_(newest))
        .order_by(WorkitemRow.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    changes = [
        (row, _as_followed(row, by_id[row.study_id], now))
        for row in rows
        if row.study_id is not None and not row.state.is_final
    ]
    write_attributes_of_each(session, changes, now)


def end_reading(session: Session, study: StudyRow, now: datetime) -> None:
    """End the workitem of a study that a person has marked as read on our own worklist.

    One that nobody has claimed is CANCELED with that reason: nobody performed it through the
    worklist, and COMPLETED would have to say where and by whom. The performer of one that is
    claimed is asked to cancel it; it may as well complete it.
    """
    with _apart(session, study.id):
        newest = _newest(session, study.id)
        if newest is None or newest.state.is_final:
            return
        if newest.state is StepState.SCHEDULED:
            cancel_unclaimed(session, newest, _READ_HERE, new_uid(), now)
        else:
            tell_all(session, newest, [cancel_report("TRIAGE", _READ_HERE)], now)


def schedule_what_has_none(session: Session, now: datetime) -> int:
    """Make workitems for some complete studies that never had one; return for how many.

    That is so after an update of Triage from a version that made none.
    """
    had_one = exists(select(WorkitemRow.id).where(WorkitemRow.study_id == StudyRow.id))
    studies = session.scalars(
        select(StudyRow)
        .where(
            StudyRow.state == StudyState.COMPLETE,
            StudyRow.read_at.is_(None),
            StudyRow.is_prior.is_(False),
            ~had_one,
        )
        .order_by(StudyRow.id)
        .limit(_MOST_AT_ONCE)
        .with_for_update(skip_locked=True, key_share=True, of=StudyRow)
    ).all()
    return sum(schedule_reading(session, study, now) for study in studies)


def end_forsaken(session: Session, before: datetime, now: datetime) -> int:
    """Cancel some claimed workitems of studies read before that moment; return how many.

    Their performers were asked to, and are taken for disabled (CC.2.1.3).
    """
    studies = session.scalars(
        select(StudyRow)
        .join(WorkitemRow, WorkitemRow.study_id == StudyRow.id)
        .where(WorkitemRow.state == StepState.IN_PROGRESS, StudyRow.read_at <= before)
        .limit(_MOST_AT_ONCE)
        .with_for_update(skip_locked=True, key_share=True, of=StudyRow)
    ).all()
    ended = 0
    for study in studies:
        newest = _newest(session, study.id)
        if newest is not None and newest.state is StepState.IN_PROGRESS:
            put_in_state(session, newest, StepState.CANCELED, now, _READ_HERE)
            end_workitem_claim(session, study.id, now)
            ended += 1
    return ended


def forget_workitems(session: Session, study_id: int) -> None:
    """Delete the workitems of a study whose patient data go, whoever has locked them."""
    of_study = select(WorkitemRow.sop_instance_uid).where(WorkitemRow.study_id == study_id)
    session.execute(delete(WorkitemEventRow).where(WorkitemEventRow.sop_instance_uid.in_(of_study)))
    session.execute(delete(WorkitemRow).where(WorkitemRow.study_id == study_id))


@dataclass(slots=True)
class _Outcome:
    is_done: bool = False


@contextmanager
def _apart(session: Session, study_id: int) -> Iterator[_Outcome]:
    """Undo what goes wrong with a workitem, and go on with what is being done with the study."""
    outcome = _Outcome()
    try:
        with session.begin_nested():
            yield outcome
        outcome.is_done = True
    except Exception as error:  # the study matters more, whatever it is
        log.exception("workitem not written", study_id=study_id, error=type(error).__name__)


def _newest(session: Session, study_id: int) -> WorkitemRow | None:
    return session.scalar(
        select(WorkitemRow)
        .where(WorkitemRow.study_id == study_id)
        .order_by(WorkitemRow.id.desc())
        .limit(1)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


def _refresh(session: Session, row: WorkitemRow, study: StudyRow, now: datetime) -> None:
    write_attributes(session, row, _as_followed(row, study, now), now)


def _as_followed(row: WorkitemRow, study: StudyRow, now: datetime) -> dict[str, Any]:
    return refreshed(row.attributes, _as_it_is(study), now, row.asked_priority)


def _as_it_is(study: StudyRow) -> StudyToRead:
    patient = study.patient
    is_stand_in = patient.patient_id.startswith(STAND_IN_PREFIX)
    return StudyToRead(
        study_instance_uid=study.study_instance_uid,
        accession_number=study.accession_number,
        description=study.description,
        modalities=study.modalities,
        patient_id="" if is_stand_in else patient.patient_id,
        issuer_of_patient_id=patient.issuer,
        patient_name=patient.name,
        patient_birth_date=patient.birth_date,
        patient_sex=patient.sex,
        priority=study.priority,
        reason=reason_of_priority(study),
        is_complete=study.state is StudyState.COMPLETE,
        arrived_at=study.first_instance_at,
    )
