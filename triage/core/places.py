"""A study's place on the reading list, and each thing that put it there.

The place is a class and, within the class, a moment (`ranked_at`): when the study came, moved
earlier by the minutes that its points are worth. Earlier is read first. The AI adds to what counts
and takes nothing from it, so a study is never later with it than without.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from triage.core.policy import NOTHING_ASKED, AiPriority
from triage.core.priority import Priority
from triage.core.priority_policy import LocationRule, PriorityPolicy


class Source(StrEnum):
    """Who or what says something of how urgent a study is, or changed its place."""

    ORDER = "order"
    PERSON = "person"
    LOCATION = "location"
    AI = "ai"
    WAITING = "waiting"
    WITHDRAWAL = "withdrawal"
    POLICY = "policy"
    SWITCH = "switch"


@dataclass(frozen=True, slots=True)
class PersonalRaise:
    """What a person raised a study to, who it was and why."""

    priority: Priority
    who: str
    reason: str


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What is known of a study that decides its place.

    `patient_class` is of HL7 table 0004, `location` as messages said it; empty if nobody did.
    """

    arrived_at: datetime
    order: Priority = Priority.ROUTINE
    patient_class: str = ""
    location: str = ""
    raised: PersonalRaise | None = None
    ai: AiPriority = NOTHING_ASKED


@dataclass(frozen=True, slots=True)
class Contribution:
    """One thing that counts for a study's place: the class and the points that it brings."""

    source: Source
    text: str
    priority: Priority | None = None
    points: int = 0

    def in_words(self) -> str:
        """Return it as the worklist says it: "Emergency patient +60"."""
        points = f" +{self.points}" if self.points else ""
        return f"{self.text}{points}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a study stands.

    Attributes:
        priority: its class.
        points: minutes of waiting that it is given, 0 to the policy's `most_points`.
        ranked_at: when it came, less these minutes: its place within the class.
        due_at: when it should be read, None where the policy has no target for it.
        rises_at: when its wait alone puts it into the next class, None where it does not.
        priority_without_ai: the class that it would have if the AI said nothing of it.
        contributions: what it comes from.
    """

    priority: Priority
    points: int
    ranked_at: datetime
    due_at: datetime | None
    rises_at: datetime | None
    priority_without_ai: Priority
    contributions: tuple[Contribution, ...]

    @property
    def key(self) -> tuple[int, datetime]:
        """The key of the reading list: lower is read first."""
        return -self.priority, self.ranked_at

    def score(self, now: datetime) -> int:
        """Return the minutes that count within the class at `now`: the wait, and the points."""
        return max(0, int((now - self.ranked_at).total_seconds() // 60))

    def in_words(self) -> str:
        """Return what the place comes from: "order routine; Emergency patient +60: Routine"."""
        said = "; ".join(each.in_words() for each in self.contributions)
        return f"{said}: {self.priority.label}"


def place_of(
    facts: StudyFacts, policy: PriorityPolicy, *, now: datetime, ai_counts: bool = True
) -> Place:
    """Return where a study stands at `now`; `ai_counts` is False while the AI is switched off."""
    rules = policy.locations_of(facts.patient_class, facts.location)
    said = _without_ai(facts, policy, rules)
    waited = now - facts.arrived_at
    without_ai = _risen(_most_urgent(said), policy, waited)
    if ai_counts:
        said += _by_ai(facts.ai)
    asked = _most_urgent(said)
    priority = _risen(asked, policy, waited)
    if priority is not asked:
        said.append(Contribution(Source.WAITING, "waits for long", priority))
    points = min(policy.most_points, sum(one.points for one in said))
    target = _target(policy, rules, priority)
    rises_after = policy.rises_after_minutes.of(priority)
    return Place(
        priority=priority,
        points=points,
        ranked_at=facts.arrived_at - timedelta(minutes=points),
        due_at=None if target is None else facts.arrived_at + timedelta(minutes=target),
        rises_at=None if rises_after is None else facts.arrived_at + timedelta(minutes=rises_after),
        priority_without_ai=without_ai,
        contributions=tuple(said),
    )


def _without_ai(
    facts: StudyFacts, policy: PriorityPolicy, rules: tuple[LocationRule, ...]
) -> list[Contribution]:
    order = facts.order
    said = [
        Contribution(
            Source.ORDER, f"order {order.name.lower()}", order, policy.order_points.of(order)
        )
    ]
    if facts.raised is not None:
        raised = facts.raised
        because = f": {raised.reason}" if raised.reason else ""
        text = f"raised to {raised.priority.label} by {raised.who}{because}"
        said.append(Contribution(Source.PERSON, text, raised.priority))
    said += [Contribution(Source.LOCATION, r.name, r.at_least, r.points) for r in rules]
    return said


def _most_urgent(said: list[Contribution]) -> Priority:
    return max(one.priority for one in said if one.priority is not None)


def _by_ai(ai: AiPriority) -> list[Contribution]:
    if ai.priority is None and not ai.points:
        return []
    return [Contribution(Source.AI, ai.reason, ai.priority, max(0, ai.points))]


def _risen(asked: Priority, policy: PriorityPolicy, waited: timedelta) -> Priority:
    priority = asked
    while (after := policy.rises_after_minutes.of(priority)) is not None:
        if waited < timedelta(minutes=after):
            break
        priority = Priority(priority + 1)
    return priority


def _target(
    policy: PriorityPolicy, rules: tuple[LocationRule, ...], priority: Priority
) -> int | None:
    targets = [policy.turnaround_minutes, *(rule.turnaround_minutes for rule in rules)]
    minutes = [target.for_class(priority) for target in targets]
    return min((one for one in minutes if one is not None), default=None)
