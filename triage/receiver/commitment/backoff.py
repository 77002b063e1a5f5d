"""How long to wait before another attempt."""

from __future__ import annotations

from datetime import timedelta

from triage.core.backoff import pause_s
from triage.settings import CommitmentSettings


def retry_after(attempt: int, settings: CommitmentSettings) -> timedelta:
    """Return the pause after the failed `attempt`, counted from 1; it doubles with each.

    >>> retry_after(3, CommitmentSettings(first_retry_s=5))
    datetime.timedelta(seconds=20)
    """
    return timedelta(
        seconds=pause_s(attempt, first_s=settings.first_retry_s, longest_s=settings.longest_retry_s)
    )
