"""When a study counts as complete."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from triage.core.completeness import Arrival, QuietPeriods, completion_reason

LAST = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUIET = QuietPeriods(30.0, {"CT": 5.0, "MR": 10.0})
modalities = st.frozensets(st.sampled_from(["CT", "MR", "SR", "DX"]))
seconds = st.floats(0, 1000, allow_nan=False)


def reason_after(seconds: float, found: frozenset[str], open_associations: int = 0) -> str | None:
    """Return the reason `seconds` after the last image."""
    arrival = Arrival(found, LAST, open_associations)
    return completion_reason(arrival, QUIET, LAST + timedelta(seconds=seconds))


def test_reason_says_how_long_it_was_quiet() -> None:
    assert reason_after(4.9, frozenset({"CT"})) is None
    assert reason_after(5, frozenset({"CT"})) == "association released and no image for 5 s"


def test_the_slowest_modality_of_the_study_decides() -> None:
    assert QUIET.for_modalities(frozenset({"CT", "MR"})) == timedelta(seconds=10)
    assert QUIET.for_modalities(frozenset({"CT", "SR"})) == timedelta(seconds=30)
    assert QUIET.for_modalities(frozenset()) == timedelta(seconds=30)


@given(modalities, seconds, st.integers(1, 5))
def test_never_complete_while_an_association_is_open(
    found: frozenset[str], after: float, open_associations: int
) -> None:
    assert reason_after(after, found, open_associations) is None


@given(modalities, seconds, seconds)
def test_once_complete_it_stays_so_until_another_image(
    found: frozenset[str], after: float, more: float
) -> None:
    if reason_after(after, found) is not None:
        assert reason_after(after + more, found) is not None


@given(modalities, seconds)
def test_never_complete_before_the_shortest_quiet_period(
    found: frozenset[str], after: float
) -> None:
    if reason_after(after, found) is not None:
        assert timedelta(seconds=after) >= QUIET.shortest
