"""Attribute matching of workitems (DICOM PS3.4 C.2.2.2), for C-FIND, UPS-RS and filters.

Keys and workitems are in the DICOM JSON model. Any attribute may be a key, also in sequences.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from triage.core.dicom_json import Attributes, items_of, values_of
from triage.core.query import QueryError, date_range, time_range

_NO_KEYS = frozenset({"00080005", "00080201"})  # Specific Character Set, Timezone Offset
_NUMBERS = frozenset({"US", "SS", "UL", "SL", "IS", "DS", "FL", "FD", "UV", "SV"})
_DATE_TIME = re.compile(
    r"(?P<digits>\d{4}|\d{6}|\d{8}|\d{10}|\d{12}|\d{14})(?P<fraction>\.\d{1,6})?"
    r"(?P<offset>[+-]\d{4})?",
    re.ASCII,
)
_Test = Callable[[str], bool]
_WIDTHS_S = {8: 86400, 10: 3600, 12: 60, 14: 1}
_MICROSECOND = timedelta(microseconds=1)


def matches(workitem: Attributes, keys: Attributes) -> bool:
    """Return whether a workitem, or an item of a sequence, matches all keys.

    A key without a value is universal matching.

    Raises:
        QueryError: a key has a value that is none of its VR.
    """
    return all(_matches_key(workitem, tag, key) for tag, key in keys.items() if tag not in _NO_KEYS)


def check_keys(keys: Attributes) -> None:
    """Look at every key, also in sequences, whether or not a workitem is compared with it.

    Raises:
        QueryError: a key has a value that is none of its VR.
    """
    for tag, key in keys.items():
        if tag in _NO_KEYS:
            continue
        for item in items_of(keys, tag):
            if str(key.get("vr", "")) == "SQ":
                check_keys(item)
        _tests_of(tag, key)


def _matches_key(workitem: Attributes, tag: str, key: Mapping[str, Any]) -> bool:
    vr = str(key.get("vr", ""))
    if vr == "SQ":
        wanted = [item for item in items_of({tag: key}, tag) if _restricts(item)]
        return all(any(matches(held, item) for held in items_of(workitem, tag)) for item in wanted)
    tests = _tests_of(tag, key)
    held_values = [_text(value) for value in values_of(workitem, tag)]
    return not tests or any(test(held) for held in held_values for test in tests)


def _tests_of(tag: str, key: Mapping[str, Any]) -> list[_Test]:
    """Return a test for each value of a key; none is universal matching."""
    vr = str(key.get("vr", ""))
    if vr == "SQ":
        return []
    wanted = [_text(value) for value in values_of({tag: key}, tag)]
    return [_test_of(vr, tag, value) for value in wanted if value not in ("", "*")]


def _restricts(item: Attributes) -> bool:
    return any(values_of(item, tag) for tag in item)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):  # a person's name
        groups = [str(value.get(k, "")) for k in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    return str(value).strip()


def _test_of(vr: str, tag: str, wanted: str) -> _Test:
    """Return the function that says whether a held value matches."""
    name = f"({tag[:4]},{tag[4:]})"
    if vr == "UI":
        return lambda held: held == wanted
    if vr == "PN":
        return _name_test(wanted)
    if vr == "DT":
        first, last = _moments(name, wanted)
        return lambda held: _overlaps(held, first, last)
    if vr == "DA":
        days = date_range(name, wanted)
        return lambda held: (
            (not days.first or held >= days.first) and (not days.last or held <= days.last)
        )
    if vr == "TM":
        times = time_range(name, wanted)
        return lambda held: (
            (not times.first or held.ljust(6, "0") >= times.first)
            and (not times.last or held[: len(times.last)] <= times.last)
        )
    if vr in _NUMBERS:
        return _number_test(name, wanted)
    return lambda held: _is_like(held, wanted)


def _number_test(name: str, wanted: str) -> _Test:
    try:
        number = float(wanted)
    except ValueError as error:
        raise QueryError(f"{name} is not a number") from error
    return lambda held: _is_number(held, number)


def _is_number(held: str, number: float) -> bool:
    try:
        return float(held) == number
    except ValueError:
        return False


def _is_like(held: str, wanted: str) -> bool:
    """Match with * and ? (C.2.2.2.4), in time that grows with the product of the lengths.

    A regular expression would take exponentially long for some patterns, and patterns come from
    outside.
    """
    place, at, star, resume = 0, 0, -1, 0
    while place < len(held):
        if at < len(wanted) and wanted[at] == "*":
            star, resume, at = at, place, at + 1
        elif at < len(wanted) and wanted[at] in ("?", held[place]):
            place, at = place + 1, at + 1
        elif star >= 0:
            resume += 1
            place, at = resume, star + 1
        else:
            return False
    return not wanted[at:].strip("*")


def _name_test(wanted: str) -> _Test:
    """Match without regard to case, whole or by one component group (PS3.4 C.2.2.2.1)."""
    pattern = wanted.rstrip("^").casefold()
    return lambda held: any(
        _is_like(group.rstrip("^").casefold(), pattern) for group in (held, *held.split("="))
    )


def _moments(name: str, wanted: str) -> tuple[datetime | None, datetime | None]:
    """Return the first and the last moment of a DT key; an open end is None (C.2.2.2.5)."""
    for dash in _dashes(wanted):
        ends = wanted[:dash].strip(), wanted[dash + 1 :].strip()
        if any(ends) and all(not end or _DATE_TIME.fullmatch(end) for end in ends):
            first = _span(name, ends[0])[0] if ends[0] else None
            return first, _span(name, ends[1])[1] if ends[1] else None
    return _span(name, wanted)


def _dashes(wanted: str) -> list[int]:
    # A dash followed by four digits at the end may be an offset: then the whole is one moment.
    if _DATE_TIME.fullmatch(wanted):
        return []
    return [place for place, character in enumerate(wanted) if character == "-"]


def _span(name: str, value: str) -> tuple[datetime, datetime]:
    """Return the first and the last moment that a DT value of any precision stands for."""
    found = _DATE_TIME.fullmatch(value)
    if found is None:
        raise QueryError(f"{name} is not a date and time, or a range of them")
    digits, fraction, offset = found["digits"], found["fraction"] or "", found["offset"]
    try:
        low = datetime.strptime(  # noqa: DTZ007 - its zone follows
            digits + "00000101000000"[len(digits) :] + (fraction or ".0"), "%Y%m%d%H%M%S.%f"
        )
        # Without an offset it is local time, ours (PS3.5 6.2).
        first = low.replace(tzinfo=_zone(offset)) if offset else low.astimezone()
        last = first if fraction else first + _width(low, len(digits)) - _MICROSECOND
        return first.astimezone(UTC), last.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise QueryError(f"{name} is not a date and time, or a range of them") from error


def _width(low: datetime, digits: int) -> timedelta:
    if digits == 4:
        return low.replace(year=low.year + 1) - low
    if digits == 6:
        return timedelta(days=monthrange(low.year, low.month)[1])
    return timedelta(seconds=_WIDTHS_S[digits])


def _zone(offset: str) -> timezone:
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))


def _overlaps(held: str, first: datetime | None, last: datetime | None) -> bool:
    try:
        begins, ends = _span("", held)
    except QueryError:
        return False
    return (last is None or begins <= last) and (first is None or ends >= first)
