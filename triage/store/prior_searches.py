"""The searches for priors: a durable queue, and the little while that an analysis waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, exists, or_, select, update
from sqlalchemy.orm import Session

from triage.core.priors import SearchState
from triage.core.runs import RunState, StudyState
from triage.store.history import note
from triage.store.tables import AnalysisRunRow, PriorRow, PriorSearchRow, StudyRow

_UNFINISHED = (SearchState.WAITING, SearchState.RUNNING)
_MOST_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class DueSearch:
    """A search that this process has claimed."""

    study_id: int
    remote: str
    attempt: int
    claimer: str


class SearchLostError(Exception):
    """The search was put back or taken over by another process while this one carried it out."""


def studies_to_search_for(session: Session) -> list[int]:
    """Return the ids of arriving studies whose priors nobody has been asked to find."""
    is_asked = exists().where(PriorSearchRow.study_id == StudyRow.id)
    return list(
        session.scalars(
            select(StudyRow.id)
            .where(StudyRow.state == StudyState.RECEIVING, StudyRow.is_prior.is_(False), ~is_asked)
            .order_by(StudyRow.priority.desc(), StudyRow.id)
            .limit(_MOST_AT_ONCE)
        )
    )


def ask_for_priors(
    session: Session, study_id: int, *, remote: str, wait_s: float, now: datetime
) -> None:
    """Queue the search for the priors of a study, to be begun at once."""
    session.add(
        PriorSearchRow(
            study_id=study_id,
            remote=remote,
            state=SearchState.WAITING,
            wait_s=wait_s,
            next_attempt_at=now,
            created_at=now,
        )
    )


def claim_search(
    session: Session, *, claimer: str, lease: timedelta, now: datetime
) -> DueSearch | None:
    """Claim the search that is due, that of the most urgent study first, or return None."""
    row = session.scalars(
        select(PriorSearchRow)
        .join(StudyRow, StudyRow.id == PriorSearchRow.study_id)
        .where(_is_due(now))
        .order_by(StudyRow.priority.desc(), PriorSearchRow.created_at, PriorSearchRow.study_id)
        .limit(1)
        .with_for_update(skip_locked=True, of=PriorSearchRow)
    ).first()
    if row is None:
        return None
    row.state = SearchState.RUNNING
    row.attempts += 1
    row.claimed_by = claimer[:128]
    row.lease_until = now + lease
    return DueSearch(row.study_id, row.remote, row.attempts, row.claimed_by)


def has_due_search(session: Session, now: datetime) -> bool:
    """Return whether `claim_search` might find one; a cheap read without any lock."""
    due = select(PriorSearchRow.study_id).where(_is_due(now))
    return session.scalars(due.limit(1)).first() is not None


def _is_due(now: datetime) -> ColumnElement[bool]:
    return or_(
        and_(PriorSearchRow.state == SearchState.WAITING, PriorSearchRow.next_attempt_at <= now),
        and_(PriorSearchRow.state == SearchState.RUNNING, PriorSearchRow.lease_until < now),
    )


def renew_searches(
    session: Session, study_ids: Sequence[int], *, claimer: str, lease: timedelta, now: datetime
) -> None:
    """Keep the claimed searches for another `lease`."""
    session.execute(
        update(PriorSearchRow)
        .where(
            PriorSearchRow.study_id.in_(study_ids),
            PriorSearchRow.claimed_by == claimer[:128],
            PriorSearchRow.state == SearchState.RUNNING,
        )
        .values(lease_until=now + lease)
    )


def put_back_searches(session: Session, *, claimer: str, now: datetime) -> None:
    """Let the searches be begun again that `claimer` had claimed when it died."""
    session.execute(
        update(PriorSearchRow)
        .where(
            PriorSearchRow.claimed_by == claimer[:128],
            PriorSearchRow.state == SearchState.RUNNING,
        )
        .values(state=SearchState.WAITING, next_attempt_at=now, lease_until=None)
    )


def try_search_again(session: Session, due: DueSearch, why: str, *, at: datetime) -> None:
    """Let the search be tried again at `at`.

    Raises:
        SearchLostError: another process has it.
    """
    row = _claimed(session, due)
    row.state = SearchState.WAITING
    row.next_attempt_at = at
    row.lease_until = None
    row.said = why


def finish_search(
    session: Session, due: DueSearch, state: SearchState, said: str, *, now: datetime
) -> None:
    """End the search, note what was found or why nothing was, and let the runs begin.

    Raises:
        SearchLostError: another process has it.
    """
    row = _claimed(session, due)
    row.state = state
    row.said = said
    row.lease_until = None
    row.finished_at = now
    is_late = row.wait_until is not None and row.wait_until <= now
    late = "; the analysis had waited long enough and has begun without" if is_late else ""
    note(session, due.study_id, "priors", f"{said}{late}", at=now)
    _let_runs_begin(session, due.study_id, now)


def _claimed(session: Session, due: DueSearch) -> PriorSearchRow:
    row = session.scalars(
        select(PriorSearchRow)
        .where(
            PriorSearchRow.study_id == due.study_id,
            PriorSearchRow.state == SearchState.RUNNING,
            PriorSearchRow.claimed_by == due.claimer,
            PriorSearchRow.attempts == due.attempt,
        )
        .with_for_update()
    ).first()
    if row is None:
        raise SearchLostError(f"the search for the priors of study {due.study_id} is another's")
    return row


def is_wanted_as_prior(session: Session, study_instance_uid: str) -> bool:
    """Return whether some study has this one among its relevant priors."""
    wanted = select(PriorRow.id).where(PriorRow.study_instance_uid == study_instance_uid)
    return session.scalars(wanted.limit(1)).first() is not None


def is_searching(session: Session, study_id: int) -> bool:
    """Return whether priors of the study may still come."""
    search = select(PriorSearchRow.study_id).where(
        PriorSearchRow.study_id == study_id, PriorSearchRow.state.in_(_UNFINISHED)
    )
    return session.scalars(search).first() is not None


def wait_for_priors(session: Session, study_id: int, now: datetime) -> datetime:
    """Return the moment from which on the runs of a study that is complete now may begin.

    That is now, or, while its priors are still being fetched, the end of the wait that was set for
    them. The wait is not begun anew where a late image lets the study be complete once more.
    """
    # Locked: a search that ends at this moment would not see the runs that are queued now.
    search = session.get(PriorSearchRow, study_id, with_for_update=True)
    if search is None or search.state not in _UNFINISHED:
        return now
    if search.wait_until is None:
        search.wait_until = now + timedelta(seconds=search.wait_s)
        text = f"the analysis waits for them, {search.wait_s:g} s at most"
        note(session, study_id, "priors", text, at=now)
    return max(now, search.wait_until)


def _let_runs_begin(session: Session, study_id: int, now: datetime) -> None:
    session.execute(
        update(AnalysisRunRow)
        .where(
            AnalysisRunRow.study_id == study_id,
            AnalysisRunRow.state == RunState.PENDING,
            AnalysisRunRow.attempts == 0,  # one that failed before has a pause of its own
            AnalysisRunRow.available_at > now,
        )
        .values(available_at=now)
    )
