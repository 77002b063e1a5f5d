"""Who is told of what becomes of workitems (DICOM PS3.4 CC.2.3, table CC.2.3-2)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from triage.core.dicom_json import element, has_value
from triage.core.workitem_attributes import WORKLIST_LABEL, reports_of_creation, state_report
from triage.core.workitem_matching import check_keys, matches
from triage.core.workitems import (
    FILTERED_SUBSCRIPTION,
    GLOBAL_SUBSCRIPTION,
    MEANINGS,
    UpsStatus,
    WorkitemError,
)
from triage.store.workitem_events import Subscriber, tell, withdraw_events
from triage.store.workitem_tables import (
    GlobalSubscriptionRow,
    WorkitemRow,
    WorkitemSubscriptionRow,
)

WELL_KNOWN = (GLOBAL_SUBSCRIPTION, FILTERED_SUBSCRIPTION)
"""The instances that stand for many workitems."""


def subscribe(
    session: Session,
    subscriber: Subscriber,
    sop_instance_uid: str,
    *,
    deletion_lock: bool,
    now: datetime,
) -> None:
    """Subscribe to one workitem; the subscriber is told its present state.

    Raises:
        WorkitemError: there is no such workitem.
    """
    workitem = _workitem(session, sop_instance_uid)
    _subscribe_to(session, subscriber, workitem, deletion_lock=deletion_lock)
    tell(session, subscriber, sop_instance_uid, [state_report(workitem.attributes)], now)


def subscribe_globally(
    session: Session,
    subscriber: Subscriber,
    *,
    deletion_lock: bool,
    filter_keys: Mapping[str, Any] | None,
    worklist_label: str,
    now: datetime,
) -> None:
    """Subscribe to all workitems that are here and those to come, or to those that match.

    What the subscriber has asked for of single workitems stays. With a deletion lock it is told
    the present state of each workitem that is new to it.

    Args:
        session: a transaction.
        subscriber: who is told.
        deletion_lock: whether ended workitems are kept until it gives them up.
        filter_keys: what they must match (CC.2.3.3.1), in the DICOM JSON model; None is all.
        worklist_label: what those without a Worklist Label are said to have.
        now: the present moment.

    Raises:
        QueryError: the filter is wrong.
    """
    keys = dict(filter_keys or {})
    check_keys(keys)
    _wait_for_creations(session)
    is_filtered = filter_keys is not None
    known = session.scalar(
        select(GlobalSubscriptionRow).where(
            GlobalSubscriptionRow.ae_title == subscriber.ae_title,
            GlobalSubscriptionRow.is_filtered.is_(is_filtered),
        )
    )
    row = known or GlobalSubscriptionRow(ae_title=subscriber.ae_title, is_filtered=is_filtered)
    row.filter_keys = keys
    row.worklist_label = worklist_label
    row.channel = subscriber.channel
    row.has_deletion_lock = deletion_lock
    if known is None:
        session.add(row)
    subscribed = select(WorkitemSubscriptionRow.workitem_id).where(
        WorkitemSubscriptionRow.ae_title == subscriber.ae_title
    )
    others = select(WorkitemRow).where(WorkitemRow.id.not_in(subscribed)).order_by(WorkitemRow.id)
    for workitem in session.scalars(others).all():
        if not _is_wanted(row, workitem):
            continue
        _subscribe_to(session, subscriber, workitem, deletion_lock=deletion_lock)
        if deletion_lock:
            report = state_report(workitem.attributes)
            tell(session, subscriber, workitem.sop_instance_uid, [report], now)


def unsubscribe(session: Session, ae_title: str, sop_instance_uid: str) -> None:
    """End the subscription to one workitem, or, by a well-known UID, all of them.

    Raises:
        WorkitemError: there is no such workitem.
    """
    if sop_instance_uid in WELL_KNOWN:
        suspend(session, ae_title, sop_instance_uid)
        session.execute(
            delete(WorkitemSubscriptionRow).where(WorkitemSubscriptionRow.ae_title == ae_title)
        )
        withdraw_events(session, ae_title)
        return
    workitem = _workitem(session, sop_instance_uid)
    session.execute(
        delete(WorkitemSubscriptionRow).where(
            WorkitemSubscriptionRow.ae_title == ae_title,
            WorkitemSubscriptionRow.workitem_id == workitem.id,
        )
    )
    withdraw_events(session, ae_title, sop_instance_uid)


def suspend(session: Session, ae_title: str, sop_instance_uid: str) -> None:
    """Subscribe to no further workitems; the subscriptions to those that are here stay.

    Raises:
        WorkitemError: it is asked for a single workitem, which it is not for.
    """
    if sop_instance_uid not in WELL_KNOWN:
        _workitem(session, sop_instance_uid)
        raise WorkitemError(
            UpsStatus.WRONG_ACTION_FOR_INSTANCE, "only a global subscription can be suspended"
        )
    session.execute(
        delete(GlobalSubscriptionRow).where(
            GlobalSubscriptionRow.ae_title == ae_title,
            GlobalSubscriptionRow.is_filtered.is_(sop_instance_uid == FILTERED_SUBSCRIPTION),
        )
    )


def subscribe_to_new(session: Session, workitem: WorkitemRow, now: datetime) -> None:
    """Subscribe to a workitem that was just created all who want it, and tell them of it.

    The workitem must have been written before: a subscription that comes at this moment waits for
    it, and then sees it (`_wait_for_creations`).
    """
    for wanted in session.scalars(
        select(GlobalSubscriptionRow).order_by(
            GlobalSubscriptionRow.ae_title, GlobalSubscriptionRow.is_filtered
        )
    ).all():
        if not _is_wanted(wanted, workitem):
            continue
        subscriber = Subscriber(wanted.ae_title, wanted.channel)
        is_new = _subscribe_to(
            session, subscriber, workitem, deletion_lock=wanted.has_deletion_lock
        )
        if is_new:
            events = reports_of_creation(workitem.attributes)
            tell(session, subscriber, workitem.sop_instance_uid, events, now)


def _is_wanted(wanted: GlobalSubscriptionRow, workitem: WorkitemRow) -> bool:
    attributes = workitem.attributes
    if not has_value(attributes, WORKLIST_LABEL):
        attributes = {**attributes, WORKLIST_LABEL: element("LO", wanted.worklist_label)}
    return matches(attributes, wanted.filter_keys)


def _subscribe_to(
    session: Session, subscriber: Subscriber, workitem: WorkitemRow, *, deletion_lock: bool
) -> bool:
    """Return whether the subscriber had no subscription to the workitem."""
    known = session.scalar(
        select(WorkitemSubscriptionRow).where(
            WorkitemSubscriptionRow.workitem_id == workitem.id,
            WorkitemSubscriptionRow.ae_title == subscriber.ae_title,
        )
    )
    row = known or WorkitemSubscriptionRow(workitem_id=workitem.id, ae_title=subscriber.ae_title)
    row.channel = subscriber.channel
    row.has_deletion_lock = deletion_lock
    if known is None:
        session.add(row)
        session.flush()
    return known is None


def _workitem(session: Session, sop_instance_uid: str) -> WorkitemRow:
    workitem = session.scalar(
        select(WorkitemRow)
        .where(WorkitemRow.sop_instance_uid == sop_instance_uid)
        .with_for_update(key_share=True)
    )
    if workitem is None:
        status = UpsStatus.UNKNOWN_INSTANCE
        raise WorkitemError(status, MEANINGS[status])
    return workitem


def _wait_for_creations(session: Session) -> None:
    """See every workitem that another transaction is just creating; SQLite has one writer."""
    if session.get_bind().dialect.name != "sqlite":
        session.execute(text("LOCK TABLE workitems IN SHARE MODE"))
