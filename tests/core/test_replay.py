"""The same readings in another order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from triage.core.replay import Waiting, replay

NOON = datetime(2024, 5, 6, 12, 0, tzinfo=UTC)


def at(minutes: int) -> datetime:
    """Return a moment, in minutes after noon."""
    return NOON + timedelta(minutes=minutes)


@st.composite
def studies(draw: st.DrawFn) -> list[Waiting]:
    """Draw studies that come at their own moments, some flagged later."""
    found = []
    for number, (minute, group, flag) in enumerate(
        draw(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 3), st.integers(-1, 60))))
    ):
        key = (-group, at(minute))
        is_flagged = flag >= 0
        found.append(
            Waiting(
                number,
                at(minute),
                key,
                at(minute + flag) if is_flagged else None,
                (-3, at(minute)) if is_flagged else None,
            )
        )
    return found


readings = st.lists(st.integers(0, 200).map(at), max_size=30)


@given(studies(), readings)
def test_each_reading_reads_one_study_that_is_there(
    waiting: list[Waiting], moments: list[datetime]
) -> None:
    read = replay(waiting, moments)
    arrived = {one.study: one.arrived_at for one in waiting}
    assert all(moment >= arrived[study] for study, moment in read.items())
    assert len(read) <= min(len(waiting), len(moments))
    late = [m for m in moments if m >= at(100)]
    assert len(read) >= min(len(waiting), len(late))


@given(studies(), readings)
def test_who_is_read_first_stood_first(waiting: list[Waiting], moments: list[datetime]) -> None:
    read = replay([one for one in waiting if one.flagged_at is None], moments)
    of_study = {one.study: one for one in waiting}
    for study, moment in read.items():
        for other in waiting:
            was_there = other.flagged_at is None and other.arrived_at <= moment
            if was_there and read.get(other.study, at(1000)) > moment:
                assert of_study[study].key <= other.key


def test_a_flag_counts_from_when_it_was_raised() -> None:
    first = Waiting(1, at(0), (-1, at(0)))
    flagged = Waiting(2, at(1), (-1, at(1)), at(30), (-3, at(1)))
    assert replay([first, flagged], [at(10), at(40)]) == {1: at(10), 2: at(40)}
    third = Waiting(3, at(2), (-1, at(2)))
    assert replay([flagged, first, third], [at(40)]) == {2: at(40)}
