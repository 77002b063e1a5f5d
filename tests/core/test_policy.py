"""From findings to the AI's priority."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from triage.core.codes import HEMORRHAGE_MORPHOLOGY, MILLILITRE, VOLUME
from triage.core.findings import Finding, Measurement
from triage.core.policy import ai_priority
from triage.core.priority import Priority
from triage.core.priority_policy import parse_policy


def finding(
    *,
    present: bool = True,
    priority: Priority = Priority.STAT,
    confidence: float = 0.97,
    key: str = "hemorrhage",
    volume_ml: float | None = None,
) -> Finding:
    """Return a finding of hemorrhage."""
    measured = [] if volume_ml is None else [(VOLUME, volume_ml, MILLILITRE)]
    return Finding(
        key=key,
        code=HEMORRHAGE_MORPHOLOGY,
        present=present,
        confidence=confidence,
        priority=priority,
        measurements=tuple(Measurement(concept=c, value=v, unit=u) for c, v, u in measured),
    )


findings = st.builds(
    finding,
    present=st.booleans(),
    priority=st.sampled_from(list(Priority)),
    confidence=st.floats(0, 1),
    key=st.sampled_from(["a", "b", "c"]),
)
pairs = st.lists(st.tuples(st.sampled_from(["one 1.0.0", "two 1.0.0"]), findings))


def test_reason_names_finding_size_confidence_and_model() -> None:
    asked = ai_priority([("head-ct 1.0.0", finding(volume_ml=12.3))])
    assert asked.priority is Priority.STAT
    assert asked.reason == "Hemorrhage, 12.3 mL, confidence 0.97, head-ct 1.0.0"


def test_nothing_present_asks_for_nothing() -> None:
    asked = ai_priority([("m 1.0.0", finding(present=False))])
    assert (asked.priority, asked.reason) == (None, "")


def test_only_findings_of_the_highest_priority_are_in_the_reason_surest_first() -> None:
    asked = ai_priority(
        [
            ("m 1.0.0", finding(priority=Priority.HIGH, confidence=0.99)),
            ("m 1.0.0", finding(confidence=0.6)),
            ("n 1.0.0", finding(confidence=0.8)),
        ]
    )
    assert (
        asked.reason == "Hemorrhage, confidence 0.80, n 1.0.0; Hemorrhage, confidence 0.60, m 1.0.0"
    )


def test_reason_names_the_finding_that_brings_the_points() -> None:
    policy = parse_policy({"findings": [{"finding": "b", "points": 30}]})
    found = [("m 1.0.0", finding(key="a")), ("n 1.0.0", finding(key="b", confidence=0.6))]
    asked = ai_priority(found, policy)
    assert (asked.priority, asked.points) == (Priority.STAT, 30)
    assert asked.reason == (
        "Hemorrhage, confidence 0.97, m 1.0.0; Hemorrhage, confidence 0.60, n 1.0.0"
    )


@given(pairs)
def test_priority_is_the_highest_that_a_present_finding_asks_for(
    found: list[tuple[str, Finding]],
) -> None:
    wanted = [f.priority for _, f in found if f.present and f.priority > Priority.ROUTINE]
    asked = ai_priority(found)
    assert asked.priority == max(wanted, default=None)
    assert bool(asked.reason) == bool(wanted)


@given(pairs, st.randoms())
def test_priority_does_not_depend_on_the_order_of_findings(
    found: list[tuple[str, Finding]],
    random: object,
) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert ai_priority(shuffled).priority == ai_priority(found).priority


@given(pairs, findings)
def test_one_more_finding_never_lowers_the_priority(
    found: list[tuple[str, Finding]], more: Finding
) -> None:
    before = ai_priority(found).priority
    after = ai_priority([*found, ("more 1.0.0", more)]).priority
    assert (after or Priority.LOW) >= (before or Priority.LOW)
