"""What changed since the last look: the newest lines of the studies' history."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from triage.store.history import is_for_readers
from triage.store.policy_tables import PolicyEventRow
from triage.store.tables import StudyEventRow, StudyRow

_WINDOW = 500
_MOST = 2000


@dataclass(frozen=True, slots=True)
class ChangeToken:
    """Differs whenever a line was added to any study's history, or to that of the policy.

    The newest id alone would miss lines: on PostgreSQL a transaction that took its id first may
    commit last. So the lines of a window below the newest are counted as well.
    """

    newest_event_id: int = 0
    lines_in_window: int = 0
    policy_event_id: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """A line that was added, and the study it is about."""

    event_id: int
    study_instance_uid: str
    kind: str


def change_token(session: Session) -> ChangeToken:
    """Return the present token; cheap enough to be asked several times a second."""
    newest_of_all = select(func.coalesce(func.max(StudyEventRow.id), 0)).scalar_subquery()
    policy = session.scalar(select(func.max(PolicyEventRow.id)))
    newest, lines = session.execute(
        select(func.max(StudyEventRow.id), func.count()).where(
            StudyEventRow.id > newest_of_all - _WINDOW
        )
    ).one()
    return ChangeToken(newest or 0, lines, policy or 0)


def recent_changes(session: Session, token: ChangeToken, last: ChangeToken) -> list[Change]:
    """Return the lines that may have been added since `last`, oldest first.

    They include the window below `last`, for the lines that were committed late, and never more
    than the newest few thousand. What shadow models do is no change.
    """
    floor = max(last.newest_event_id - _WINDOW, token.newest_event_id - _MOST)
    rows = session.execute(
        select(StudyEventRow.id, StudyRow.study_instance_uid, StudyEventRow.kind)
        .join(StudyRow, StudyRow.id == StudyEventRow.study_id)
        .where(StudyEventRow.id > floor, is_for_readers())
        .order_by(StudyEventRow.id)
    )
    return [Change(*row) for row in rows]
