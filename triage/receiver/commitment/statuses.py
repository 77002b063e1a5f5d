"""Statuses of N-ACTION and N-EVENT-REPORT (DICOM PS3.7 10.1.1.1.8, 10.1.4.1.10)."""

from __future__ import annotations

from enum import IntEnum

from pydicom.dataset import Dataset

_LONGEST_COMMENT = 64  # Error Comment (0000,0902) is LO

Answer = tuple[Dataset, None]


class NormalizedStatus(IntEnum):
    """What requests of the normalized services are answered with."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_SOP_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    INVALID_ARGUMENT_VALUE = 0x0115
    NO_SUCH_ACTION = 0x0123


def answer(status: NormalizedStatus, comment: str = "") -> Answer:
    """Return the response that pynetdicom's handlers give."""
    response = Dataset()
    response.Status = int(status)
    if comment:
        response.ErrorComment = comment[:_LONGEST_COMMENT]
    return response, None
