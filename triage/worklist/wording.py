"""DICOM's names and dates as people write them."""

from __future__ import annotations

import re

_SERIES_UID = re.compile(r"series \d+(?:\.\d+){3,}")
_NO_PATIENT_ID = re.compile(r"^\(none\) ")


def person_name(value: str) -> str:
    """Return a Person Name (DICOM PS3.5 6.2.1) as it is read aloud from a list.

    The alphabetic group is taken, or the first one that says anything.

    >>> person_name("Lovelace^Ada^^Dr")
    'Lovelace, Ada'
    >>> person_name("=\\u5c71\\u7530^\\u592a\\u90ce")
    '\\u5c71\\u7530, \\u592a\\u90ce'
    >>> person_name("")
    'No name'
    """
    groups = [group for group in value.split("=") if group.strip("^ ")]
    if not groups:
        return "No name"
    parts = [part.strip() for part in groups[0].split("^")]
    family, given = parts[0], " ".join(part for part in parts[1:3] if part)
    return ", ".join(part for part in (family, given) if part) or groups[0].strip("^ ")


def patient_identifier(value: str) -> str:
    """Return the Patient ID, empty where the images have none.

    The store names such patients by their study, because two of them cannot be known to be one.
    """
    return "" if _NO_PATIENT_ID.match(value) else value


def calendar_date(value: str) -> str:
    """Return a DICOM date (DA) as ISO 8601; what is not a date stays as it is.

    >>> calendar_date("20260301")
    '2026-03-01'
    """
    digits = value.replace(".", "")
    if len(digits) == 8 and digits.isdigit():
        return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"
    return value


def clock_time(value: str) -> str:
    """Return a DICOM time (TM) to the minute.

    >>> clock_time("083015.123")
    '08:30'
    """
    return f"{value[:2]}:{value[2:4]}" if len(value) >= 4 and value[:4].isdigit() else value


def without_series_uids(text: str) -> str:
    """Return the text without the UIDs that stand for series which have no description.

    >>> without_series_uids("series 1.2.840.10008.1: modality US")
    'unnamed series: modality US'
    """
    return _SERIES_UID.sub("unnamed series", text)


def duration(seconds: float) -> str:
    """Return a duration with the two units that matter.

    >>> [duration(s) for s in (0.21, 42, 300, 4000, 200000)]
    ['0.2 s', '42 s', '5 min', '1 h 06 min', '2 d 7 h']
    """
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{days} d {hours % 24} h"
