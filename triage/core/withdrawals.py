"""Why a result is taken back, and what an archive is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from triage.core.codes import Code

WithdrawalRole = Literal["rejection-note", "withdrawal-sr"]
"""What the objects of a withdrawal are in the outbox, beside those of the result itself."""

WITHDRAWAL_ROLES: tuple[WithdrawalRole, ...] = ("withdrawal-sr", "rejection-note")

_QUALITY = Code(value="113001", scheme="DCM", meaning="Rejected for Quality Reasons")
_SAFETY = Code(value="113037", scheme="DCM", meaning="Rejected for Patient Safety Reasons")
_WORKLIST = Code(value="113038", scheme="DCM", meaning="Incorrect Modality Worklist Entry")


class WithdrawalReason(StrEnum):
    """Why a result is taken back. SUPERSEDED is Triage's own; the others a person chooses."""

    WRONG_RESULT = "wrong-result"
    POOR_IMAGES = "poor-images"
    WRONG_IMAGES = "wrong-images"
    SOFTWARE_FAILURE = "software-failure"
    WRONG_PATIENT = "wrong-patient"
    PATIENT_SAFETY = "patient-safety"
    OTHER = "other"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Rejection:
    """What a rejection note says: its title and, for quality reasons, which (IHE RAD IOCM).

    Attributes:
        words: the reason as a person reads it.
        title: document title, DICOM PS3.16 CID 7010.
        quality: the quality reason, CID 7011; only beside "Rejected for Quality Reasons", which
            needs one.
    """

    words: str
    title: Code
    quality: Code | None = None


def _quality(words: str, value: str, meaning: str) -> Rejection:
    return Rejection(words, _QUALITY, Code(value=value, scheme="DCM", meaning=meaning))


_REJECTIONS: dict[WithdrawalReason, Rejection] = {
    WithdrawalReason.WRONG_RESULT: _quality(
        "the result is wrong", "111219", "Inappropriate image processing"
    ),
    WithdrawalReason.POOR_IMAGES: _quality(
        "the images are not fit for it", "111207", "Image artifact(s)"
    ),
    WithdrawalReason.WRONG_IMAGES: _quality(
        "the wrong images were analysed", "111220", "Other failure"
    ),
    WithdrawalReason.SOFTWARE_FAILURE: _quality(
        "the software failed", "111218", "Software failure"
    ),
    WithdrawalReason.WRONG_PATIENT: Rejection(
        "the images are another patient's or order's", _WORKLIST
    ),
    WithdrawalReason.PATIENT_SAFETY: Rejection("it may harm the patient", _SAFETY),
    WithdrawalReason.OTHER: _quality("another reason", "111220", "Other failure"),
    WithdrawalReason.SUPERSEDED: _quality("the study has changed since", "111220", "Other failure"),
}

BARRED_REASONS = tuple(r for r, said in _REJECTIONS.items() if said.title is not _QUALITY)
"""Those for which what was rejected is given to nobody (IHE RAD TF-3 4.66.4.1.3): for reasons of
quality one who names it may still look at it."""

PERSONAL_REASONS = tuple(r for r in WithdrawalReason if r is not WithdrawalReason.SUPERSEDED)
"""Those that a person chooses from."""


def rejection_for(reason: WithdrawalReason) -> Rejection:
    """Return what is said of a reason.

    >>> str(rejection_for(WithdrawalReason.PATIENT_SAFETY).title)
    '(113037, DCM, "Rejected for Patient Safety Reasons")'
    """
    return _REJECTIONS[reason]


class WithdrawalState(StrEnum):
    """Whether the archives' part of a withdrawal is done.

    It is WAITING until its objects are built, and DONE when they are in the outbox, or when there
    is nothing that an archive could have.
    """

    WAITING = "waiting"
    DONE = "done"
