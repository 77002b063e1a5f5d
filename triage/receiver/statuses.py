"""What requests of the normalized services are answered with, and how long an answer may be."""

from __future__ import annotations

from enum import IntEnum

_LONGEST_COMMENT = 64


class NormalizedStatus(IntEnum):
    """Statuses of N-CREATE, N-SET, N-ACTION and N-EVENT-REPORT (DICOM PS3.7 annex C)."""

    SUCCESS = 0x0000
    INVALID_ATTRIBUTE_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    INVALID_ARGUMENT_VALUE = 0x0115
    INVALID_OBJECT_INSTANCE = 0x0117
    MISSING_ATTRIBUTE = 0x0120
    NO_SUCH_ACTION = 0x0123
    RESOURCE_LIMITATION = 0x0213


def error_comment(text: str) -> str:
    """Return as much of `text` as Error Comment (0000,0902), an LO of the command set, can hold.

    >>> error_comment("Größe")
    'Gr??e'
    """
    return text.encode("ascii", "replace").decode()[:_LONGEST_COMMENT]
