"""Data sets as DICOM JSON (DICOM PS3.18 annex F)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

log = structlog.get_logger(__name__)

LONGEST_INLINE_BYTES = 1024
"""A longer binary value is left where it is, and the JSON says where."""

_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_UTF_8 = "ISO_IR 192"
# What pydicom raises of a value that is none of its VR.
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError)

BulkDataAddress = Callable[[str], str]
"""From the path of an element, such as `54000100/1/54001010`, to the address of its value."""


def elements_as_json(
    dataset: Dataset, address: BulkDataAddress | None = None, path: str = ""
) -> dict[str, Any]:
    """Return a data set as JSON objects, group lengths and file meta information apart.

    Values that do not fit their VR are left out: they cannot be said in JSON. Nothing is said of
    them in the log but their tags.

    Args:
        dataset: read lazily or not.
        address: where long binary values are; None puts them all in.
        path: that of the data set itself, with a slash behind, where it is an item.
    """
    found: dict[str, Any] = {}
    for tag in sorted(dataset.keys()):
        if tag.element == 0 or tag.group == 0x0002:
            continue
        name = f"{tag:08X}"
        try:
            found[name] = _element_as_json(dataset[tag], address, path + name)
        except _MALFORMED as error:
            log.warning("attribute left out of JSON", tag=name, error=type(error).__name__)
    if "00080005" in found:
        found["00080005"] = {"vr": "CS", "Value": [_UTF_8]}  # as all JSON is (F.2)
    return found


def _element_as_json(
    element: DataElement, address: BulkDataAddress | None, path: str
) -> dict[str, Any]:
    if element.VR == "SQ":
        items = [
            elements_as_json(item, address, f"{path}/{number}/")
            for number, item in enumerate(element.value, start=1)
        ]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    is_binary = element.VR in _BINARY and not element.is_empty
    if is_binary and address is not None and len(element.value) > LONGEST_INLINE_BYTES:
        return {"vr": element.VR, "BulkDataURI": address(path)}
    return _finite(element.to_json_dict(None, 0))


def _finite(element: dict[str, Any]) -> dict[str, Any]:
    """Put null where a number is none: JSON has no NaN and no infinity."""
    values = element.get("Value")
    if element["vr"] in ("FD", "FL", "DS") and values:
        element["Value"] = [
            None if isinstance(one, float) and not math.isfinite(one) else one for one in values
        ]
    return element


def as_text(content: Iterable[dict[str, Any]] | dict[str, Any]) -> str:
    """Return JSON without spaces."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
