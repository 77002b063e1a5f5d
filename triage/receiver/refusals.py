"""Why an instance is not stored, as the status of the C-STORE response."""

from __future__ import annotations

from enum import IntEnum

from triage.core.errors import TriageError
from triage.receiver.statuses import error_comment


class StorageStatus(IntEnum):
    """The statuses that this receiver answers with (DICOM PS3.4 B.2.3, PS3.7 annex C)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    INVALID_SOP_INSTANCE = 0x0117
    OUT_OF_RESOURCES = 0xA700
    DOES_NOT_MATCH_SOP_CLASS = 0xA900
    CANNOT_UNDERSTAND = 0xC000


class ReceiverError(TriageError):
    """The receiver cannot run; the message says why and what to do."""


class RefusedInstanceError(Exception):
    """The instance is not stored; `status` and `comment` are what its sender is told.

    The comment names attributes and reasons, never their values: it ends up in senders' logs.
    """

    def __init__(self, status: StorageStatus, comment: str) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = error_comment(comment)
