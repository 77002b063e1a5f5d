"""What an audit event says: who saw or did what, to whose images, when and from where."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Literal

Action = Literal["C", "R", "U", "D", "E"]
"""Create, read, update, delete, execute (EventActionCode, DICOM PS3.15 A.5.2.2)."""

LONGEST_DETAIL = 2000


class AuditKind(StrEnum):
    """The events of DICOM PS3.15 A.5.3 that Triage records."""

    APPLICATION = "application"
    AUTHENTICATION = "authentication"
    INSTANCES_ACCESSED = "accessed"
    TRANSFERRED = "transferred"
    QUERY = "query"
    EXPORT = "export"
    AUDIT_LOG_USED = "audit-log-used"
    SECURITY_ALERT = "security-alert"


class Outcome(IntEnum):
    """EventOutcomeIndicator (DICOM PS3.15 A.5.2.2)."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """An entry of the audit trail.

    Attributes:
        uid: its own identity.
        at: when it happened.
        kind: the event of DICOM PS3.15 A.5.3.
        type: our own word for what was done, such as "log-in".
        action: whether something was created, read, changed, deleted or executed.
        outcome: whether it was done.
        who: the name of the person or program, "" where nobody said who it is.
        way: how that is known: "session", "token", "proxy", "program" or "open".
        address: the network address that it came from.
        study_instance_uid: the study that it was about, "" for none or several.
        studies: the studies that a list showed.
        detail: a search's parameters, or why something was refused.
    """

    uid: str
    at: datetime
    kind: AuditKind
    type: str
    action: Action = "R"
    outcome: Outcome = Outcome.SUCCESS
    who: str = ""
    way: str = ""
    address: str = ""
    study_instance_uid: str = ""
    studies: tuple[str, ...] = ()
    detail: str = ""

    def shortened(self) -> AuditEvent:
        """Return the event with what may be long cut to what the trail keeps."""
        return replace(
            self,
            type=self.type[:128],
            who=self.who[:128],
            address=self.address[:64],
            study_instance_uid=self.study_instance_uid[:64],
            detail=self.detail[:LONGEST_DETAIL],
        )
