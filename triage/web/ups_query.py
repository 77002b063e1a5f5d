"""Searches of UPS-RS, read from query parameters (DICOM PS3.18 8.3.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

from triage.core.query import QueryError

_USUAL = 100
_MOST = 1000
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for.

    Attributes:
        keys: in the DICOM JSON model.
        included: tags that are returned beside the usual ones and the keys; None is all.
        limit: the most that are returned.
        offset: how many matches are passed over.
    """

    keys: dict[str, Any]
    included: frozenset[str] | None
    limit: int
    offset: int

    def includes(self, tag: str) -> bool:
        """Return whether an attribute was asked for, by itself or with all."""
        return self.included is None or tag in self.included

    def page_of(self, matching: Iterator[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
        """Return the matches that are wanted, and whether there are more."""
        found = list(islice(matching, self.offset, self.offset + self.limit + 1))
        return found[: self.limit], len(found) > self.limit


def search_of(parameters: Iterable[tuple[str, str]]) -> Search:
    """Return the search that query parameters ask for.

    Fuzzy matching of names is not offered: names match without regard to case.

    Raises:
        QueryError: a parameter names no attribute, or a number is none.
    """
    pairs: list[tuple[str, str]] = []
    included: set[str] = set()
    wants_all = False
    numbers = {"limit": _USUAL, "offset": 0}
    for name, value in parameters:
        if name in numbers:
            numbers[name] = _number(name, value)
        elif name == "includefield":
            for field in filter(None, (one.strip() for one in value.split(","))):
                wants_all = wants_all or field == "all"
                if field != "all":
                    included.add(_path(field)[0])
        elif name != "fuzzymatching":
            pairs.append((name, value))
    keys = keys_of(pairs)
    return Search(
        keys,
        None if wants_all else frozenset(included | set(keys)),
        min(numbers["limit"], _MOST),
        numbers["offset"],
    )


def parse_filter(values: Sequence[str]) -> list[tuple[str, str]]:
    """Return the keys of a filtered subscription: `attribute=value` (PS3.18 11.10.1).

    >>> parse_filter(["ScheduledProcedureStepPriority=HIGH,WorklistLabel=Triage"])
    [('ScheduledProcedureStepPriority', 'HIGH'), ('WorklistLabel', 'Triage')]

    Raises:
        QueryError: a part is no pair.
    """
    pairs = []
    for value in values:
        for part in filter(None, value.split(",")):
            name, equals, wanted = part.partition("=")
            if not equals:
                raise QueryError("filter must be attribute=value, several parted by commas")
            pairs.append((name.strip(), wanted))
    return pairs


def keys_of(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return matching keys in the DICOM JSON model; parts of one sequence are in one item.

    Raises:
        QueryError: a name is no attribute.
    """
    keys: dict[str, Any] = {}
    for name, value in pairs:
        *sequences, tag = _path(name)
        level = keys
        for sequence in sequences:
            held = level.setdefault(sequence, {"vr": "SQ", "Value": [{}]})
            level = held["Value"][0]
        vr = dictionary_VR(int(tag, 16))
        values = value.replace("\\", ",").split(",") if vr == "UI" else [value]
        wanted = [one.strip() for one in values if one.strip()]
        if vr == "SQ":
            level.setdefault(tag, {"vr": vr})
        else:
            level[tag] = {"vr": vr, "Value": wanted} if wanted else {"vr": vr}
    return keys


def _path(name: str) -> list[str]:
    """Return the tags of an attribute that is named by keywords or tags, parted by dots."""
    parts = name.split(".")
    if len(parts) > _DEEPEST:
        raise QueryError("a parameter names an attribute that is nested too deep")
    tags = [_tag(part) for part in parts]
    if any(dictionary_VR(int(tag, 16)) != "SQ" for tag in tags[:-1]):
        raise QueryError("a parameter names an attribute within what is no sequence")
    return tags


def _tag(part: str) -> str:
    number = tag_for_keyword(part)
    if number is None and len(part) == 8:
        try:
            number = int(part, 16)
            dictionary_VR(number)
        except (ValueError, KeyError):
            number = None
    if number is None:
        known = part if part.isalnum() and part.isascii() else "a parameter"
        raise QueryError(f"{known[:64]} is no attribute of the data dictionary")
    return f"{number:08X}"


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal()) or len(value) > 9:
        raise QueryError(f"{name} must be a number")
    return int(value)
