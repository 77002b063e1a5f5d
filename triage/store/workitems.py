"""Unified procedure steps: created, claimed, changed and searched (DICOM PS3.4 annex CC).

Each function is one request of another system. It locks the workitem, asks the state machine in
`triage.core.workitems`, and puts in the outbox what subscribers are to be told, all in the
caller's transaction: what was answered with success is in the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, case, delete, exists, or_, select
from sqlalchemy.orm import Session

from triage.core.dicom_json import Attributes, element, text_of, values_of
from triage.core.workitem_attributes import (
    INPUT_INFORMATION,
    PRIORITY,
    SOP_INSTANCE_UID,
    STATE,
    STUDY_INSTANCE_UID,
    cancel_report,
    created,
    in_state,
    missing_for_final_state,
    reports_of_change,
    updated,
)
from triage.core.workitem_matching import check_keys, matches
from triage.core.workitems import (
    MEANINGS,
    StepPriority,
    StepState,
    UpsStatus,
    WorkitemError,
    status_of_cancel_request,
    status_of_change,
    status_of_update,
)
from triage.store.chunks import chunks, write_in_full
from triage.store.claims import claim_by_workitem, end_claim, end_workitem_claim
from triage.store.history import note
from triage.store.tables import StudyRow
from triage.store.workitem_events import subscribers_of, tell_all, tell_all_of_each
from triage.store.workitem_subscriptions import subscribe_to_new
from triage.store.workitem_tables import (
    WorkitemEventRow,
    WorkitemRow,
    WorkitemSubscriptionRow,
)
from triage.store.workitem_views import Presentation, presented

_COLUMNS: Mapping[str, ColumnElement[Any]] = {
    SOP_INSTANCE_UID: WorkitemRow.sop_instance_uid.expression,
    STATE: WorkitemRow.state.expression,
    PRIORITY: WorkitemRow.priority.expression,
}


def create_workitem(
    session: Session, sop_instance_uid: str, given: Attributes, *, now: datetime
) -> UpsStatus:
    """Keep a workitem of another system (CC.2.5); a warning says that attributes were added.

    Raises:
        WorkitemError: it is there already, or an attribute is wrong.
    """
    attributes, was_modified = created(sop_instance_uid, given, now)
    known = session.scalar(
        select(WorkitemRow.id).where(WorkitemRow.sop_instance_uid == sop_instance_uid)
    )
    if known is not None:
        raise WorkitemError(UpsStatus.DUPLICATE_INSTANCE, "there is a UPS of this UID already")
    add_workitem(session, sop_instance_uid, attributes, study_id=None, now=now)
    return UpsStatus.CREATED_WITH_MODIFICATIONS if was_modified else UpsStatus.SUCCESS


def add_workitem(
    session: Session,
    sop_instance_uid: str,
    attributes: dict[str, Any],
    *,
    study_id: int | None,
    now: datetime,
) -> WorkitemRow:
    """Write a new workitem, and tell those who are subscribed to all new ones."""
    row = WorkitemRow(
        sop_instance_uid=sop_instance_uid,
        study_id=study_id,
        priority=StepPriority(text_of(attributes, PRIORITY)),
        attributes=attributes,
        created_at=now,
    )
    session.add(row)
    session.flush()
    subscribe_to_new(session, row, now)
    return row


def read_workitem(
    session: Session, sop_instance_uid: str, presentation: Presentation, *, with_inputs: bool
) -> dict[str, Any]:
    """Return the attributes of a workitem, never its Transaction UID (CC.2.7.3).

    Raises:
        WorkitemError: there is no such workitem.
    """
    row = session.scalar(
        select(WorkitemRow).where(WorkitemRow.sop_instance_uid == sop_instance_uid)
    )
    if row is None:
        raise _refusal(UpsStatus.UNKNOWN_INSTANCE)
    return presented(session, row, presentation, with_inputs=with_inputs)


def update_workitem(
    session: Session,
    sop_instance_uid: str,
    changes: Attributes,
    *,
    transaction_uid: str,
    now: datetime,
) -> UpsStatus:
    """Set attributes of a workitem (CC.2.6); a warning says that a priority was not lowered.

    The priority of a study to be read is Triage's: another system may raise it, and what it asks
    for below that is taken up to it.

    Raises:
        WorkitemError: the workitem is unknown, claimed by another, ended, or the change not
            allowed.
    """
    row = locked_workitem(session, sop_instance_uid)
    _require(status_of_update(row.state, row.transaction_uid, transaction_uid))
    before = row.attributes
    after = updated(before, changes, now)
    status = UpsStatus.SUCCESS
    if row.study_id is not None and PRIORITY in changes:
        asked = StepPriority(text_of(after, PRIORITY))
        row.asked_priority = asked
        floor = StepPriority.of(session.get_one(StudyRow, row.study_id).priority)
        if asked.rank < floor.rank:
            after[PRIORITY] = element("CS", str(floor))
            status = UpsStatus.COERCED
    if row.study_id is not None and INPUT_INFORMATION in changes:
        after[INPUT_INFORMATION] = element("SQ")  # what is to be read is what is here
        status = UpsStatus.COERCED
    write_attributes(session, row, after, now)
    return status


def change_state(
    session: Session,
    sop_instance_uid: str,
    wanted: StepState,
    *,
    transaction_uid: str,
    requester: str,
    now: datetime,
) -> UpsStatus:
    """Claim a workitem, or complete or cancel one that was claimed (CC.2.1).

    Completing that of a study marks the study as read. Cancelling it does not: the study stays on
    our own worklist. `requester` is the AE title, or what stands for one over HTTP.

    Raises:
        WorkitemError: the state machine does not allow it, or the final state needs more.
    """
    study = _locked_study_of(session, sop_instance_uid)
    row = locked_workitem(session, sop_instance_uid)
    status = status_of_change(row.state, row.transaction_uid, wanted, transaction_uid)
    _require(status)
    if status is not UpsStatus.SUCCESS:
        return status  # it is in that state already
    missing = missing_for_final_state(row.attributes, wanted)
    if missing:
        raise WorkitemError(UpsStatus.FINAL_STATE_NOT_MET, f"{missing} has no value")
    if wanted is StepState.IN_PROGRESS:
        row.transaction_uid = transaction_uid
    put_in_state(session, row, wanted, now)
    if study is None:
        return status
    _show_who_reads(session, study, wanted, requester, now)
    if wanted is StepState.COMPLETED and study.read_at is None:
        study.read_at = now
        text = f"read: its workitem was completed by {requester}"
        note(session, study.id, "read", text, at=now)
    return status


def _show_who_reads(
    session: Session, study: StudyRow, state: StepState, requester: str, now: datetime
) -> None:
    """Let the worklist show the workitem's performer as the one who reads the study."""
    if state is StepState.IN_PROGRESS:
        claim_by_workitem(session, study, requester or "a workstation", now)
    elif state is StepState.COMPLETED:
        end_claim(session, study.id)
    else:
        end_workitem_claim(session, study.id, now)


def request_cancel(
    session: Session,
    sop_instance_uid: str,
    information: Attributes,
    *,
    requester: str,
    own_uid: str,
    now: datetime,
) -> UpsStatus:
    """Cancel a workitem that nobody has claimed, or tell its performer of the wish (CC.2.2).

    Args:
        session: a transaction.
        sop_instance_uid: of the workitem.
        information: Reason For Cancellation and the like.
        requester: who asks.
        own_uid: the Transaction UID under which we cancel it.
        now: the present moment.

    Raises:
        WorkitemError: it is unknown or completed, or nobody could be told.
    """
    row = locked_workitem(session, sop_instance_uid)
    may_be_told = bool(subscribers_of(session, row.id))
    status = status_of_cancel_request(row.state, may_be_told=may_be_told)
    _require(status)
    if status is not UpsStatus.SUCCESS:
        return status
    if row.state is StepState.SCHEDULED:
        cancel_unclaimed(session, row, information, own_uid, now)
    else:
        tell_all(session, row, [cancel_report(requester[:16], information)], now)
    return status


def cancel_unclaimed(
    session: Session, row: WorkitemRow, information: Attributes, own_uid: str, now: datetime
) -> None:
    """Cancel a SCHEDULED workitem ourselves: first IN PROGRESS, then CANCELED (CC.2.2.3)."""
    row.transaction_uid = own_uid
    put_in_state(session, row, StepState.IN_PROGRESS, now)
    put_in_state(session, row, StepState.CANCELED, now, information)


def put_in_state(
    session: Session,
    row: WorkitemRow,
    state: StepState,
    now: datetime,
    reason: Attributes | None = None,
) -> None:
    """Change the state of a locked workitem, and tell its subscribers."""
    after = in_state(row.attributes, state, now, reason)
    row.state = state
    row.finished_at = now if state.is_final else None
    write_attributes(session, row, after, now)


def write_attributes(
    session: Session, row: WorkitemRow, after: dict[str, Any], now: datetime
) -> None:
    """Write the attributes of a locked workitem, and tell its subscribers what changed."""
    write_attributes_of_each(session, [(row, after)], now)


def write_attributes_of_each(
    session: Session, changes: Sequence[tuple[WorkitemRow, dict[str, Any]]], now: datetime
) -> None:
    """Do the same for several workitems, in a few statements."""
    said = []
    for row, after in changes:
        said.append((row, reports_of_change(row.attributes, after)))
        row.attributes = after
        row.priority = StepPriority(text_of(after, PRIORITY))
        write_in_full(row, ("attributes", "priority"))
    session.flush()
    tell_all_of_each(session, said, now)


def find_workitems(
    session: Session, keys: Attributes, presentation: Presentation, *, with_inputs: bool
) -> Iterator[dict[str, Any]]:
    """Yield the attributes of the workitems that match, the most urgent and oldest first (CC.2.8).

    Raises:
        QueryError: a key has a value that is none of its VR.
    """
    check_keys(keys)  # what is wrong with one is said at once
    urgency = case({str(p): -p.rank for p in StepPriority}, value=WorkitemRow.priority)
    ids = session.scalars(
        select(WorkitemRow.id)
        .where(*_narrowed(keys))
        .order_by(urgency, WorkitemRow.created_at, WorkitemRow.id)
    ).all()
    inputs = with_inputs or INPUT_INFORMATION in keys
    for some in chunks(ids):
        rows = {
            row.id: row
            for row in session.scalars(select(WorkitemRow).where(WorkitemRow.id.in_(some)))
        }
        for workitem_id in some:
            row = rows.get(workitem_id)  # it may have been purged in between
            if row is None:
                continue
            attributes = presented(session, row, presentation, with_inputs=inputs)
            if matches(attributes, keys):
                yield attributes


def _narrowed(keys: Attributes) -> list[ColumnElement[bool]]:
    """Return the conditions that the database can judge; the rest is matched afterwards."""
    conditions: list[ColumnElement[bool]] = []
    for tag, column in _COLUMNS.items():
        wanted = [str(value) for value in values_of(keys, tag)]
        if wanted and not any("*" in value or "?" in value or not value for value in wanted):
            conditions.append(column.in_(wanted))
    studies = [str(value) for value in values_of(keys, STUDY_INSTANCE_UID)]
    if studies:
        of_studies = select(StudyRow.id).where(StudyRow.study_instance_uid.in_(studies))
        conditions.append(or_(WorkitemRow.study_id.is_(None), WorkitemRow.study_id.in_(of_studies)))
    return conditions


def purge_finished(session: Session, before: datetime) -> int:
    """Delete what ended before that moment, and return how many workitems went.

    One with a deletion lock stays (CC.2.1.3), and so does the ended workitem of a study that is
    still to be read: it says that the study has had one. Old events go too.
    """
    is_locked = exists(
        select(WorkitemSubscriptionRow.id).where(
            WorkitemSubscriptionRow.workitem_id == WorkitemRow.id,
            WorkitemSubscriptionRow.has_deletion_lock.is_(True),
        )
    )
    is_unread = exists(
        select(StudyRow.id).where(StudyRow.id == WorkitemRow.study_id, StudyRow.read_at.is_(None))
    )
    gone = session.execute(
        delete(WorkitemRow)
        .where(WorkitemRow.finished_at <= before, ~is_locked, ~is_unread)
        .returning(WorkitemRow.id)
    ).all()
    session.execute(delete(WorkitemEventRow).where(WorkitemEventRow.created_at <= before))
    return len(gone)


def locked_workitem(session: Session, sop_instance_uid: str) -> WorkitemRow:
    """Return the workitem, locked until the end of the transaction.

    Raises:
        WorkitemError: there is no such workitem.
    """
    row = session.scalar(
        select(WorkitemRow)
        .where(WorkitemRow.sop_instance_uid == sop_instance_uid)
        .with_for_update(key_share=True)  # subscribing refers to the row meanwhile
        .execution_options(populate_existing=True)
    )
    if row is None:
        raise _refusal(UpsStatus.UNKNOWN_INSTANCE)
    return row


def _locked_study_of(session: Session, sop_instance_uid: str) -> StudyRow | None:
    # Whoever needs both locks takes the study's first, as those do who have the study in hand.
    study_id = session.scalar(
        select(WorkitemRow.study_id).where(WorkitemRow.sop_instance_uid == sop_instance_uid)
    )
    if study_id is None:
        return None
    return session.scalar(
        select(StudyRow).where(StudyRow.id == study_id).with_for_update(key_share=True, of=StudyRow)
    )


def _require(status: UpsStatus) -> None:
    if status.is_failure:
        raise _refusal(status)


def _refusal(status: UpsStatus) -> WorkitemError:
    return WorkitemError(status, MEANINGS[status])
