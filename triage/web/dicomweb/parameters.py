"""The query parameters of a search, read into a query (DICOM PS3.18 8.3.4, 10.6.1.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword

from triage.core.query import Level, Query, QueryError
from triage.store.query import matched_keywords, returned_keywords

MOST_RESULTS = 5000
"""As many are in one answer; a client that wants more asks again with an offset."""

_TAG = re.compile(r"[0-9A-Fa-f]{8}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_LONGEST_VALUE = 1024
_MOST_VALUES = 1000

_ALWAYS: Mapping[Level, tuple[str, ...]] = {
    Level.STUDY: (
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "ModalitiesInStudy",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyID",
        "StudyDescription",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ),
    Level.SERIES: (
        "Modality",
        "SeriesDescription",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SeriesNumber",
        "NumberOfSeriesRelatedInstances",
    ),
    Level.IMAGE: (
        "SOPClassUID",
        "SOPInstanceUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "InstanceNumber",
        "Rows",
        "Columns",
        "BitsAllocated",
        "NumberOfFrames",
        "AvailableTransferSyntaxUID",
    ),
}
"""What every result of a level has (DICOM PS3.18 tables 10.6.3-3 to 10.6.3-5)."""


@dataclass(frozen=True, slots=True)
class Search:
    """A search: the query, and which part of its results is wanted.

    Attributes:
        limit: how many results are given at most.
        offset: how many are left out before.
        unsupported: keywords of attributes that were to be matched and are not.
        is_fuzzy: the client asked for fuzzy matching of names, which is not done.
    """

    query: Query
    limit: int
    offset: int
    unsupported: tuple[str, ...] = ()
    is_fuzzy: bool = False


def read_search(
    level: Level, parameters: Iterable[tuple[str, str]], above: Mapping[str, str]
) -> Search:
    """Return the search that the parameters of a request ask for.

    Args:
        level: what is searched for.
        parameters: name and value of each.
        above: the UIDs in the address, by keyword.

    Raises:
        QueryError: a parameter is not known, or its value cannot be; the message names it.
    """
    matching: dict[str, list[str]] = {}
    included: list[str] = []
    control: dict[str, str] = {}
    for name, value in parameters:
        if name in ("limit", "offset", "fuzzymatching", "accept", "emptyvaluematching"):
            control[name] = value
        elif name == "includefield":
            included += [one for one in re.split(r"[,\s]+", value) if one]
        else:
            matching.setdefault(_keyword(name), []).extend(_values(name, value))
    keys = _keys(level, matching, included, above)
    unsupported = sorted(set(matching) - matched_keywords(level))
    for keyword in unsupported:
        keys.pop(keyword, None)
    return Search(
        query=Query(level, keys),
        limit=min(_number(control, "limit", MOST_RESULTS), MOST_RESULTS),
        offset=_number(control, "offset", 0),
        unsupported=tuple(unsupported),
        is_fuzzy=_flag(control, "fuzzymatching"),
    )


def _keys(
    level: Level,
    matching: Mapping[str, Sequence[str]],
    included: Sequence[str],
    above: Mapping[str, str],
) -> dict[str, tuple[str, ...]]:
    wanted = set(_ALWAYS[level])
    for upper in (Level.STUDY, Level.SERIES):
        # A search across studies, or series, says of each result where it belongs.
        is_named = {Level.STUDY: "StudyInstanceUID", Level.SERIES: "SeriesInstanceUID"}[upper]
        if upper.depth < level.depth and is_named not in above:
            wanted |= set(_ALWAYS[upper])
    for name in included:
        wanted |= returned_keywords(level) if name.lower() == "all" else {_keyword(name)}
    keys: dict[str, tuple[str, ...]] = dict.fromkeys(sorted(wanted & returned_keywords(level)), ())
    keys |= {keyword: tuple(values) for keyword, values in matching.items()}
    for keyword, uid in above.items():
        if uid not in keys.get(keyword, (uid,)) and keys[keyword]:
            raise QueryError(f"{keyword} is another one in the address")
        keys[keyword] = (uid,)
    return keys


def _keyword(name: str) -> str:
    """Return the keyword of an attribute; one within a sequence counts as the sequence's.

    Raises:
        QueryError: the standard has no such attribute. The message has the name only where it
            can be one: a client that got its address wrong may have put a patient there.
    """
    first = name.split(".", 1)[0]
    if _TAG.fullmatch(first):
        # A private tag, or one of a newer standard, is a valid one that is not supported.
        tag = int(first, 16)
        known = keyword_for_tag(tag) if dictionary_has_tag(tag) else ""
        return known or first.upper()
    if tag_for_keyword(first) is None:
        raise QueryError(
            "a query parameter is neither a keyword nor a tag of DICOM, nor limit, offset, "
            "includefield or fuzzymatching"
        )
    return first


def _values(name: str, value: str) -> list[str]:
    if "\x00" in value or len(value) > _LONGEST_VALUE * 64:
        raise QueryError(f"{_keyword(name)} has a value that no attribute can have")
    keyword = _keyword(name)
    is_list = tag_for_keyword(keyword) is not None and dictionary_VR(keyword) in ("UI", "CS")
    # UIDs come in lists (PS3.18 8.3.4.2), and viewers send modalities so; a name may have a comma.
    values = [one.strip() for one in (re.split(r"[,\\]", value) if is_list else [value])]
    if len(values) > _MOST_VALUES or any(len(one) > _LONGEST_VALUE for one in values):
        raise QueryError(f"{keyword} has too many or too long values")
    return [one for one in values if one]


def _number(control: Mapping[str, str], name: str, default: int) -> int:
    value = control.get(name, "")
    if not value:
        return default
    if not _NUMBER.fullmatch(value):
        raise QueryError(f"{name} is no whole number from 0 on")
    return int(value)


def _flag(control: Mapping[str, str], name: str) -> bool:
    value = control.get(name, "false").lower()
    if value not in ("true", "false", ""):
        raise QueryError(f"{name} is neither true nor false")
    return value == "true"
