"""The one place that decides where a study stands, whatever changed: order, patient, findings, …

It computes the place anew from all that is known, so that no change can undo another. Every change
is an event with its reason, and the reading workitem and the waiting runs follow in the same
transaction. What raises a study by a person's decision counts as the order does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, insert, or_, select
from sqlalchemy.orm import Session, lazyload, load_only

from triage.core.errors import TriageError
from triage.core.findings import Finding
from triage.core.places import PersonalRaise, Place, Source, StudyFacts, place_of
from triage.core.policy import AiPriority, ai_priority
from triage.core.priority import Priority
from triage.core.runs import RunState, StudyState
from triage.store.chunks import chunks, write_in_full
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.history import note, note_each
from triage.store.policies import PolicyInForce, policy_in_force, switch_ai
from triage.store.standing_findings import standing_findings
from triage.store.study_workitems import follow_studies, follow_study, schedule_reading
from triage.store.tables import AnalysisRunRow, PriorityEventRow, StudyRow

LONGEST_REASON = 1000
_MOST_AT_ONCE = 200
_ON_THE_LIST = (StudyRow.read_at.is_(None), StudyRow.is_prior.is_(False))
_OF_A_PLACE = (
    "priority",
    "priority_without_ai",
    "points",
    "ranked_at",
    "due_at",
    "rises_at",
    "ranked_by",
    "ai_priority",
    "ai_points",
    "ai_reason",
)
_STARTS_READING = (Source.AI, Source.PERSON)


class RaiseRefusedError(TriageError):
    """The study cannot be raised so; the message says why."""


class NoSuchStudyError(RaiseRefusedError):
    """Triage holds no study of this UID."""


def facts_of(study: StudyRow) -> StudyFacts:
    """Return what is known of a study that decides its place."""
    raised = None
    if study.raised_to is not None:
        raised = PersonalRaise(study.raised_to, study.raised_by, study.raised_reason)
    return StudyFacts(
        arrived_at=study.first_instance_at,
        order=study.order_priority,
        patient_class=study.patient_class or "",
        location=study.location or "",
        raised=raised,
        ai=AiPriority(study.ai_priority, study.ai_reason or "", study.ai_points or 0),
    )


def place_now(study: StudyRow, in_force: PolicyInForce, now: datetime) -> Place:
    """Return where a study stands by the policy that holds."""
    return place_of(facts_of(study), in_force.policy, now=now, ai_counts=in_force.ai_counts)


def place_first(session: Session, study: StudyRow, reason: str, *, now: datetime) -> None:
    """Put a study that has just come to its place."""
    in_force = policy_in_force(session)
    place = place_now(study, in_force, now)
    _write(study, in_force, place)
    session.add(
        PriorityEventRow(
            study_id=study.id,
            at=now,
            source=Source.ORDER.value,
            before=Priority.ROUTINE,
            after=place.priority,
            reason=reason,
            place=place.in_words(),
        )
    )


def reprioritise(
    session: Session,
    study: StudyRow,
    source: Source,
    reason: str,
    *,
    now: datetime,
    run_id: int | None = None,
    is_told: bool = False,
) -> bool:
    """Put a study to the place that is right now, and return whether it moved.

    Args:
        session: a transaction; the study must be locked.
        study: what it is now; the caller has written what changed.
        source: what changed.
        reason: why, in words.
        now: the moment.
        run_id: the run that says so.
        is_told: whether what changed is an event even if the study stays where it is.
    """
    in_force = policy_in_force(session)
    if _is_asked_by_older_policy(study, in_force):
        standing = standing_findings(session, [study.id])[study.id]
        state_ai_anew(study, ai_priority(standing, in_force.policy))
    move = _put(study, in_force, now)
    if move.is_moved or is_told:
        said = _Said(source, reason, now, run_id)
        session.add(PriorityEventRow(**_event_of(study, move, said)))
    if move.is_moved:
        _move_waiting_runs(session, [study])
    if source in _STARTS_READING and (move.is_moved or study.state is StudyState.RECEIVING):
        # A flag may come while the study still arrives, and then its workitem is made here.
        schedule_reading(session, study, now)
    elif move.is_of_class or is_told:
        follow_study(session, study, now)
    return move.is_moved


@dataclass(frozen=True, slots=True)
class _Said:
    source: Source
    reason: str
    at: datetime
    run_id: int | None = None


@dataclass(frozen=True, slots=True)
class _Move:
    before: Priority
    place: Place
    is_moved: bool

    @property
    def is_of_class(self) -> bool:
        return self.place.priority is not self.before


def _put(study: StudyRow, in_force: PolicyInForce, now: datetime) -> _Move:
    """Write the place that is right now."""
    before, ranked_at = study.priority, study.ranked_at
    place = place_now(study, in_force, now)
    _write(study, in_force, place)
    is_moved = (place.priority, place.ranked_at) != (before, ranked_at)
    return _Move(before, place, is_moved)


def _event_of(study: StudyRow, move: _Move, said: _Said) -> dict[str, Any]:
    return {
        "study_id": study.id,
        "run_id": said.run_id,
        "at": said.at,
        "source": said.source.value,
        "before": move.before,
        "after": move.place.priority,
        "reason": said.reason,
        "place": move.place.in_words(),
    }


def _is_asked_by_older_policy(study: StudyRow, in_force: PolicyInForce) -> bool:
    return max(study.ranked_by, 0) < in_force.activation


def _write(study: StudyRow, in_force: PolicyInForce, place: Place) -> None:
    study.priority = place.priority
    study.priority_without_ai = place.priority_without_ai
    study.points = place.points
    study.ranked_at = place.ranked_at
    study.due_at = place.due_at
    study.rises_at = place.rises_at
    study.ranked_by = in_force.epoch


def _move_waiting_runs(session: Session, studies: Sequence[StudyRow]) -> None:
    # Not waited for: a worker that holds its run waits for the study, which is held here.
    # A run's row is long, and its model's has a manifest: of many, only what is written is read.
    row = AnalysisRunRow
    by_id = {study.id: study for study in studies}
    for some in chunks(list(by_id)):
        waiting = session.scalars(
            select(row)
            .where(row.study_id.in_(some), row.state == RunState.PENDING)
            .options(lazyload(row.model), load_only(row.study_id, row.priority, row.ranked_at))
            .with_for_update(skip_locked=True, of=row)
        )
        for run in waiting:
            study = by_id[run.study_id]
            run.priority, run.ranked_at = study.priority, study.ranked_at
            write_in_full(run, ("priority", "ranked_at"))


def raise_for_findings(
    session: Session,
    study_id: int,
    findings: Iterable[tuple[str, Finding]],
    *,
    at: datetime,
    run_id: int | None = None,
) -> AiPriority:
    """Raise the study as far as the policy says that these findings ask for, and return that.

    `findings` are pairs of the model's identity and its finding, of models that count only.
    """
    asked = ai_priority(findings, policy_in_force(session).policy)
    _raise(session, study_id, asked, at, run_id)
    return asked


def raise_ai_priority(
    session: Session,
    study_id: int,
    wanted: Priority,
    reason: str,
    *,
    at: datetime,
    run_id: int | None = None,
) -> bool:
    """Raise the study's AI priority to `wanted` and return whether its place has changed.

    A lower or equal `wanted` changes nothing: AI never lowers a study's priority.
    """
    return _raise(session, study_id, AiPriority(wanted, reason), at, run_id)


def _raise(
    session: Session, study_id: int, asked: AiPriority, at: datetime, run_id: int | None
) -> bool:
    if asked.priority is None and not asked.points:
        return False
    study = session.scalars(
        select(StudyRow).where(StudyRow.id == study_id).with_for_update(key_share=True, of=StudyRow)
    ).one()
    is_higher = asked.priority is not None and (
        study.ai_priority is None or asked.priority > study.ai_priority
    )
    if not is_higher and asked.points <= study.ai_points:
        return False
    if is_higher:
        study.ai_priority, study.ai_reason = asked.priority, asked.reason
    elif asked.reason not in study.ai_reason:  # it brings more points than what was said before
        study.ai_reason = "; ".join(filter(None, (study.ai_reason, asked.reason)))
    study.ai_points = max(study.ai_points, asked.points)
    if is_higher:
        note(session, study_id, "flagged", asked.reason, at=at, run_id=run_id)
    return reprioritise(
        session, study, Source.AI, asked.reason, now=at, run_id=run_id, is_told=True
    )


def state_ai_anew(study: StudyRow, asked: AiPriority) -> None:
    """Let a study's AI priority be what stands, which may be less: a person decided so."""
    study.ai_priority, study.ai_reason = asked.priority, asked.reason
    study.ai_points = asked.points


def raise_by_hand(
    session: Session,
    study_instance_uid: str,
    priority: Priority,
    *,
    who: str,
    reason: str,
    now: datetime,
) -> StudyRow:
    """Raise a study because a person says so; it counts as if the order said it.

    A further raise takes the place of the one before.

    Raises:
        NoSuchStudyError: there is no such study.
        RaiseRefusedError: nobody said who or why, the study is not on the worklist, or its order
            says as much.
    """
    study = _study_to_raise(session, study_instance_uid, who, reason)
    if study.read_at is not None or study.is_prior:
        why = "was read already" if study.read_at is not None else "is here for comparison only"
        raise RaiseRefusedError(f"the study {why}; put it on the worklist first")
    if priority <= study.order_priority:
        raise RaiseRefusedError(
            f"priority: the order says {study.order_priority.label} already; choose a higher one"
        )
    study.raised_to, study.raised_at = priority, now
    study.raised_by = who.strip()[:128]
    study.raised_reason = reason.strip()[:LONGEST_REASON]
    said = f"raised to {priority.label} by {study.raised_by}: {study.raised_reason}"
    note(session, study.id, "raised", said, at=now)
    reprioritise(session, study, Source.PERSON, said, now=now, is_told=True)
    return study


def take_raise_back(
    session: Session, study_instance_uid: str, *, who: str, reason: str, now: datetime
) -> StudyRow:
    """Take back what a person raised; what the order and the AI say stays.

    Raises:
        NoSuchStudyError: there is no such study.
        RaiseRefusedError: nobody raised it, or nobody said who takes it back or why.
    """
    study = _study_to_raise(session, study_instance_uid, who, reason)
    if study.raised_to is None:
        raise RaiseRefusedError("nobody raised the study, so there is nothing to take back")
    said = f"the raise by {study.raised_by} taken back by {who.strip()[:128]}"
    said += f": {reason.strip()[:LONGEST_REASON]}"
    study.raised_to, study.raised_at = None, None
    study.raised_by = study.raised_reason = ""
    note(session, study.id, "raised", said, at=now)
    reprioritise(session, study, Source.PERSON, said, now=now, is_told=True)
    return study


def _study_to_raise(session: Session, uid: str, who: str, reason: str) -> StudyRow:
    if not who.strip():
        raise RaiseRefusedError("who: say who decides this")
    if not reason.strip():
        raise RaiseRefusedError("reason: say why, so that others understand it")
    study = session.scalar(
        select(StudyRow).where(StudyRow.study_instance_uid == uid).with_for_update(of=StudyRow)
    )
    if study is None:
        raise NoSuchStudyError(f"there is no study {uid}")
    return study


def is_ranking_due(session: Session, now: datetime) -> bool:
    """Return whether studies are not where they should be; asking takes no writer's lock."""
    return any(
        session.scalar(select(StudyRow.id).where(*_ON_THE_LIST, because).limit(1)) is not None
        for because in _not_in_place(policy_in_force(session), now)
    )


def rank_some(session: Session, now: datetime, *, limit: int = _MOST_AT_ONCE) -> int:
    """Put some studies to their place by a policy that is new or whose time came; return how many.

    A change of policy holds at once for all that happens, and for the studies that are there in
    rounds: one transaction over 100,000 of them would keep what arrives waiting. What the AI
    asks for is stated anew only by a new policy; switching it off and on loses nothing.
    """
    in_force = policy_in_force(session)
    ranked = 0
    for because in _not_in_place(in_force, now):
        if ranked < limit:
            ranked += _rank_those(session, because, in_force, now, limit - ranked)
    return ranked


def rank_all(database: Database, clock: Clock, *, at_most_s: float | None = None) -> int:
    """Put all studies to their place, in transactions of their own, and return how many.

    What `at_most_s` seconds leave over, the receiver's rounds do.
    """
    started, ranked = time.monotonic(), 0
    while at_most_s is None or time.monotonic() - started < at_most_s:
        with database.transaction() as session:
            some = rank_some(session, clock())
        if not some:
            break
        ranked += some
    return ranked


def switch_ai_prioritization(
    session: Session, *, is_on: bool, who: str, reason: str, now: datetime
) -> PolicyInForce:
    """Let what the AI asks for count, or no longer count, and move all studies that it raised.

    That is one transaction: the list is as the orders say at once. Findings and flags stay.

    Raises:
        PolicyChangeRefusedError: it is so already, or nobody said who or why.
    """
    in_force = switch_ai(session, is_on=is_on, who=who, reason=reason, now=now)
    is_asked_for = or_(StudyRow.ai_priority.is_not(None), StudyRow.ai_points > 0)
    _rank_those(session, is_asked_for, in_force, now)
    return in_force


def _rank_those(
    session: Session,
    which: ColumnElement[bool],
    in_force: PolicyInForce,
    now: datetime,
    limit: int | None = None,
) -> int:
    studies = session.scalars(
        select(StudyRow)
        .where(*_ON_THE_LIST, which)
        .order_by(StudyRow.id)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True, of=StudyRow)
        .execution_options(populate_existing=True)
    ).all()
    outdated = [study for study in studies if _is_asked_by_older_policy(study, in_force)]
    standing = standing_findings(session, [study.id for study in outdated])
    for study in outdated:
        state_ai_anew(study, ai_priority(standing[study.id], in_force.policy))
    reasons = {study.id: _why(study, in_force) for study in studies}  # before it says who ranked it
    moves = [(study, _put(study, in_force, now)) for study in studies]
    moves = [(study, move) for study, move in moves if move.is_moved]
    for study in studies:
        write_in_full(study, _OF_A_PLACE)
    session.flush()
    events = [_event_of(study, move, _Said(*reasons[study.id], now)) for study, move in moves]
    if events:
        session.execute(insert(PriorityEventRow), events)
    note_each(session, "ranked", [(study.id, reasons[study.id][1]) for study, _ in moves], at=now)
    _move_waiting_runs(session, [study for study, _ in moves])
    follow_studies(session, [study for study, move in moves if move.is_of_class], now)
    session.flush()
    return len(studies)


def _not_in_place(
    in_force: PolicyInForce, now: datetime
) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return StudyRow.ranked_by < in_force.epoch, StudyRow.rises_at <= now


def _why(study: StudyRow, in_force: PolicyInForce) -> tuple[Source, str]:
    if study.ranked_by >= in_force.epoch:
        return Source.WAITING, "it waits for long"
    if in_force.epoch == 0:
        return Source.POLICY, "the shipped policy holds"
    by = f" by {in_force.who}: {in_force.reason}"
    if in_force.activation == in_force.epoch:
        return Source.POLICY, f"policy {in_force.version} activated{by}"
    return Source.SWITCH, f"AI prioritization switched {'on' if in_force.ai_counts else 'off'}{by}"
