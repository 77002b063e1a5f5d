"""Data sets in the DICOM JSON model (DICOM PS3.18 annex F), as plain mappings.

An attribute is named by its tag in eight hexadecimal digits: `{"00741200": {"vr": "CS", "Value":
["HIGH"]}}`. Attributes of unified procedure steps are kept in this form, because a database holds
it, DICOMweb speaks it, and no toolkit is needed to read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triage.core.codes import Code

Attributes = Mapping[str, Any]
"""A data set: by tag its elements."""


def element(vr: str, *values: Any) -> dict[str, Any]:
    """Return an element; what is empty or None is no value.

    >>> element("CS", "HIGH")
    {'vr': 'CS', 'Value': ['HIGH']}
    >>> element("PN", "")
    {'vr': 'PN'}
    """
    held = [_named(vr, value) for value in values if value not in ("", None)]
    return {"vr": vr, "Value": held} if held else {"vr": vr}


def _named(vr: str, value: Any) -> Any:
    if vr != "PN" or not isinstance(value, str):
        return value
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), value.split("="), strict=False)
    return {name: group for name, group in groups if group}


def values_of(attributes: Attributes, tag: str) -> list[Any]:
    """Return the values of an attribute, none where it is absent or empty."""
    held = attributes.get(tag)
    values = held.get("Value") if isinstance(held, Mapping) else None
    return [value for value in values if value is not None] if isinstance(values, list) else []


def text_of(attributes: Attributes, tag: str) -> str:
    """Return the first value of an attribute as text, "" where there is none.

    >>> text_of({"00100010": element("PN", "Doe^Jane")}, "00100010")
    'Doe^Jane'
    """
    values = values_of(attributes, tag)
    if not values:
        return ""
    first = values[0]
    if isinstance(first, Mapping):
        groups = [str(first.get(k, "")) for k in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    return str(first).strip()


def items_of(attributes: Attributes, tag: str) -> list[Attributes]:
    """Return the items of a sequence."""
    return [item for item in values_of(attributes, tag) if isinstance(item, Mapping)]


def has_value(attributes: Attributes, tag: str) -> bool:
    """Return whether an attribute has a value, or a sequence an item."""
    return any(value != "" for value in values_of(attributes, tag))


def code_item(code: Code) -> dict[str, Any]:
    """Return the item of a code sequence (DICOM PS3.3 8.8)."""
    return {
        "00080100": element("SH", code.value),
        "00080102": element("SH", code.scheme),
        "00080104": element("LO", code.meaning),
    }
