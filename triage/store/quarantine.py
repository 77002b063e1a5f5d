"""What a person decides about objects in quarantine: judged anew, or deleted."""

from __future__ import annotations

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.remote import ReturnedState
from triage.store.delivery_decisions import Decision
from triage.store.study_actions import ActionError, UnknownSubjectError
from triage.store.tables import ReturnedObjectRow

log = structlog.get_logger()


def judge_anew(session: Session, object_id: int, decision: Decision) -> None:
    """Let an object in quarantine be looked at again, once its cause is mended.

    Raises:
        UnknownSubjectError: there is no such object.
        ActionError: it is not in quarantine, or no reason is given.
    """
    row = _quarantined(session, object_id, decision)
    row.state, row.said = ReturnedState.WAITING, ""
    _log("quarantine.judged_anew", object_id, decision)


def delete(session: Session, object_id: int, decision: Decision) -> str:
    """Delete an object in quarantine, and return the path of its file, which is to be removed.

    The file is removed after the transaction: one without a row is taken by the sweep at the
    latest, a row without a file would not be.

    Raises:
        UnknownSubjectError: there is no such object.
        ActionError: it is not in quarantine, or no reason is given.
    """
    row = _quarantined(session, object_id, decision)
    path = row.path
    session.delete(row)
    _log("quarantine.deleted", object_id, decision)
    return path


def _quarantined(session: Session, object_id: int, decision: Decision) -> ReturnedObjectRow:
    decision.with_reason()
    row = session.scalars(
        select(ReturnedObjectRow)
        .where(ReturnedObjectRow.id == object_id)
        .with_for_update(of=ReturnedObjectRow)
    ).first()
    if row is None:
        raise UnknownSubjectError(f"there is no object {object_id} in quarantine")
    if row.state is not ReturnedState.QUARANTINED:
        raise ActionError(f"object {object_id} is {row.state.value}, not in quarantine")
    return row


def _log(event: str, object_id: int, decision: Decision) -> None:
    # It belongs to no study whose history could say it.
    log.info(event, object=object_id, who=decision.who, reason=decision.reason)
