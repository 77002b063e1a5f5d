"""Archives are asked to commit, and what they report is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import BindParameter, ColumnElement, and_, bindparam, select
from sqlalchemy.orm import Session

from triage.core.commitment import CommitmentState, Reference, failure_in_words
from triage.core.runs import DeliveryState
from triage.store.chunks import chunks
from triage.store.history import note
from triage.store.tables import (
    CommitmentRow,
    CommitmentTransactionRow,
    DeliveryRow,
    ResultObjectRow,
)

_MOST_IN_ONE_REQUEST = 500
_OPEN = (CommitmentState.WAITING, CommitmentState.ASKED)
RetryAfter = Callable[[int], timedelta]
"""The pause after the failed attempt of this number, counted from 1."""


@dataclass(frozen=True, slots=True)
class CommitmentQuestion:
    """A request that this receiver is to make of an archive."""

    transaction_uid: str
    archive: str
    references: tuple[Reference, ...]


def _is_due(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    return and_(CommitmentRow.state.in_(_OPEN), CommitmentRow.next_attempt_at <= now)


# Built once: it is asked twice a second, or more.
_ANY_DUE = select(CommitmentRow.id).where(_is_due(bindparam("now"))).limit(1)


def has_due_question(session: Session, now: datetime) -> bool:
    """Return whether `claim_question` would find one; a cheap read without any lock."""
    return session.scalar(_ANY_DUE, {"now": now}) is not None


def claim_question(
    session: Session,
    *,
    new_transaction_uid: Callable[[], str],
    maximum_attempts: int,
    lease: timedelta,
    now: datetime,
) -> CommitmentQuestion | None:
    """Claim what is due at one archive as one request, or None.

    The transaction is durable before it is used: the report may come before the request's answer.
    What was asked for too often without any report is given up.
    """
    first = session.scalars(
        select(CommitmentRow)
        .where(_is_due(now))
        .order_by(CommitmentRow.next_attempt_at, CommitmentRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).first()
    if first is None:
        return None
    asked = []
    for row in _due_at(session, first.archive, now):
        if row.attempts >= maximum_attempts:
            _give_up(session, row, f"no report after {row.attempts} requests", now)
        else:
            asked.append(row)
    if not asked:
        return None
    uid = new_transaction_uid()
    session.add(CommitmentTransactionRow(transaction_uid=uid, archive=first.archive, asked_at=now))
    for row in asked:
        row.state = CommitmentState.ASKED
        row.attempts += 1
        row.transaction_uid = uid
        row.next_attempt_at = now + lease
    references = tuple(Reference(row.sop_class_uid, row.sop_instance_uid) for row in asked)
    return CommitmentQuestion(uid, first.archive, references)


def _due_at(session: Session, archive: str, now: datetime) -> Sequence[CommitmentRow]:
    return session.scalars(
        select(CommitmentRow)
        .where(_is_due(now), CommitmentRow.archive == archive)
        .order_by(CommitmentRow.next_attempt_at, CommitmentRow.id)
        .limit(_MOST_IN_ONE_REQUEST)
        .with_for_update(skip_locked=True)
    ).all()


def _rows_asked_in(session: Session, transaction_uid: str) -> Sequence[CommitmentRow]:
    return session.scalars(
        select(CommitmentRow)
        .where(
            CommitmentRow.transaction_uid == transaction_uid,
            CommitmentRow.state == CommitmentState.ASKED,
        )
        .order_by(CommitmentRow.id)
        .with_for_update()
    ).all()


def mark_asked(session: Session, question: CommitmentQuestion, *, report_by: datetime) -> None:
    """Note that the archive took the request; it is asked again after `report_by`."""
    for row in _rows_asked_in(session, question.transaction_uid):
        row.next_attempt_at = report_by
        row.last_error = ""


def mark_not_asked(
    session: Session,
    question: CommitmentQuestion,
    error: str,
    *,
    retry_after: RetryAfter | None,
    maximum_attempts: int,
    now: datetime,
) -> None:
    """Note why the archive did not take the request; with `retry_after` None it never will."""
    for row in _rows_asked_in(session, question.transaction_uid):
        row.last_error = error
        if retry_after is None or row.attempts >= maximum_attempts:
            _give_up(session, row, error, now)
        else:
            row.state = CommitmentState.WAITING
            row.next_attempt_at = now + retry_after(row.attempts)


def record_report(
    session: Session,
    transaction_uid: str,
    *,
    committed: Iterable[str],
    failed: Mapping[str, int],
    retry_after: RetryAfter,
    maximum_attempts: int,
    now: datetime,
) -> bool:
    """Record an archive's report; return whether the transaction is one of ours.

    Args:
        session: writes the outcome.
        transaction_uid: of the request that is reported on.
        committed: SOP Instance UIDs that the archive is responsible for from now on.
        failed: Failure Reason (0008,1197) by SOP Instance UID.
        retry_after: the pause before received instances are asked for again; what the archive
            gets from elsewhere may only be on its way.
        maximum_attempts: after as many, a failure is final.
        now: the present moment.
    """
    transaction = session.get(CommitmentTransactionRow, transaction_uid)
    if transaction is None:
        return False
    done = _commit(session, transaction, list(committed), now)
    for row in _rows_of(session, transaction, list(failed), _OPEN):
        reason = failure_in_words(failed[row.sop_instance_uid])
        row.failures += 1
        if row.is_result:
            _deliver_again(session, row, reason, now)
        elif row.attempts >= maximum_attempts:
            _give_up(session, row, reason, now)
        else:
            row.state = CommitmentState.WAITING
            row.last_error = reason
            row.next_attempt_at = now + retry_after(row.attempts)
    for study_id, count in done.items():
        what = "1 instance" if count == 1 else f"{count} instances"
        note(session, study_id, "committed", f"{transaction.archive} committed to {what}", at=now)
    return True


def _commit(
    session: Session, transaction: CommitmentTransactionRow, uids: Sequence[str], now: datetime
) -> dict[int, int]:
    counts: dict[int, int] = {}
    # Also what was given up: a late yes is a yes.
    for row in _rows_of(session, transaction, uids, (*_OPEN, CommitmentState.FAILED)):
        row.state = CommitmentState.COMMITTED
        row.committed_at = now
        row.last_error = ""
        counts[row.study_id] = counts.get(row.study_id, 0) + 1
        delivery = _delivery_of(session, row)
        if delivery is not None:
            delivery.committed_at = now
    return counts


def _rows_of(
    session: Session,
    transaction: CommitmentTransactionRow,
    uids: Sequence[str],
    states: Sequence[CommitmentState],
) -> Sequence[CommitmentRow]:
    """Return the rows in one of `states` that a report is about."""
    rows: list[CommitmentRow] = []
    for some in chunks(uids):
        rows += session.scalars(
            select(CommitmentRow)
            .where(
                CommitmentRow.archive == transaction.archive,
                CommitmentRow.sop_instance_uid.in_(some),
                CommitmentRow.state.in_(states),
            )
            .order_by(CommitmentRow.id)
            .with_for_update()
        )
    return rows


def _delivery_of(session: Session, row: CommitmentRow) -> DeliveryRow | None:
    if not row.is_result:
        return None
    return session.scalar(
        select(DeliveryRow)
        .join(ResultObjectRow, ResultObjectRow.id == DeliveryRow.result_object_id)
        .where(
            ResultObjectRow.sop_instance_uid == row.sop_instance_uid,
            DeliveryRow.destination == row.archive,
            DeliveryRow.state == DeliveryState.DELIVERED,
        )
    )


def _deliver_again(session: Session, row: CommitmentRow, reason: str, now: datetime) -> None:
    """Send a result once more; if it is then not committed either, a person has to look."""
    delivery = _delivery_of(session, row)
    if row.failures > 1 or delivery is None:
        _give_up(session, row, reason, now)
        return
    row.state = CommitmentState.FAILED
    row.last_error = reason
    delivery.state = DeliveryState.WAITING
    delivery.attempts = 0
    delivery.next_attempt_at = now
    delivery.last_error = f"not committed: {reason}"
    text = f"{row.archive} did not commit to a result ({reason}); it is delivered again"
    note(session, row.study_id, "not-committed", text, at=now)


def _give_up(session: Session, row: CommitmentRow, reason: str, now: datetime) -> None:
    row.state = CommitmentState.FAILED
    row.last_error = reason
    row.failures = 0  # what a person sends again has two tries again
    what = "a result" if row.is_result else f"instance {row.sop_instance_uid}"
    text = f"{row.archive} did not commit to {what}: {reason}"
    note(session, row.study_id, "not-committed", text, at=now)
    delivery = _delivery_of(session, row)
    if delivery is not None:
        delivery.state = DeliveryState.DEAD
        delivery.last_error = f"taken, but storage was not committed: {reason}"
