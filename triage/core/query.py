"""What a query of the Query/Retrieve service asks for (DICOM PS3.4 annex C)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from triage.core.errors import TriageError


class Level(StrEnum):
    """Query/Retrieve Level (0008,0052)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"

    @property
    def depth(self) -> int:
        """How far below the patient the level is."""
        return list(Level).index(self)


UNIQUE_KEYS: Mapping[Level, str] = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}
"""The unique key of each level (DICOM PS3.4 C.6.1.1, C.6.2.1)."""


class QueryError(TriageError):
    """The identifier cannot be answered; the message names the attribute, never its value."""


@dataclass(frozen=True, slots=True)
class Query:
    """An identifier: the level that is asked for, and a key for each attribute.

    Attributes:
        level: what one match is.
        keys: by DICOM keyword the values that may match; no value is universal matching.
    """

    level: Level
    keys: Mapping[str, tuple[str, ...]]

    def values(self, keyword: str) -> tuple[str, ...]:
        """Return the values of a key, none where it is absent or matches everything."""
        return tuple(value for value in self.keys.get(keyword, ()) if value not in ("", "*"))


@dataclass(frozen=True, slots=True)
class Range:
    """The first and the last value that match; an empty end is open."""

    first: str
    last: str


_DATE = re.compile(r"\d{8}", re.ASCII)
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?", re.ASCII)


def date_range(keyword: str, value: str) -> Range:
    """Return the days that match a DA key (DICOM PS3.4 C.2.2.2.1, C.2.2.2.5).

    >>> date_range("StudyDate", "20260101-")
    Range(first='20260101', last='')

    Raises:
        QueryError: the value is neither a date nor a range of dates.
    """
    return _range(keyword, value.replace(".", ""), _DATE, "a date (YYYYMMDD) or a range of dates")


def time_range(keyword: str, value: str) -> Range:
    """Return the times of day that match a TM key; 10 stands for all of 10:00 to 10:59.

    >>> time_range("StudyTime", "10-1130")
    Range(first='10', last='1130')

    Raises:
        QueryError: the value is neither a time nor a range of times.
    """
    return _range(keyword, value.replace(":", ""), _TIME, "a time (HHMMSS) or a range of times")


def _range(keyword: str, value: str, form: re.Pattern[str], what: str) -> Range:
    first, dash, last = (part.strip() for part in value.partition("-"))
    if not dash:
        last = first
    ends = [end for end in (first, last) if end]
    if not ends or not all(form.fullmatch(end) for end in ends):
        raise QueryError(f"{keyword} is not {what}")
    return Range(first, last)
