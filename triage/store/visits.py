"""Who sent what of which study, from where: kept in few rows, written beside what is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from triage.core.visits import Ending, Way
from triage.store.visit_tables import RefusedCallerRow, VisitRow

_IS_ONE_VISIT_FOR = timedelta(minutes=1)
_MAY_GO_ON = (Ending.OPEN.value, Ending.RELEASED.value)
_MOST_REFUSED_CALLERS = 1000
_LONGEST_ERROR = 500


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends, from where, and which way in."""

    calling_ae_title: str
    address: str
    way: Way


@dataclass(frozen=True, slots=True)
class VisitPart:
    """What came of one study since the last time that this visit was written.

    `is_first` says that nothing of this association and study was written before.
    """

    caller: Caller
    study_id: int | None
    is_first: bool
    instances: int
    refused: int
    size_bytes: int
    began_at: datetime
    last_at: datetime
    ended: Ending
    last_error: str


@dataclass(frozen=True, slots=True)
class RefusedCaller:
    """A caller that was rejected `times` times for one reason since this was last written."""

    calling_ae_title: str
    address: str
    reason: str
    times: int
    at: datetime


def record_visit_parts(session: Session, parts: Iterable[VisitPart]) -> None:
    """Add to the visits what came since.

    An association soon after another is the same visit, since some senders open one for each image;
    not so after one that was broken off.
    """
    for part in parts:
        row = _visit_of(session, part)
        if row is None:
            row = VisitRow(
                study_id=part.study_id,
                way=part.caller.way.value,
                calling_ae_title=part.caller.calling_ae_title[:16],
                address=part.caller.address[:64],
                associations=0,
                instances=0,
                refused=0,
                size_bytes=0,
                began_at=part.began_at,
                last_at=part.last_at,
                last_error="",
            )
            session.add(row)
        row.associations += part.is_first or not row.associations
        row.instances += part.instances
        row.refused += part.refused
        row.size_bytes += part.size_bytes
        row.last_at = max(row.last_at, part.last_at)
        row.ended = part.ended.value
        row.last_error = part.last_error[:_LONGEST_ERROR] or row.last_error
        session.flush()


def _visit_of(session: Session, part: VisitPart) -> VisitRow | None:
    """Return the row that the part belongs to: the sender's newest one of this study."""
    of_study = (
        VisitRow.study_id.is_(None) if part.study_id is None else VisitRow.study_id == part.study_id
    )
    return session.scalars(
        select(VisitRow)
        .where(
            of_study,
            VisitRow.last_at >= part.began_at - _IS_ONE_VISIT_FOR,
            VisitRow.ended.in_(_MAY_GO_ON),
            VisitRow.way == part.caller.way.value,
            VisitRow.calling_ae_title == part.caller.calling_ae_title[:16],
            VisitRow.address == part.caller.address[:64],
        )
        .order_by(VisitRow.id.desc())
        .limit(1)
    ).first()


def record_refused_callers(session: Session, refused: Sequence[RefusedCaller]) -> None:
    """Count callers that were rejected; only the newest thousand are kept, whoever calls."""
    for one in refused:
        row = session.scalars(
            select(RefusedCallerRow).where(
                RefusedCallerRow.calling_ae_title == one.calling_ae_title[:16],
                RefusedCallerRow.address == one.address[:64],
                RefusedCallerRow.reason == one.reason[:128],
            )
        ).first()
        if row is None:
            row = RefusedCallerRow(
                calling_ae_title=one.calling_ae_title[:16],
                address=one.address[:64],
                reason=one.reason[:128],
                times=0,
                first_at=one.at,
                last_at=one.at,
            )
            session.add(row)
        row.times += one.times
        row.last_at = max(row.last_at, one.at)
        session.flush()
    if refused:
        kept = (
            select(RefusedCallerRow.id)
            .order_by(RefusedCallerRow.last_at.desc())
            .limit(_MOST_REFUSED_CALLERS)
        )
        session.execute(delete(RefusedCallerRow).where(RefusedCallerRow.id.not_in(kept)))


def visits_of(session: Session, study_id: int) -> Sequence[VisitRow]:
    """Return the visits to a study, oldest first."""
    return session.scalars(
        select(VisitRow)
        .where(VisitRow.study_id == study_id)
        .order_by(VisitRow.began_at, VisitRow.id)
    ).all()


def refused_callers(session: Session, since: datetime) -> Sequence[RefusedCallerRow]:
    """Return the callers that were rejected since a moment, the newest first."""
    return session.scalars(
        select(RefusedCallerRow)
        .where(RefusedCallerRow.last_at >= since)
        .order_by(RefusedCallerRow.last_at.desc())
    ).all()


def forget_visits_before(session: Session, before: datetime) -> None:
    """Forget old visits that belong to no study; the others are part of a study's history."""
    session.execute(delete(VisitRow).where(VisitRow.study_id.is_(None), VisitRow.last_at < before))
    session.execute(delete(RefusedCallerRow).where(RefusedCallerRow.last_at < before))
