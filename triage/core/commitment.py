"""Storage commitment: who has taken responsibility for an instance (DICOM PS3.4 annex J)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

STORAGE_COMMITMENT_PUSH_MODEL = "1.2.840.10008.1.20.1"
"""The SOP class of storage commitment requests (DICOM PS3.4 J.3)."""
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
"""The well-known SOP instance that requests are sent to (DICOM PS3.4 J.3.5)."""


class CommitmentState(StrEnum):
    """Where the commitment of one instance by one archive stands.

    WAITING is to be asked. ASKED is with the archive, whose report is awaited. FAILED has a
    reason; a new request makes it WAITING again.
    """

    WAITING = "waiting"
    ASKED = "asked"
    COMMITTED = "committed"
    FAILED = "failed"


class ReportState(StrEnum):
    """Where the answer to a commitment request of another system stands."""

    WAITING = "waiting"
    REPORTED = "reported"
    DEAD = "dead"


class FailureReason(IntEnum):
    """Failure Reason (0008,1197) of an instance that is not committed (DICOM PS3.3 C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    REFERENCED_SOP_CLASS_NOT_SUPPORTED = 0x0122
    DUPLICATE_TRANSACTION_UID = 0x0131
    RESOURCE_LIMITATION = 0x0213


_WORDS = {
    FailureReason.PROCESSING_FAILURE: "processing failure",
    FailureReason.NO_SUCH_OBJECT_INSTANCE: "no such object instance",
    FailureReason.CLASS_INSTANCE_CONFLICT: "class / instance conflict",
    FailureReason.REFERENCED_SOP_CLASS_NOT_SUPPORTED: "SOP class not supported",
    FailureReason.DUPLICATE_TRANSACTION_UID: "duplicate transaction UID",
    FailureReason.RESOURCE_LIMITATION: "resource limitation",
}


def failure_in_words(reason: int) -> str:
    """Return a Failure Reason as people read it.

    >>> failure_in_words(0x0112)
    '0x0112 no such object instance'
    """
    words = _WORDS[FailureReason(reason)] if reason in set(FailureReason) else "failure"
    return f"0x{reason:04X} {words}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A SOP instance, as Referenced SOP Sequence (0008,1199) names one."""

    sop_class_uid: str
    sop_instance_uid: str
