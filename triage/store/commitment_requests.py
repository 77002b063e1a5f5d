"""Storage commitment requests of other systems, kept until each report has been taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from triage.core.commitment import Reference, ReportState
from triage.store.chunks import chunks
from triage.store.tables import CommitmentRequestRow, InstanceRow

# Built once: it is asked twice a second, or more.
_ANY_DUE = (
    select(CommitmentRequestRow.id)
    .where(
        CommitmentRequestRow.state == ReportState.WAITING,
        CommitmentRequestRow.next_attempt_at <= bindparam("now"),
    )
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class DueReport:
    """A request whose report this receiver is to send."""

    request_id: int
    transaction_uid: str
    calling_ae_title: str
    references: tuple[Reference, ...]
    attempt: int


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """What the index says of a SOP instance: its class, and its file with the size in bytes."""

    sop_class_uid: str
    path: str
    size_bytes: int


def add_request(
    session: Session,
    *,
    transaction_uid: str,
    calling_ae_title: str,
    references: Sequence[Reference],
    report_at: datetime,
    now: datetime,
) -> int:
    """Keep a request and return its id; the same request again is reported again."""
    row = session.scalar(
        select(CommitmentRequestRow).where(
            CommitmentRequestRow.transaction_uid == transaction_uid,
            CommitmentRequestRow.calling_ae_title == calling_ae_title,
        )
    )
    if row is None:
        row = CommitmentRequestRow(
            transaction_uid=transaction_uid, calling_ae_title=calling_ae_title, requested_at=now
        )
        session.add(row)
    row.referenced = [[one.sop_class_uid, one.sop_instance_uid] for one in references]
    row.state = ReportState.WAITING
    row.attempts = 0
    row.next_attempt_at = report_at
    session.flush()
    return row.id


def has_due_report(session: Session, now: datetime) -> bool:
    """Return whether `claim_report` would find one; a cheap read without any lock."""
    return session.scalar(_ANY_DUE, {"now": now}) is not None


def claim_report(
    session: Session, *, lease: timedelta, now: datetime, request_id: int | None = None
) -> DueReport | None:
    """Claim the report that is due and oldest, or that of one request, due or not; or None."""
    statement = select(CommitmentRequestRow).where(
        CommitmentRequestRow.state == ReportState.WAITING
    )
    if request_id is None:
        statement = statement.where(CommitmentRequestRow.next_attempt_at <= now)
    else:
        statement = statement.where(
            CommitmentRequestRow.id == request_id, CommitmentRequestRow.attempts == 0
        )
    row = session.scalars(
        statement.order_by(CommitmentRequestRow.next_attempt_at, CommitmentRequestRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).first()
    if row is None:
        return None
    row.attempts += 1
    row.next_attempt_at = now + lease
    return DueReport(
        request_id=row.id,
        transaction_uid=row.transaction_uid,
        calling_ae_title=row.calling_ae_title,
        references=tuple(Reference(*pair) for pair in row.referenced),
        attempt=row.attempts,
    )


def mark_reported(session: Session, due: DueReport, *, now: datetime) -> None:
    """Note that the requester took the report."""
    row = session.get_one(CommitmentRequestRow, due.request_id)
    if row.attempts == due.attempt:  # not asked for again meanwhile
        row.state = ReportState.REPORTED
        row.reported_at = now
        row.last_error = ""


def mark_not_reported(
    session: Session,
    due: DueReport,
    error: str,
    *,
    retry_after: timedelta | None,
    now: datetime,
) -> None:
    """Note why the attempt failed; with `retry_after` None it was the last one."""
    row = session.get_one(CommitmentRequestRow, due.request_id)
    if row.attempts != due.attempt or row.state is not ReportState.WAITING:
        return
    row.last_error = error
    if retry_after is None:
        row.state = ReportState.DEAD
    else:
        row.next_attempt_at = now + retry_after


def indexed_files(session: Session, sop_instance_uids: Sequence[str]) -> dict[str, IndexedFile]:
    """Return what the index holds of the given instances, without conflicting duplicates."""
    found: dict[str, IndexedFile] = {}
    for some in chunks(sop_instance_uids):
        rows = session.execute(
            select(
                InstanceRow.sop_instance_uid,
                InstanceRow.sop_class_uid,
                InstanceRow.path,
                InstanceRow.size_bytes,
            ).where(
                InstanceRow.sop_instance_uid.in_(some),
                InstanceRow.conflicts_with.is_(None),
                InstanceRow.purged_at.is_(None),
            )
        )
        found.update({row[0]: IndexedFile(row[1], row[2], row[3]) for row in rows})
    return found
