"""Proportions and their intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from triage.core.errors import TriageError


class ProportionError(TriageError):
    """Counts that are no proportion."""


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval, both ends included."""

    low: float
    high: float

    def is_apart_from(self, other: Interval) -> bool:
        """Return whether the two have no value in common."""
        return self.low > other.high or other.low > self.high


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval | None:
    """Return the score interval of a proportion (Wilson, JASA 22:209, 1927); None for no trial.

    Raises:
        ProportionError: there are more successes than trials, or fewer than none.
    """
    if not 0 <= successes <= trials:
        raise ProportionError(f"{successes} of {trials} is not a proportion.")
    if trials == 0:
        return None
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / trials
    middle = share + z * z / (2 * trials)
    margin = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return Interval(max(0.0, (middle - margin) / scale), min(1.0, (middle + margin) / scale))
