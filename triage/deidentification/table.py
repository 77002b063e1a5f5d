"""Table E.1-1 of DICOM PS3.15: what the Basic Profile does with each attribute.

The table is that of `dicom-anonymizer`, which follows the standard's editions. Its own way of
carrying it out is not used: it looks at the first level only, gives random UIDs, and leaves dates.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom.tag import BaseTag

EDITION = "2026c"


class Action(Enum):
    """What becomes of an attribute, in the letters of PS3.15 table E.1-1a."""

    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    UID = "U"
    CLEAN = "C"


_CATEGORIES = {
    # Of several letters the one that keeps the object valid, whatever its IOD (E.1.1, note 1).
    "D_TAGS": Action.DUMMY,
    "Z_TAGS": Action.EMPTY,
    "X_TAGS": Action.REMOVE,
    "U_TAGS": Action.UID,
    "Z_D_TAGS": Action.DUMMY,
    "X_Z_TAGS": Action.EMPTY,
    "X_D_TAGS": Action.DUMMY,
    "X_Z_D_TAGS": Action.DUMMY,
    "X_Z_U_STAR_TAGS": Action.CLEAN,
}
_CONTENT_SEQUENCE = 0x0040A730
_IDENTITY_REMOVED = {0x00120062, 0x00120063, 0x00120064, 0x00280303}

PATIENT_CHARACTERISTICS = frozenset(
    {
        "EthnicGroup",
        "PatientAge",
        "PatientSex",
        "PatientSexNeutered",
        "PatientSize",
        "PatientWeight",
        "PregnancyStatus",
        "SmokingStatus",
    }
)
"""What the Retain Patient Characteristics Option keeps (column of table E.1-1, letter K)."""


@lru_cache(maxsize=1)
def _table() -> tuple[dict[int, Action], tuple[tuple[int, int], ...]]:
    database = dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    single: dict[int, Action] = {}
    repeating = []
    for category, action in _CATEGORIES.items():
        for tag in database[category]:
            number = tag[0] << 16 | tag[1]
            if len(tag) == 2:
                single[number] = action
            else:
                repeating.append((number, tag[2] << 16 | tag[3]))
    # Content trees are cleaned item by item (Clean Structured Content Option).
    single[_CONTENT_SEQUENCE] = Action.CLEAN
    return single, tuple(repeating)


def action_for(tag: BaseTag) -> Action | None:
    """Return what becomes of the attribute, None where the table does not name it."""
    if tag.is_private:
        return Action.REMOVE
    if tag in _IDENTITY_REMOVED:
        return None
    single, repeating = _table()
    if any(tag & mask == number & mask for number, mask in repeating):
        return Action.REMOVE
    return single.get(tag)
