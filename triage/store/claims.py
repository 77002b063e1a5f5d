"""Who is reading which study: claimed, renewed, released, taken over.

A claim keeps others from reading the same study by chance. It hides nothing: a claimed study stays
on the list, anybody may open it, take it over with a word, or mark it as read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, delete, or_, select
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.store.chunks import chunks
from triage.store.history import note
from triage.store.tables import StudyRow
from triage.store.worklist_tables import ReadingClaimRow


class ClaimError(TriageError):
    """A claim cannot be made or held; the message says why and what to do."""


class ClaimedByAnotherError(ClaimError):
    """Somebody else is reading the study."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(
            f"{claim.who} is reading this study since {claim.since:%H:%M} UTC; "
            "say why you take it over, or take another"
        )
        self.claim = claim


class AlreadyReadError(ClaimError):
    """The study was read."""

    def __init__(self) -> None:
        super().__init__("the study was read; put it back on the worklist first")


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that holds; `until` is None for the performer of the study's workitem."""

    who: str
    since: datetime
    until: datetime | None


def claim_study(
    session: Session,
    study: StudyRow,
    who: str,
    *,
    now: datetime,
    lease: timedelta,
    take_over_because: str = "",
) -> Claim:
    """Let `who` read the study from now on; again, it is renewed. The study must be locked.

    Raises:
        AlreadyReadError: it was read.
        ClaimedByAnotherError: somebody else reads it, and no reason was given to take it over.
    """
    if study.read_at is not None:
        raise AlreadyReadError
    held = _held(session, study.id, now)
    if held is not None and held.who == who:
        return renew(held, now=now, lease=lease)
    if held is not None and not take_over_because.strip():
        raise ClaimedByAnotherError(_claim(held))
    taken = f", taken over from {held.who}: {take_over_because.strip()}" if held else ""
    row = _write(session, study, who, now, until=now + lease)
    note(session, study.id, "claimed", f"{who} is reading it{taken}", at=now)
    session.flush()
    return _claim(row)


def claim_by_workitem(session: Session, study: StudyRow, performer: str, now: datetime) -> None:
    """Let the performer who claimed the study's workitem be the one who reads the study.

    The study must be locked.
    """
    held = _held(session, study.id, now)
    taken = f", taken over from {held.who}" if held is not None and held.who != performer else ""
    _write(session, study, performer, now, until=None)
    note(session, study.id, "claimed", f"{performer} claimed its workitem{taken}", at=now)


def renew_claim(
    session: Session, study_id: int, who: str, *, now: datetime, lease: timedelta
) -> Claim | None:
    """Let a claim of `who` hold on while they look at the study; None if it is not theirs."""
    held = _held(session, study_id, now)
    return renew(held, now=now, lease=lease) if held is not None and held.who == who else None


def renew(held: ReadingClaimRow, *, now: datetime, lease: timedelta) -> Claim:
    """Put off the end of a claim; that of a workitem's performer has none."""
    if held.until is not None:
        held.until = max(held.until, now + lease)
    return _claim(held)


def release_study(session: Session, study_id: int, who: str, now: datetime) -> bool:
    """End a claim of `who`, and return whether there was one.

    Raises:
        ClaimError: a workitem holds it, whose performer must end that.
    """
    held = _held(session, study_id, now)
    if held is None or held.who != who:
        return False
    if held.until is None:
        raise ClaimError("the study's workitem is claimed; complete or cancel it where it was")
    session.delete(held)
    note(session, study_id, "released", f"{who} no longer reads it", at=now)
    return True


def end_claim(session: Session, study_id: int) -> None:
    """Forget who reads the study: it was read, or its workitem ended."""
    session.execute(delete(ReadingClaimRow).where(ReadingClaimRow.study_id == study_id))


def end_workitem_claim(session: Session, study_id: int, now: datetime) -> None:
    """Forget that the performer of the study's workitem reads it; a person's claim stays."""
    held = session.get(ReadingClaimRow, study_id)
    if held is not None and held.until is None:
        session.delete(held)
        note(session, study_id, "released", f"{held.who} ended its workitem", at=now)


def claims_on(session: Session, study_ids: Sequence[int], now: datetime) -> Mapping[int, Claim]:
    """Return the claims that hold on these studies."""
    return {
        row.study_id: _claim(row)
        for some in chunks(study_ids)
        for row in session.scalars(
            select(ReadingClaimRow).where(ReadingClaimRow.study_id.in_(some), holds(now))
        )
    }


def studies_claimed(now: datetime, *conditions: ColumnElement[bool]) -> Select[int]:
    """Return the statement for the ids of studies with a claim that holds and is like that."""
    return select(ReadingClaimRow.study_id).where(holds(now), *conditions)


def people_reading(session: Session, now: datetime) -> list[str]:
    """Return everybody who reads something now, by name."""
    names = select(ReadingClaimRow.who).where(holds(now)).distinct()
    return list(session.scalars(names.order_by(ReadingClaimRow.who)))


def holds(now: datetime) -> ColumnElement[bool]:
    """Return the condition that a claim has not run out."""
    return or_(ReadingClaimRow.until.is_(None), ReadingClaimRow.until > now)


def _held(session: Session, study_id: int, now: datetime) -> ReadingClaimRow | None:
    return session.scalar(
        select(ReadingClaimRow)
        .where(ReadingClaimRow.study_id == study_id, holds(now))
        .with_for_update()
    )


def _write(
    session: Session, study: StudyRow, who: str, now: datetime, *, until: datetime | None
) -> ReadingClaimRow:
    row = session.get(ReadingClaimRow, study.id)
    if row is None:
        row = ReadingClaimRow(study_id=study.id, who=who[:128], since=now, until=until)
        session.add(row)
    row.who, row.since, row.until = who[:128], now, until
    return row


def _claim(row: ReadingClaimRow) -> Claim:
    return Claim(row.who, row.since, row.until)
