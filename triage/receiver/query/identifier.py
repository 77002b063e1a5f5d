"""Identifiers of the Query/Retrieve service, read and written (DICOM PS3.4 C.4.1.1.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VM
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from triage.core.query import UNIQUE_KEYS, Level, Query, QueryError

_NO_KEYS = {"SpecificCharacterSet", "QueryRetrieveLevel", "TimezoneOffsetFromUTC"}
_UTF_8 = "ISO_IR 192"


def parse_identifier(identifier: Dataset, *, is_patient_root: bool) -> Query:
    """Return what an identifier asks for.

    Raises:
        QueryError: level or unique keys break the rules of the information model (C.6.1.1, C.6.2.1,
            C.4.1.2.2.1), or the data set cannot be decoded.
    """
    level = _level(identifier, is_patient_root)
    try:
        keys = {
            element.keyword: _texts(element.value)
            for element in identifier
            if element.keyword and element.keyword not in _NO_KEYS and element.VR != "SQ"
        }
    except Exception as error:  # whatever a malformed value makes pydicom raise
        raise QueryError(f"the identifier cannot be decoded: {type(error).__name__}") from error
    query = Query(level, keys)
    top = Level.PATIENT if is_patient_root else Level.STUDY
    for above in Level:
        if top.depth <= above.depth < level.depth:
            _check_names_one(query, above)
    return query


def check_names_what_to_retrieve(query: Query) -> None:
    """Raise QueryError unless the unique key of the level has values (DICOM PS3.4 C.4.2.2.1)."""
    keyword = UNIQUE_KEYS[query.level]
    if not query.values(keyword):
        raise QueryError(f"{keyword} is needed at the {query.level} level")
    if any("*" in value or "?" in value for value in query.values(keyword)):
        raise QueryError(f"{keyword} takes no wildcards in a retrieval")


def _level(identifier: Dataset, is_patient_root: bool) -> Level:
    value = str(identifier.get("QueryRetrieveLevel") or "").strip()
    try:
        level = Level(value)
    except ValueError as error:
        raise QueryError("Query/Retrieve Level is missing or none of the model's") from error
    if level is Level.PATIENT and not is_patient_root:
        raise QueryError("the study root model has no PATIENT level")
    return level


def _check_names_one(query: Query, above: Level) -> None:
    keyword = UNIQUE_KEYS[above]
    values = query.values(keyword)
    if len(values) != 1 or "*" in values[0] or "?" in values[0]:
        raise QueryError(f"{keyword} must have a single value at the {query.level} level")


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    values = value if isinstance(value, (MultiValue, list)) else [value]
    texts = [str(one).strip() for one in values]
    # PostgreSQL refuses it in any text, and no held value has it.
    if any("\x00" in text for text in texts):
        raise QueryError("a key has a NUL character")
    return tuple(text for text in texts if text)


def match_identifier(
    query: Query, values: Mapping[str, Any], *, ae_title: str, asked_in: str
) -> Dataset:
    """Return the identifier of a C-FIND response.

    Text that is not ASCII goes in the character set of the request where that can express it, and
    else in UTF-8.

    Args:
        query: what was asked for.
        values: the match, by keyword.
        ae_title: where it can be retrieved from (C.4.1.1.3.2).
        asked_in: Specific Character Set (0008,0005) of the request, one term.
    """
    identifier = Dataset()
    identifier.QueryRetrieveLevel = str(query.level)
    identifier.RetrieveAETitle = ae_title
    identifier.InstanceAvailability = "ONLINE"
    for keyword, value in values.items():
        setattr(identifier, keyword, _returned(keyword, value))
    character_set = _character_set(values, asked_in)
    if character_set:
        identifier.SpecificCharacterSet = character_set
    return identifier


def _returned(keyword: str, value: Any) -> Any:
    if value in (None, "", []):
        return None
    if isinstance(value, str) and dictionary_VM(keyword) == "1" and "\\" in value:
        return value.replace("\\", "/")  # it would be taken for two values
    return value


def _character_set(values: Mapping[str, Any], asked_in: str) -> str:
    text = "".join(value for value in values.values() if isinstance(value, str))
    if text.isascii():
        return ""
    encoding = python_encoding.get(asked_in)
    # Terms with code extensions (ISO 2022) are left to UTF-8.
    if encoding is None or not asked_in.startswith(("ISO_IR", "GB")):
        return _UTF_8
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return _UTF_8
    return asked_in
