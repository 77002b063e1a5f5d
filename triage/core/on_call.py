"""Hours of the week, as people say them: on duty, or not to be disturbed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Hours:
    """A stretch of local time on some weekdays.

    It belongs to the day on which it begins: from 22:00 to 07:00 on "fri" ends on Saturday. Where
    `start` and `end` are the same it is the whole day. The clocks of `zone` count, so a night in
    which they are changed is an hour shorter or longer.

    >>> night = Hours(("fri",), time(22), time(7), ZoneInfo("Europe/Berlin"))
    >>> night.holds(datetime(2026, 3, 7, 3, tzinfo=ZoneInfo("Europe/Berlin")))
    True
    """

    weekdays: Collection[str]
    start: time
    end: time
    zone: ZoneInfo

    def holds(self, at: datetime) -> bool:
        """Return whether the moment is in these hours."""
        return self.ends_after(at) is not None

    def ends_after(self, at: datetime) -> datetime | None:
        """Return the end of these hours where the moment is in them, else None."""
        ends = [end for start, end in self._around(at) if start <= at < end]
        return max(ends, default=None)

    def _around(self, at: datetime) -> Iterator[tuple[datetime, datetime]]:
        today = at.astimezone(self.zone).date()
        for day in (today - timedelta(days=1), today):
            if WEEKDAYS[day.weekday()] in self.weekdays:
                ends_on = day if self.end > self.start else day + timedelta(days=1)
                yield self._moment(day, self.start), self._moment(ends_on, self.end)

    def _moment(self, day: date, clock: time) -> datetime:
        return datetime.combine(day, clock, self.zone).astimezone(ZoneInfo("UTC"))
