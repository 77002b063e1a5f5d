"""Answers to N-ACTION and N-EVENT-REPORT (DICOM PS3.7 10.1.1.1.8, 10.1.4.1.10)."""

from __future__ import annotations

from pydicom.dataset import Dataset

from triage.receiver.statuses import NormalizedStatus, error_comment

Answer = tuple[Dataset, None]


def answer(status: NormalizedStatus, comment: str = "") -> Answer:
    """Return the response that pynetdicom's handlers give."""
    response = Dataset()
    response.Status = int(status)
    if comment:
        response.ErrorComment = error_comment(comment)
    return response, None
