"""Why a study is where it is: each thing that counts, and what it would be without the AI."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from triage.core.manifest import PriorityName
from triage.core.places import Contribution, Place, Source, place_of
from triage.core.priority import Priority
from triage.store.policies import PolicyInForce, policy_in_force
from triage.store.prioritising import facts_of, place_now
from triage.store.tables import PriorityEventRow, StudyRow

_NEWEST_CHANGES = 50


class ContributionView(BaseModel):
    """One thing that counts: `points` are minutes of waiting, `priority` a class or None.

    `counts` is false for what the AI asks for while AI prioritization is switched off.
    """

    model_config = ConfigDict(frozen=True)

    source: Source
    text: str
    priority: PriorityName | None = None
    points: int = 0
    counts: bool = True


class RaiseView(BaseModel):
    """A person's raise that counts now."""

    model_config = ConfigDict(frozen=True)

    priority: PriorityName
    who: str
    reason: str
    at: datetime | None


class PlaceChange(BaseModel):
    """A change of the study's place: its class before and after, who or what did it, and why.

    `place` is all that counted from then on, in words.
    """

    model_config = ConfigDict(frozen=True)

    at: datetime
    source: str
    before: PriorityName
    after: PriorityName
    reason: str
    place: str


class PlaceExplanation(BaseModel):
    """Why a study is where it is.

    Attributes:
        position: its place on the reading list, from 1; None where it is not on it.
        in_words: all of it in a sentence, as the events say it.
        points: minutes that it is put forward within its class.
        waiting_minutes: since its first image; with the points it is the `score`.
        due_at: when it should be read, None where the policy has no target.
        priority_without_ai, position_without_ai: where it would be if the AI said nothing of it.
        ai_counts: false while AI prioritization is switched off.
        changes: the newest 50, oldest first.
    """

    model_config = ConfigDict(frozen=True)

    study_instance_uid: str
    position: int | None
    priority: PriorityName
    order_priority: PriorityName
    in_words: str
    contributions: tuple[ContributionView, ...]
    points: int
    waiting_minutes: int
    score: int
    ranked_at: datetime
    due_at: datetime | None
    is_overdue: bool
    rises_at: datetime | None
    raised: RaiseView | None
    priority_without_ai: PriorityName
    position_without_ai: int | None
    ai_counts: bool
    policy_version: int
    policy_name: str
    changes: tuple[PlaceChange, ...]


def explain_place(session: Session, study_id: int, now: datetime) -> PlaceExplanation | None:
    """Return why the study is where it is at `now`, or None if there is no such study."""
    study = session.get(StudyRow, study_id)
    return None if study is None else _explained(session, study, now)


def explain_place_of(
    session: Session, study_instance_uid: str, now: datetime
) -> PlaceExplanation | None:
    """Return the same for the study of that UID."""
    study = session.scalar(
        select(StudyRow).where(StudyRow.study_instance_uid == study_instance_uid)
    )
    return None if study is None else _explained(session, study, now)


def _explained(session: Session, study: StudyRow, now: datetime) -> PlaceExplanation:
    in_force = policy_in_force(session)
    place = place_now(study, in_force, now)
    without = place_of(facts_of(study), in_force.policy, now=now, ai_counts=False)
    is_listed = study.read_at is None and not study.is_prior
    waiting = int((now - study.first_instance_at).total_seconds() // 60)
    return PlaceExplanation(
        study_instance_uid=study.study_instance_uid,
        position=_position(session, study, place) if is_listed else None,
        priority=place.priority,
        order_priority=study.order_priority,
        in_words=place.in_words(),
        contributions=_contributions(study, place, in_force, now),
        points=place.points,
        waiting_minutes=max(0, waiting),
        score=place.score(now),
        ranked_at=place.ranked_at,
        due_at=place.due_at,
        is_overdue=is_listed and place.due_at is not None and place.due_at < now,
        rises_at=place.rises_at,
        raised=_raise_of(study),
        priority_without_ai=without.priority,
        position_without_ai=_position(session, study, without) if is_listed else None,
        ai_counts=in_force.ai_counts,
        policy_version=in_force.version,
        policy_name=in_force.policy.name,
        changes=_changes(session, study),
    )


def _position(session: Session, study: StudyRow, place: Place) -> int:
    """Return the place that a study of this class and moment has among the others."""
    others_first = or_(
        StudyRow.priority > place.priority,
        and_(
            StudyRow.priority == place.priority,
            or_(
                StudyRow.ranked_at < place.ranked_at,
                and_(StudyRow.ranked_at == place.ranked_at, StudyRow.id < study.id),
            ),
        ),
    )
    ahead = session.scalars(
        select(func.count()).where(
            StudyRow.read_at.is_(None),
            StudyRow.is_prior.is_(False),
            StudyRow.id != study.id,
            others_first,
        )
    ).one()
    return ahead + 1


def _contributions(
    study: StudyRow, place: Place, in_force: PolicyInForce, now: datetime
) -> tuple[ContributionView, ...]:
    counting = [_view(one, counts=True) for one in place.contributions]
    if in_force.ai_counts:
        return tuple(counting)
    with_ai = place_of(facts_of(study), in_force.policy, now=now)
    idle = [_view(one, counts=False) for one in with_ai.contributions if one.source is Source.AI]
    return (*counting, *idle)


def _view(one: Contribution, *, counts: bool) -> ContributionView:
    return ContributionView(
        source=one.source, text=one.text, priority=one.priority, points=one.points, counts=counts
    )


def _raise_of(study: StudyRow) -> RaiseView | None:
    if study.raised_to is None:
        return None
    return RaiseView(
        priority=study.raised_to,
        who=study.raised_by,
        reason=study.raised_reason,
        at=study.raised_at,
    )


def _changes(session: Session, study: StudyRow) -> tuple[PlaceChange, ...]:
    rows = session.scalars(
        select(PriorityEventRow)
        .where(PriorityEventRow.study_id == study.id)
        .order_by(PriorityEventRow.id.desc())
        .limit(_NEWEST_CHANGES)
    ).all()
    return tuple(
        PlaceChange(
            at=row.at,
            source=row.source,
            before=Priority(row.before),
            after=Priority(row.after),
            reason=row.reason,
            place=row.place,
        )
        for row in reversed(rows)
    )
