"""Hours of the week, over midnight and over changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import given

from triage.core.on_call import WEEKDAYS, Hours

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("moment", "is_on"),
    [
        ("2026-03-06 21:59", False),  # a Friday
        ("2026-03-06 22:00", True),
        ("2026-03-07 06:59", True),
        ("2026-03-07 07:00", False),
        ("2026-03-07 23:00", False),
    ],
)
def test_night_belongs_to_the_day_on_which_it_begins(moment: str, is_on: bool) -> None:
    night = Hours(("fri",), time(22), time(7), BERLIN)
    assert night.holds(at(moment)) is is_on


def test_night_in_which_the_clocks_change_is_an_hour_shorter() -> None:
    night = Hours(WEEKDAYS, time(22), time(7), BERLIN)
    end = night.ends_after(at("2026-03-28 22:00"))
    assert end == at("2026-03-29 07:00")
    assert end - at("2026-03-28 22:00").astimezone(UTC) == timedelta(hours=8)


@given(
    start=st.times(timezones=st.none()),
    end=st.times(timezones=st.none()),
    moment=st.datetimes(
        datetime(2026, 1, 2),  # noqa: DTZ001 - the time zone is the strategy's
        datetime(2026, 12, 30),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
)
def test_every_moment_is_in_the_hours_or_in_those_between(
    start: time, end: time, moment: datetime
) -> None:
    start, end = start.replace(fold=0), end.replace(fold=0)
    hours = Hours(WEEKDAYS, start, end, ZoneInfo("UTC"))
    between = Hours(WEEKDAYS, end, start, ZoneInfo("UTC"))
    assert hours.holds(moment) or between.holds(moment)
    ends = hours.ends_after(moment)
    assert ends is None or moment < ends <= moment + timedelta(days=1)
    assert start == end or not (hours.holds(moment) and between.holds(moment))
