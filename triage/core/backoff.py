"""How long to wait before another attempt."""

from __future__ import annotations

_MOST_DOUBLINGS = 30


def pause_s(attempt: int, *, first_s: float, longest_s: float) -> float:
    """Return the seconds to wait after the failed `attempt`, counted from 1; doubles with each.

    >>> [pause_s(attempt, first_s=5, longest_s=30) for attempt in (1, 2, 3, 4)]
    [5.0, 10.0, 20.0, 30]
    """
    return min(first_s * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS), longest_s)
