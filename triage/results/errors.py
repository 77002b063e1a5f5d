"""What can go wrong between a finding and the archive."""

from __future__ import annotations

from datetime import timedelta

from triage.core.analysis import AnalysisFailedError
from triage.core.errors import TriageError


class ResultError(AnalysisFailedError):
    """The result objects of an analysis cannot be made; the message says of which and why."""


class DeliveryError(TriageError):
    """A destination did not take an object or a notice.

    Attributes:
        is_permanent: whether the same would be refused again whenever it is sent, so that only a
            person can help.
        retry_after: how long the destination asks to be left alone, where it says so.
    """

    def __init__(
        self, message: str, *, is_permanent: bool, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(message)
        self.is_permanent = is_permanent
        self.retry_after = retry_after
