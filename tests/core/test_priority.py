"""Priority: AI only ever raises a study."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.core.priority import Priority, effective_priority

priorities = st.sampled_from(list(Priority))


@given(priorities, st.none() | priorities)
def test_effective_priority_is_never_below_the_order(order: Priority, ai: Priority | None) -> None:
    effective = effective_priority(order, ai)
    assert effective >= order
    assert effective in (order, ai)


@given(priorities, priorities, priorities)
def test_more_urgent_findings_never_give_a_less_urgent_study(
    order: Priority, one: Priority, other: Priority
) -> None:
    lower, higher = sorted((one, other))
    assert effective_priority(order, lower) <= effective_priority(order, higher)


@given(priorities)
def test_a_priority_is_parsed_from_its_own_name(priority: Priority) -> None:
    assert Priority.parse(f" {priority.name.lower()} ") is priority


def test_an_unknown_priority_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="use one of low, routine, high, stat"):
        Priority.parse("urgent")


@pytest.mark.parametrize(
    ("stated", "priority"),
    [
        (None, Priority.ROUTINE),
        ("", Priority.ROUTINE),
        ("MEDIUM", Priority.ROUTINE),
        ("unheard of", Priority.ROUTINE),
        ("high ", Priority.HIGH),
        ("STAT", Priority.STAT),
        ("LOW", Priority.LOW),
    ],
)
def test_priority_of_an_order(stated: str | None, priority: Priority) -> None:
    assert Priority.of_order(stated) is priority


@given(st.text())
def test_any_text_in_an_order_gives_a_priority(stated: str) -> None:
    assert Priority.of_order(stated) in Priority


def test_labels_are_what_the_worklist_shows() -> None:
    assert [p.label for p in Priority] == ["Low", "Routine", "High", "STAT"]
