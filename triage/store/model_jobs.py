"""Jobs about models: asked for, claimed one at a time while no study waits, and over some day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.core.jobs import ORDERS, JobOrder, JobState
from triage.core.runs import RunState
from triage.store.leases import take_lease
from triage.store.model_tables import ModelJobRow
from triage.store.runs import count_claimable
from triage.store.tables import AnalysisRunRow

MAXIMUM_ATTEMPTS = 2
"""A job whose process or worker died is done once more: what it dies of may be its own fault."""

_LEASE_NAME = "model-jobs"
_LONGEST_NAME = 128


class UnknownJobError(TriageError):
    """There is no such job, or not any more."""


class JobNotOverError(TriageError):
    """The job has to be over, or cancelled, before it can be deleted."""


class JobLostError(Exception):
    """Another worker has the job, or nobody has."""


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that this worker holds."""

    job_id: int
    claim: int
    order: JobOrder
    folder: str
    who: str


def add_job(
    session: Session,
    order: JobOrder,
    *,
    model_id: int | None,
    who: str,
    folder: str,
    is_kept: bool = False,
    now: datetime,
) -> ModelJobRow:
    """Put a job into the queue."""
    row = ModelJobRow(
        kind=order.kind,
        model_id=model_id,
        order=order.model_dump(mode="json"),
        who=who.strip()[:_LONGEST_NAME],
        created_at=now,
        folder=folder,
        is_kept=is_kept,
    )
    session.add(row)
    session.flush()
    return row


def find_job(session: Session, job_id: int) -> ModelJobRow:
    """Return a job.

    Raises:
        UnknownJobError: there is none of that number.
    """
    row = session.get(ModelJobRow, job_id)
    if row is None:
        raise UnknownJobError(f"there is no job {job_id}, or it was deleted")
    return row


def newest_jobs(
    session: Session, *, model_id: int | None = None, most: int
) -> Sequence[ModelJobRow]:
    """Return jobs, the newest first: all, or those of one model version."""
    query = select(ModelJobRow).order_by(ModelJobRow.id.desc()).limit(most)
    if model_id is not None:
        query = query.where(ModelJobRow.model_id == model_id)
    return session.scalars(query).all()


def count_open_jobs(session: Session, *, before: int | None = None) -> int:
    """Return how many jobs wait or are running: all, or those that were asked for before one."""
    is_open = ModelJobRow.state.in_((JobState.WAITING, JobState.RUNNING))
    query = select(func.count()).select_from(ModelJobRow).where(is_open)
    if before is not None:
        query = query.where(ModelJobRow.id < before)
    return session.scalars(query).one()


def has_waiting_job(session: Session) -> bool:
    """Return whether a job waits. It reads only, so that a worker may ask often."""
    waiting = select(ModelJobRow.id).where(ModelJobRow.state == JobState.WAITING)
    return session.scalars(waiting.limit(1)).first() is not None


def studies_are_analysed(session: Session, now: datetime) -> bool:
    """Return whether a run is going on or could begin now; a job does not begin beside one."""
    running = select(AnalysisRunRow.id).where(AnalysisRunRow.state == RunState.RUNNING)
    is_running = session.scalars(running.limit(1)).first() is not None
    return is_running or count_claimable(session, now) > 0


def claim_job(
    session: Session, *, worker: str, lease: timedelta, now: datetime
) -> ClaimedJob | None:
    """Claim the job that has waited longest; None where there is none, or it is not time for one.

    One job is done at a time, by whichever worker: the lease that all of them ask for is also what
    keeps two from claiming at once.
    """
    if studies_are_analysed(session, now):
        return None
    if not take_lease(session, _LEASE_NAME, worker, lease=lease, now=now):
        return None
    running = select(ModelJobRow.id).where(ModelJobRow.state == JobState.RUNNING)
    if session.scalars(running.limit(1)).first() is not None:
        return None
    row = session.scalars(
        select(ModelJobRow)
        .where(ModelJobRow.state == JobState.WAITING)
        .order_by(ModelJobRow.id)
        .limit(1)
        .with_for_update(of=ModelJobRow)
    ).first()
    if row is None:
        return None
    row.state = JobState.RUNNING
    row.attempts += 1
    row.claim += 1
    row.claimed_by = worker[:_LONGEST_NAME]
    row.lease_until = now + lease
    row.started_at = now
    row.progress = ""
    session.flush()
    return ClaimedJob(row.id, row.claim, ORDERS.validate_python(row.order), row.folder, row.who)


def is_wanted(session: Session, job: ClaimedJob) -> bool:
    """Return whether to go on with the job: nobody has cancelled it, and it is still held."""
    row = session.get(ModelJobRow, job.job_id)
    return row is not None and row.claim == job.claim and not row.cancelled_by


def renew_job(
    session: Session, job: ClaimedJob, progress: str, *, lease: timedelta, now: datetime
) -> bool:
    """Keep the job for another `lease` and say how far it is; return whether to go on.

    Raises:
        JobLostError: it is not this worker's any more.
    """
    row = _held(session, job)
    row.lease_until = now + lease
    row.progress = progress
    take_lease(session, _LEASE_NAME, row.claimed_by, lease=lease, now=now)
    return not row.cancelled_by


def finish_job(
    session: Session,
    job: ClaimedJob,
    outcome: dict[str, Any],
    *,
    keep_for: timedelta,
    now: datetime,
) -> ModelJobRow:
    """Write down what came of the job.

    Raises:
        JobLostError: it is not this worker's any more; nothing may be written.
    """
    row = _held(session, job)
    row.outcome = outcome
    _end(row, JobState.DONE, "", keep_for, now)
    return row


def fail_job(
    session: Session,
    job: ClaimedJob,
    reason: str,
    *,
    may_be_repeated: bool,
    keep_for: timedelta,
    now: datetime,
) -> JobState:
    """Put the job back for its second attempt, or state why nothing came of it.

    A stated refusal would be the same again; only a death may be repeated.

    Raises:
        JobLostError: it is not this worker's any more; nothing may be written.
    """
    row = _held(session, job)
    if may_be_repeated:
        return _abandon(row, reason, keep_for, now)
    _end(row, JobState.FAILED, reason, keep_for, now)
    return row.state


def put_job_back(session: Session, job: ClaimedJob) -> None:
    """Let the job wait again, as if it had not been claimed: its worker is asked to stop.

    Raises:
        JobLostError: it is not this worker's any more.
    """
    row = _held(session, job)
    row.attempts -= 1
    row.state, row.lease_until, row.progress = JobState.WAITING, None, ""


def cancel_job(
    session: Session, job_id: int, *, who: str, keep_for: timedelta, now: datetime
) -> ModelJobRow:
    """Let the job be given up; its worker ends one that is running within a second.

    Of a job that is over nothing changes.

    Raises:
        UnknownJobError: there is none of that number.
    """
    row = find_job(session, job_id)
    if row.state.is_over:
        return row
    row.cancelled_by = who.strip()[:_LONGEST_NAME] or "somebody"
    if row.state is JobState.WAITING:
        _end(row, JobState.CANCELLED, f"cancelled by {row.cancelled_by}", keep_for, now)
    session.flush()
    return row


def mark_cancelled(
    session: Session, job: ClaimedJob, *, keep_for: timedelta, now: datetime
) -> None:
    """Say that the job's process was ended because a person asked for that."""
    row = _held(session, job)
    _end(row, JobState.CANCELLED, f"cancelled by {row.cancelled_by}", keep_for, now)


def recover_jobs(session: Session, *, worker: str, keep_for: timedelta, now: datetime) -> list[int]:
    """Put back jobs whose lease ran out, and with `worker` those that one of that name held."""
    is_lost = ModelJobRow.lease_until < now
    if worker:
        is_lost = or_(is_lost, ModelJobRow.claimed_by == worker)
    rows = session.scalars(
        select(ModelJobRow)
        .where(ModelJobRow.state == JobState.RUNNING, is_lost)
        .with_for_update(skip_locked=True, of=ModelJobRow)
    ).all()
    for row in rows:
        _abandon(row, "the worker stopped while it was at this job", keep_for, now)
    return [row.id for row in rows]


def delete_job(session: Session, job_id: int) -> str:
    """Delete a job that is over, and return the name of its folder.

    Raises:
        UnknownJobError: there is none of that number.
        JobNotOverError: it waits or is running.
    """
    row = find_job(session, job_id)
    if not row.state.is_over:
        raise JobNotOverError(f"job {job_id} is {row.state}; cancel it first")
    session.delete(row)
    return row.folder


def delete_due_jobs(session: Session, now: datetime) -> list[str]:
    """Delete the rows of jobs whose time is over, and return the names of their folders."""
    is_due = ModelJobRow.delete_after <= now
    folders = list(session.scalars(select(ModelJobRow.folder).where(is_due)))
    if folders:
        session.execute(delete(ModelJobRow).where(ModelJobRow.folder.in_(folders)))
    return folders


def known_folders(session: Session) -> frozenset[str]:
    """Return the names of the folders of all jobs."""
    return frozenset(session.scalars(select(ModelJobRow.folder)))


def _abandon(row: ModelJobRow, reason: str, keep_for: timedelta, now: datetime) -> JobState:
    if row.cancelled_by:
        _end(row, JobState.CANCELLED, f"cancelled by {row.cancelled_by}", keep_for, now)
    elif row.attempts >= MAXIMUM_ATTEMPTS:
        _end(row, JobState.FAILED, f"{reason} ({row.attempts} attempts)", keep_for, now)
    else:
        row.state, row.lease_until, row.reason = JobState.WAITING, None, reason
    return row.state


def _end(
    row: ModelJobRow, state: JobState, reason: str, keep_for: timedelta, now: datetime
) -> None:
    row.state, row.reason, row.lease_until = state, reason, None
    row.finished_at = now
    is_kept = row.is_kept and state is JobState.DONE
    row.delete_after = None if is_kept else now + keep_for


def _held(session: Session, job: ClaimedJob) -> ModelJobRow:
    row = session.scalars(
        select(ModelJobRow).where(ModelJobRow.id == job.job_id).with_for_update(of=ModelJobRow)
    ).first()
    if row is None or row.state is not JobState.RUNNING or row.claim != job.claim:
        raise JobLostError(f"job {job.job_id} is not this worker's any more")
    return row
