"""How a person looks at the worklist, kept under a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.store.worklist_tables import WorklistViewRow

MOST_VIEWS = 50
"""How many views a person may keep."""


class TooManyViewsError(TriageError):
    """The person keeps as many views as one may."""


def views_of(session: Session, who: str) -> Sequence[WorklistViewRow]:
    """Return what a person has saved, by name."""
    return session.scalars(
        select(WorklistViewRow)
        .where(WorklistViewRow.who == who)
        .order_by(WorklistViewRow.name, WorklistViewRow.id)
    ).all()


def default_view_of(session: Session, who: str) -> WorklistViewRow | None:
    """Return the view with which the worklist opens for a person, None for all studies."""
    return session.scalar(
        select(WorklistViewRow).where(
            WorklistViewRow.who == who, WorklistViewRow.is_default.is_(True)
        )
    )


def save_view(
    session: Session, who: str, name: str, content: dict[str, Any], *, is_default: bool
) -> WorklistViewRow:
    """Keep a view; one of the same name is replaced. A person has one default at most.

    Raises:
        TooManyViewsError: they keep too many.
    """
    row = session.scalar(
        select(WorklistViewRow).where(WorklistViewRow.who == who, WorklistViewRow.name == name)
    )
    if row is None:
        kept = select(func.count()).select_from(WorklistViewRow).where(WorklistViewRow.who == who)
        if (session.scalar(kept) or 0) >= MOST_VIEWS:
            raise TooManyViewsError(f"you keep {MOST_VIEWS} views; delete one first")
        row = WorklistViewRow(who=who, name=name, content=content)
        session.add(row)
    if is_default:
        session.execute(
            update(WorklistViewRow).where(WorklistViewRow.who == who).values(is_default=False)
        )
    row.content, row.is_default = content, is_default
    session.flush()
    return row


def delete_view(session: Session, who: str, name: str) -> bool:
    """Delete a view, and return whether there was one."""
    gone = session.execute(
        delete(WorklistViewRow)
        .where(WorklistViewRow.who == who, WorklistViewRow.name == name)
        .returning(WorklistViewRow.id)
    ).all()
    return bool(gone)
