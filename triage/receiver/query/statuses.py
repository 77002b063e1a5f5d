"""Statuses of the Query/Retrieve service (DICOM PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4)."""

from __future__ import annotations

from enum import IntEnum

from triage.settings import QuerySettings


class QueryStatus(IntEnum):
    """What C-FIND, C-MOVE and C-GET are answered with."""

    SUCCESS = 0x0000
    NOT_AUTHORIZED = 0x0124
    CANNOT_COUNT_MATCHES = 0xA701
    CANNOT_PERFORM_SUB_OPERATIONS = 0xA702
    MOVE_DESTINATION_UNKNOWN = 0xA801
    IDENTIFIER_DOES_NOT_MATCH = 0xA900
    SUB_OPERATIONS_FAILED = 0xB000
    UNABLE_TO_PROCESS = 0xC000
    CANCEL = 0xFE00
    PENDING = 0xFF00


def may_ask(settings: QuerySettings, calling_ae_title: str) -> bool:
    """Return whether a calling AE title may query and retrieve."""
    allowed = {title.strip() for title in settings.allowed_calling_ae_titles}
    return not allowed or calling_ae_title.strip() in allowed
