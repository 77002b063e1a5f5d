"""How instances come in, how a sender's visit ends, and when a silence is unusual."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from statistics import median

_DAYS_COMPARED = 14
_FEWEST_DAYS = 3
_SHARE_OF_DAYS = 0.8
_SHORTEST_SILENCE = timedelta(minutes=30)
_WITHIN_A_SHIFT = timedelta(hours=6)
_SATURDAY = 5


class Way(StrEnum):
    """The way in that instances took."""

    DICOM = "dicom"
    DICOM_TLS = "dicom-tls"
    STOW = "stow"
    PULL = "pull"
    PRIORS = "priors"
    FOLDER = "folder"


class Ending(StrEnum):
    """How a visit ended.

    OPEN goes on. RELEASED is the proper end (DICOM PS3.8 7.2). ABORTED was broken off by one of the
    two. BROKEN is a connection that was gone without a word.
    """

    OPEN = "open"
    RELEASED = "released"
    ABORTED = "aborted"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Silence:
    """A sender that sends nothing at hours at which it usually does."""

    since: datetime
    usual_pause: timedelta


def unusual_silence(moments: Sequence[datetime], now: datetime) -> Silence | None:
    """Return the silence of a sender that sent at `moments`, or None where it is a usual one.

    The hours of the silence are compared with the same hours of the days before, working days with
    working days and weekends with weekends: a scanner that rests each night is not missed at night.
    Of less than three days nothing is concluded.
    """
    if not moments:
        return None
    ordered = sorted(moments)
    last = ordered[-1]
    if now - last < _SHORTEST_SILENCE:
        return None
    compared = _like_windows(ordered, last, now)
    sent_in = sum(
        bisect_left(ordered, end) > bisect_right(ordered, start) for start, end in compared
    )
    if len(compared) < _FEWEST_DAYS or sent_in < _SHARE_OF_DAYS * len(compared):
        return None
    pauses_s = [(b - a).total_seconds() for a, b in pairwise(ordered) if b - a < _WITHIN_A_SHIFT]
    usual = timedelta(seconds=median(pauses_s)) if pauses_s else timedelta(days=1)
    return Silence(last, usual)


def _like_windows(
    ordered: Sequence[datetime], last: datetime, now: datetime
) -> list[tuple[datetime, datetime]]:
    """Return the hours of the silence on the like days before, as far as the sender is known."""
    windows = []
    for days in range(1, _DAYS_COMPARED + 1):
        start, end = last - timedelta(days=days), now - timedelta(days=days)
        if start < ordered[0]:
            break
        if _is_weekend(end) is _is_weekend(now):
            windows.append((start, end))
    return windows


def _is_weekend(moment: datetime) -> bool:
    return moment.astimezone().weekday() >= _SATURDAY
