"""Where a study stands: AI only raises, nothing starves, and everything is explained."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_policy import finding
from triage.core.findings import Finding
from triage.core.places import PersonalRaise, Place, Source, StudyFacts, place_of
from triage.core.policy import ai_priority
from triage.core.priority import Priority
from triage.core.priority_policy import (
    SHIPPED_POLICY,
    PolicyError,
    PriorityPolicy,
    parse_policy,
    policy_as_toml,
    policy_from_toml,
)

NOW = datetime(2024, 5, 6, 12, 0, tzinfo=UTC)

points = st.integers(0, 2000)
classes = st.sampled_from([p.name.lower() for p in Priority])


@st.composite
def targets(draw: st.DrawFn) -> dict[str, int]:
    """Draw targets of some classes, the more urgent sooner."""
    named = draw(st.lists(st.sampled_from(["stat", "high", "routine", "low"]), unique=True))
    minutes = sorted(draw(st.lists(st.integers(1, 5000), min_size=4, max_size=4)))
    soonest = dict(zip(["stat", "high", "routine", "low"], minutes, strict=True))
    return {name: soonest[name] for name in named}


locations = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["Emergency", "Ward"]),
        "patient_classes": st.lists(st.sampled_from("EIO"), min_size=1, max_size=2),
        "points": points,
        "turnaround_minutes": targets(),
    },
    optional={"at_least": classes, "locations": st.just(["ED*"])},
)
rules = st.fixed_dictionaries(
    {"finding": st.sampled_from(["a", "b", "50960005"]), "priority": classes, "points": points},
    optional={
        "model": st.sampled_from(["one", "two"]),
        "minimum_confidence": st.floats(0, 1),
        "minimum": st.just({"concept": "Volume", "at_least": 5.0, "unit": "mL"}),
    },
)
policies = st.builds(
    parse_policy,
    st.fixed_dictionaries(
        {
            "order_points": st.dictionaries(classes, points),
            "locations": st.lists(locations, max_size=3),
            "findings": st.lists(rules, max_size=3),
            "turnaround_minutes": targets(),
            "rises_after_minutes": st.dictionaries(
                st.sampled_from(["high", "routine", "low"]), st.integers(1, 5000)
            ),
            "most_points": points,
        }
    ),
)
findings = st.lists(
    st.tuples(
        st.sampled_from(["one 1.0.0", "two 2.0.0"]),
        st.builds(
            finding,
            present=st.booleans(),
            priority=st.sampled_from(Priority),
            confidence=st.floats(0, 1),
            key=st.sampled_from(["a", "b", "c"]),
            volume_ml=st.none() | st.floats(0, 50),
        ),
    ),
    max_size=4,
)
facts = st.builds(
    StudyFacts,
    arrived_at=st.integers(0, 10_000).map(lambda m: NOW - timedelta(minutes=m)),
    order=st.sampled_from(Priority),
    patient_class=st.sampled_from(["", "E", "I", "O"]),
    location=st.sampled_from(["", "ED-3", "Ward 4"]),
    raised=st.none() | st.just(PersonalRaise(Priority.HIGH, "Dr. Haus", "the ward called")),
)


def placed(
    facts: StudyFacts,
    policy: PriorityPolicy,
    found: list[tuple[str, Finding]],
    *,
    ai_counts: bool = True,
) -> Place:
    """Return the place of a study with these findings."""
    asked = ai_priority(found, policy)
    with_ai = StudyFacts(
        facts.arrived_at, facts.order, facts.patient_class, facts.location, facts.raised, asked
    )
    return place_of(with_ai, policy, now=NOW, ai_counts=ai_counts)


@given(policies, facts, findings)
def test_no_policy_and_no_finding_puts_a_study_later_than_without_ai(
    policy: PriorityPolicy, study: StudyFacts, found: list[tuple[str, Finding]]
) -> None:
    with_ai, without = placed(study, policy, found), placed(study, policy, [])
    assert with_ai.key <= without.key
    assert with_ai.due_at is not None or without.due_at is None
    if with_ai.due_at is not None and without.due_at is not None:
        assert with_ai.due_at <= without.due_at


@given(policies, facts, findings)
def test_switched_off_the_place_is_that_of_a_study_without_findings(
    policy: PriorityPolicy, study: StudyFacts, found: list[tuple[str, Finding]]
) -> None:
    assert placed(study, policy, found, ai_counts=False) == placed(study, policy, [])


@given(policies, facts, findings, findings)
def test_one_more_finding_never_puts_a_study_later(
    policy: PriorityPolicy,
    study: StudyFacts,
    found: list[tuple[str, Finding]],
    more: list[tuple[str, Finding]],
) -> None:
    assert placed(study, policy, found + more).key <= placed(study, policy, found).key


@given(policies, facts, findings)
def test_no_study_is_below_its_order(
    policy: PriorityPolicy, study: StudyFacts, found: list[tuple[str, Finding]]
) -> None:
    place = placed(study, policy, found)
    assert place.priority >= study.order
    assert study.raised is None or place.priority >= study.raised.priority


@given(policies, facts, facts, findings, findings)
def test_within_a_class_only_explained_points_overtake(
    policy: PriorityPolicy,
    older: StudyFacts,
    younger: StudyFacts,
    found: list[tuple[str, Finding]],
    found_in_younger: list[tuple[str, Finding]],
) -> None:
    first = placed(older, policy, found)
    second = placed(younger, policy, found_in_younger)
    came_later = younger.arrived_at - older.arrived_at
    if first.priority is not second.priority or came_later < timedelta(0):
        return
    if second.key < first.key:
        assert came_later < timedelta(minutes=second.points - first.points)
        assert sum(one.points for one in second.contributions) >= second.points > first.points


@given(policies, facts, facts, findings)
def test_nobody_waits_behind_those_who_come_more_than_the_most_points_later(
    policy: PriorityPolicy,
    older: StudyFacts,
    younger: StudyFacts,
    found: list[tuple[str, Finding]],
) -> None:
    first, second = placed(older, policy, []), placed(younger, policy, found)
    is_late = younger.arrived_at - older.arrived_at > timedelta(minutes=policy.most_points)
    if first.priority is second.priority and is_late:
        assert first.key < second.key


@given(policies, facts, findings)
def test_place_is_the_sum_of_what_explains_it(
    policy: PriorityPolicy, study: StudyFacts, found: list[tuple[str, Finding]]
) -> None:
    place = placed(study, policy, found)
    asked = [one.priority for one in place.contributions if one.priority is not None]
    assert place.priority == max(asked)
    assert place.points == min(policy.most_points, sum(one.points for one in place.contributions))
    assert place.ranked_at == study.arrived_at - timedelta(minutes=place.points)
    assert all(one.in_words() in place.in_words() for one in place.contributions)


def test_place_says_in_words_where_it_comes_from() -> None:
    study = StudyFacts(NOW - timedelta(minutes=30), patient_class="E")
    place = placed(study, SHIPPED_POLICY, [("head-ct 1.0.0", finding(volume_ml=12))])
    assert place.in_words() == (
        "order routine; Emergency patient +60; "
        "Hemorrhage, 12 mL, confidence 0.97, head-ct 1.0.0: STAT"
    )
    assert place.score(NOW) == 90
    assert place.due_at == study.arrived_at + timedelta(hours=1)


def test_long_wait_raises_class_by_class_where_the_policy_says_so() -> None:
    policy = parse_policy({"rises_after_minutes": {"low": 60, "routine": 120}})
    low = StudyFacts(NOW - timedelta(minutes=90), order=Priority.LOW)
    assert (place := place_of(low, policy, now=NOW)).priority is Priority.ROUTINE
    assert place.contributions[-1].source is Source.WAITING
    assert place.rises_at == NOW + timedelta(minutes=30)
    later = place_of(low, policy, now=NOW + timedelta(minutes=30))
    assert (later.priority, later.rises_at) == (Priority.HIGH, None)


VOLUME_RULE: dict[str, Any] = {
    "finding": "hemorrhage",
    "minimum_confidence": 0.5,
    "minimum": {"concept": 118565006, "at_least": 5, "unit": "mL"},
    "priority": "high",
    "points": 30,
}


@pytest.mark.parametrize(
    ("found", "priority", "points"),
    [
        (finding(volume_ml=12), Priority.HIGH, 30),
        (finding(volume_ml=2), None, 0),
        (finding(volume_ml=12, confidence=0.4), None, 0),
        (finding(), Priority.STAT, 0),
        (finding(key="other", volume_ml=2), Priority.STAT, 0),
    ],
    ids=["holds", "too small", "not sure", "not measured: as the manifest", "not named"],
)
def test_rule_of_a_finding_demands_a_size_and_a_confidence(
    found: Finding, priority: Priority | None, points: int
) -> None:
    asked = ai_priority([("head-ct 1.0.0", found)], parse_policy({"findings": [VOLUME_RULE]}))
    assert (asked.priority, asked.points) == (priority, points)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("most_points = -1", "most_points: Input should be greater than or equal to 0 (found -1)"),
        ("mostpoints = 1", "mostpoints: this field is unknown; did you mean 'most_points'?"),
        ('[[locations]]\nname = "X"', "locations.0: name where: add patient_classes or locations"),
        (
            '[[findings]]\nfinding = "a"\npriority = "urgent"',
            "findings.0.priority: priority 'urgent' is unknown; use one of low, routine, high, "
            "stat (found 'urgent')",
        ),
        ("[[findings]]\npoints = 1", "findings.0.finding: this field is required; add it"),
        (
            "[turnaround_minutes]\nstat = 90\nhigh = 60",
            "turnaround_minutes: stat has 90 minutes, which is longer than the 60 of high; the "
            "more urgent must be due first",
        ),
        ("[rises_after_minutes]\nstat = 9", "there is nothing above STAT; remove it"),
        ("most_points = ", "policy: this is not valid TOML"),
    ],
)
def test_wrong_policy_is_refused_with_the_field_and_the_fix(text: str, problem: str) -> None:
    with pytest.raises(PolicyError) as refused:
        policy_from_toml(text)
    assert problem in str(refused.value)


@given(policies)
def test_policy_written_as_toml_is_the_same_policy_and_can_be_added_to(
    policy: PriorityPolicy,
) -> None:
    written = policy_as_toml(policy)
    assert policy_from_toml(written) == policy
    more = policy_from_toml(f'{written}\n[[findings]]\nfinding = "new"\n')
    assert len(more.findings) == len(policy.findings) + 1
