"""What archives are to commit to, and what they have committed to."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, exists, select
from sqlalchemy.orm import Session

from triage.core.commitment import CommitmentState
from triage.core.runs import StudyState
from triage.store.outbox import DueDelivery
from triage.store.tables import CommitmentRow, InstanceRow, SeriesRow, StudyRow


def request_commitment(session: Session, study_id: int, archive: str, *, now: datetime) -> int:
    """Have `archive` asked for the received instances of a study; return how many are not known.

    What it has committed to already is not asked for again. The receiver makes the request and
    takes the report; `uncommitted_instances` says how it stands.
    """
    # Two receivers may be told at the same time.
    lock = select(StudyRow.id).where(StudyRow.id == study_id)
    session.execute(lock.with_for_update(key_share=True))
    known = {
        row.sop_instance_uid: row
        for row in session.scalars(
            select(CommitmentRow).where(
                CommitmentRow.study_id == study_id, CommitmentRow.archive == archive
            )
        )
    }
    count = 0
    for sop_class_uid, sop_instance_uid in session.execute(_sources(study_id)):
        row = known.get(sop_instance_uid)
        if row is not None and row.state is CommitmentState.COMMITTED:
            continue
        count += 1
        if row is None:
            session.add(
                CommitmentRow(
                    study_id=study_id,
                    archive=archive,
                    sop_class_uid=sop_class_uid,
                    sop_instance_uid=sop_instance_uid,
                    next_attempt_at=now,
                )
            )
        elif row.state is CommitmentState.FAILED:
            _ask_anew(row, now)
    return count


def studies_to_ask_for(
    session: Session, archive: str, *, since: datetime | None, at_most: int
) -> list[int]:
    """Return complete studies with received instances that `archive` was never asked for.

    Args:
        session: reads the index.
        archive: name of a destination or remote.
        since: only studies that became complete from then on; None is all.
        at_most: as many, the oldest first.
    """
    was_asked = exists(
        select(CommitmentRow.id).where(
            CommitmentRow.sop_instance_uid == InstanceRow.sop_instance_uid,
            CommitmentRow.archive == archive,
        )
    )
    has_unasked = exists(
        select(InstanceRow.id)
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(
            SeriesRow.study_id == StudyRow.id,
            SeriesRow.is_result.is_(False),
            InstanceRow.conflicts_with.is_(None),
            ~was_asked,
        )
    )
    studies = select(StudyRow.id).where(StudyRow.state == StudyState.COMPLETE, has_unasked)
    if since is not None:
        studies = studies.where(StudyRow.completed_at >= since)
    return list(session.scalars(studies.order_by(StudyRow.id).limit(at_most)))


def request_commitment_of_delivery(session: Session, due: DueDelivery, *, now: datetime) -> None:
    """Have the destination asked for a result object that it has just taken."""
    row = session.scalar(
        select(CommitmentRow).where(
            CommitmentRow.sop_instance_uid == due.sop_instance_uid,
            CommitmentRow.archive == due.destination,
        )
    )
    if row is not None:
        _ask_anew(row, now)
        return
    session.add(
        CommitmentRow(
            study_id=due.study_id,
            archive=due.destination,
            sop_class_uid=due.sop_class_uid,
            sop_instance_uid=due.sop_instance_uid,
            is_result=True,
            next_attempt_at=now,
        )
    )


def _ask_anew(row: CommitmentRow, now: datetime) -> None:
    row.state = CommitmentState.WAITING
    row.attempts = 0
    row.next_attempt_at = now
    row.committed_at = None


def is_committed(session: Session, study_id: int, archive: str | None = None) -> bool:
    """Return whether an archive has committed to every received instance of the study.

    Args:
        session: reads the index.
        study_id: the study; one without an instance is not committed.
        archive: name of a destination or remote; None is any of them, for each instance.
    """
    has_sources = session.scalars(_sources(study_id).limit(1)).first() is not None
    return has_sources and not uncommitted_instances(session, study_id, archive, at_most=1)


def uncommitted_instances(
    session: Session, study_id: int, archive: str | None = None, *, at_most: int | None = None
) -> list[str]:
    """Return the SOP Instance UIDs of received instances that no archive has committed to.

    Results of Triage and conflicting duplicates do not count: no archive is asked for them here.
    """
    is_it: ColumnElement[bool] = and_(
        CommitmentRow.sop_instance_uid == InstanceRow.sop_instance_uid,
        CommitmentRow.state == CommitmentState.COMMITTED,
    )
    if archive is not None:
        is_it = and_(is_it, CommitmentRow.archive == archive)
    missing = _sources(study_id).with_only_columns(InstanceRow.sop_instance_uid)
    missing = missing.where(~exists(select(CommitmentRow.id).where(is_it)))
    return list(session.scalars(missing.order_by(InstanceRow.id).limit(at_most)))


def _sources(study_id: int) -> Select[str, str]:
    return (
        select(InstanceRow.sop_class_uid, InstanceRow.sop_instance_uid)
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(
            SeriesRow.study_id == study_id,
            SeriesRow.is_result.is_(False),
            InstanceRow.conflicts_with.is_(None),
        )
    )
