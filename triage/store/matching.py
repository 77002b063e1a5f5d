"""Attribute matching of queries as SQL (DICOM PS3.4 C.2.2.2).

Values only ever travel as bound parameters, and what has a meaning in a pattern is escaped.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, String, and_, func, literal, or_
from sqlalchemy.orm import InstrumentedAttribute

from triage.core.query import QueryError, date_range, time_range

Column = ColumnElement[Any] | InstrumentedAttribute[Any]

_ESCAPE = "\\"
_LONGEST_GROUP_PADDING = 4  # a component group of a name has five components at most
_WITHOUT_WILDCARDS = frozenset({"UI", "IS", "US", "DA", "TM"})


def matches(
    column: Column, vr: str, keyword: str, values: tuple[str, ...], *, is_sqlite: bool
) -> ColumnElement[bool]:
    """Return the condition that `column` matches one of `values`, by the rules of their VR.

    Raises:
        QueryError: a value is none of that VR.
    """
    if vr == "UI":
        return column.in_(values)
    if vr in ("IS", "US"):
        return column.in_([_integer(keyword, value) for value in values])
    return or_(*(_matches_one(column, vr, keyword, value, is_sqlite) for value in values))


def _matches_one(
    column: Column, vr: str, keyword: str, value: str, is_sqlite: bool
) -> ColumnElement[bool]:
    if vr == "DA":
        return _in_date_range(column, keyword, value)
    if vr == "TM":
        return _in_time_range(column, keyword, value)
    if vr == "PN":
        return _matches_name(column, value)
    if has_wildcard(vr, value):
        return _like(column, value, is_sqlite)
    return column == value


def has_wildcard(vr: str, value: str) -> bool:
    """Return whether `value` is a pattern: * or ? in a string VR (DICOM PS3.4 C.2.2.2.4)."""
    return vr not in _WITHOUT_WILDCARDS and ("*" in value or "?" in value)


def _integer(keyword: str, value: str) -> int:
    try:
        number = int(value)
    except ValueError as error:
        raise QueryError(f"{keyword} is not an integer") from error
    if not -(2**31) <= number < 2**31:
        raise QueryError(f"{keyword} is out of range")
    return number


def _in_date_range(column: Column, keyword: str, value: str) -> ColumnElement[bool]:
    wanted = date_range(keyword, value)
    held = func.replace(column, ".", "")  # YYYY.MM.DD, as before 1993
    conditions: list[ColumnElement[bool]] = [held != ""]
    if wanted.first:
        conditions.append(held >= wanted.first)
    if wanted.last:
        conditions.append(held <= wanted.last)
    return and_(*conditions)


def _in_time_range(column: Column, keyword: str, value: str) -> ColumnElement[bool]:
    wanted = time_range(keyword, value)
    held: ColumnElement[Any] = func.replace(column, ":", "", type_=String)
    conditions: list[ColumnElement[bool]] = [held != ""]
    if wanted.first:
        # "10" is held for 10 o'clock: zeros behind make it comparable with "1000".
        conditions.append((held + literal("000000", String)) >= wanted.first)
    if wanted.last:
        conditions.append(func.substr(held, 1, len(wanted.last)) <= wanted.last)
    return and_(*conditions)


def _matches_name(column: Column, value: str) -> ColumnElement[bool]:
    """Match a name without regard to case, whole or by one of its component groups.

    Empty components at the end of a group do not count (DICOM PS3.5 6.2.1.2).
    """
    groups: ColumnElement[Any] = literal("=", String) + column + literal("=", String)
    for _ in range(_LONGEST_GROUP_PADDING):
        groups = func.replace(groups, "^=", "=")
    pattern = "=".join(group.strip().rstrip("^") for group in value.split("="))
    wanted = literal(f"%={_like_pattern(pattern)}=%", String)
    return func.lower(groups).like(func.lower(wanted), escape=_ESCAPE)


def _like(column: Column, value: str, is_sqlite: bool) -> ColumnElement[bool]:
    if is_sqlite:
        # SQLite's LIKE knows no case; GLOB does, and its wildcards are those of DICOM.
        return column.op("GLOB", is_comparison=True)(value.replace("[", "[[]"))
    return column.like(_like_pattern(value), escape=_ESCAPE)


def _like_pattern(value: str) -> str:
    for special in (_ESCAPE, "%", "_"):
        value = value.replace(special, _ESCAPE + special)
    return value.replace("*", "%").replace("?", "_")
