"""What can be wrong with a message, told apart as an acknowledgement tells it apart."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from triage.core.errors import TriageError


class ErrorCode(StrEnum):
    """HL7 table 0357, Message Error Condition Codes."""

    SEGMENT_SEQUENCE = "100"
    REQUIRED_FIELD_MISSING = "101"
    DATA_TYPE = "102"
    TABLE_VALUE = "103"
    UNSUPPORTED_TYPE = "200"
    UNSUPPORTED_EVENT = "201"
    UNSUPPORTED_PROCESSING_ID = "202"
    UNSUPPORTED_VERSION = "203"
    UNKNOWN_KEY = "204"
    INTERNAL = "207"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a message: a segment, its number among those of its name, and a field from 1."""

    segment: str
    field: int | None = None
    number: int = 1

    def __str__(self) -> str:
        which = f"[{self.number}]" if self.number > 1 else ""
        field = "" if self.field is None else f"-{self.field}"
        return f"{self.segment}{which}{field}"


class Hl7Error(TriageError):
    """A message cannot be taken; says where, and why in words.

    Attributes:
        place: the segment and field.
        code: what is wrong by table 0357.
        is_rejected: whether the message as such is refused (AR), not its content (AE).
    """

    def __init__(
        self,
        message: str,
        place: Place,
        code: ErrorCode,
        *,
        is_rejected: bool = False,
    ) -> None:
        super().__init__(f"{place}: {message}")
        self.place = place
        self.code = code
        self.is_rejected = is_rejected
