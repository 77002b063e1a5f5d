"""When a sender is unusually silent."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from triage.core.visits import unusual_silence

WEDNESDAY = datetime(2026, 3, 18, 14, 0).astimezone()
TEN_MINUTES = timedelta(minutes=10)


def by_day(now: datetime, *, days: int, first_hour: int = 8, last_hour: int = 18) -> list[datetime]:
    """Return a moment every ten minutes between two hours of each of the days until `now`."""
    moments = []
    for day in range(days, -1, -1):
        at = (now - timedelta(days=day)).replace(hour=first_hour, minute=0)
        while at.hour < last_hour and at <= now:
            moments.append(at)
            at += TEN_MINUTES
    return moments


def test_silence_at_hours_at_which_it_sends_is_unusual() -> None:
    sent = [m for m in by_day(WEDNESDAY, days=13) if m <= WEDNESDAY - timedelta(hours=3)]
    silence = unusual_silence(sent, WEDNESDAY)
    assert silence is not None
    assert silence.since == WEDNESDAY - timedelta(hours=3)
    assert silence.usual_pause == TEN_MINUTES


@pytest.mark.parametrize(
    ("now", "days"),
    [
        (WEDNESDAY.replace(hour=23), 13),  # it rests at night
        (WEDNESDAY.replace(hour=14, minute=20), 13),  # a pause like others
        (WEDNESDAY, 1),  # it is hardly known
    ],
)
def test_silence_like_others_is_none(now: datetime, days: int) -> None:
    cut = min(now, WEDNESDAY) if now.hour != 23 else now
    assert unusual_silence([m for m in by_day(now, days=days) if m <= cut], now) is None


def test_weekend_is_compared_with_weekends() -> None:
    sunday = datetime(2026, 3, 15, 14, 0).astimezone()
    workdays = [m for m in by_day(sunday, days=16) if m.weekday() < 5]
    assert unusual_silence(workdays, sunday) is None


def test_sender_that_never_sent_is_not_silent() -> None:
    assert unusual_silence([], WEDNESDAY) is None
