"""What the index keeps of a data set, read from its encoded bytes without touching the pixels.

The values are converted here and not by pydicom's data elements: what a sender got wrong is left
out instead of being raised or written to a warning with its value, and a slice takes a fraction
of a millisecond.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes, default_encoding, python_encoding
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.uid import (
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from triage.core.studies import FRAME_POSITIONS, IMAGE_HEADER_KEYWORDS
from triage.decoding.elements import Encoded, read_elements, scan_elements
from triage.decoding.errors import DecodingError
from triage.decoding.functional_groups import frame_headers, has_functional_groups
from triage.decoding.inflation import inflated_start
from triage.receiver.refusals import RefusedInstanceError, StorageStatus

_IDENTITY_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
)
_INDEX_KEYWORDS = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyDate",
    "StudyTime",
    "RequestedProcedurePriority",
    "SeriesNumber",
)


# Without `eq`: compared and hashed by identity, which the cache below does for every value.
@dataclass(frozen=True, slots=True, eq=False)
class _Attribute:
    keyword: str
    tag: int
    vr: str
    is_multiple: bool


def _attribute(keyword: str) -> _Attribute:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return _Attribute(keyword, tag, dictionary_VR(tag), dictionary_VM(tag) != "1")


_ATTRIBUTES = tuple(
    sorted(
        map(_attribute, {*_IDENTITY_KEYWORDS, *_INDEX_KEYWORDS, *IMAGE_HEADER_KEYWORDS}),
        key=lambda attribute: attribute.tag,
    )
)
_ATTRIBUTE_OF = {attribute.tag: attribute for attribute in _ATTRIBUTES}
_CHARACTER_SET_TAG = 0x00080005
_TAGS = frozenset({_CHARACTER_SET_TAG, *(attribute.tag for attribute in _ATTRIBUTES)})
_SEQUENCE_TAGS = frozenset(attribute.tag for attribute in _ATTRIBUTES if attribute.vr == "SQ")
_EMPTY_SEQUENCE = 8  # bytes: an item or delimiter without anything in it

_DEFLATED = {
    DeflatedExplicitVRLittleEndian,
    "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
    "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
}
# A header is some kilobytes. A deflated data set may claim any size, so no more of it is kept.
_LONGEST_INFLATED_HEADER = 16 * 1024 * 1024

# A private transfer syntax may be anything, so it is not read before all of it is there.
_READABLE_FROM_THE_START = frozenset(AllTransferSyntaxes) - _DEFLATED - {ExplicitVRBigEndian}

_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)
_INTEGER = {"US": "H", "SS": "h", "UL": "I", "SL": "i"}
_REAL = {"FD": "d", "FL": "f"}
_SINGLE_TEXT = {"LT", "ST", "UT"}


@dataclass(frozen=True, slots=True)
class Header:
    """The attributes of one data set, by keyword; what is empty or invalid is not there."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    values: dict[str, Any]

    def text(self, keyword: str) -> str:
        """Return the value of a text attribute, "" if the data set has none."""
        return str(self.values.get(keyword, ""))

    def number(self, keyword: str) -> int | None:
        """Return the value of an integer attribute that a database column can hold."""
        value = self.values.get(keyword)
        return value if isinstance(value, int) and -(2**31) <= value < 2**31 else None

    def image_headers(self) -> dict[str, Any]:
        """Return what routing reads: the attributes of IMAGE_HEADER_KEYWORDS, as JSON values."""
        kept = (*IMAGE_HEADER_KEYWORDS, FRAME_POSITIONS)
        return {k: self.values[k] for k in kept if k in self.values}


def is_valid_uid(uid: str) -> bool:
    """Return whether `uid` is digits and dots, 64 characters at most (DICOM PS3.5 section 9.1).

    >>> is_valid_uid("1.2.840.10008.1.1"), is_valid_uid("../../x"), is_valid_uid("1..2")
    (True, False, False)

    Components with leading zeros are let through: senders make them, and they harm nobody.
    """
    return len(uid) <= 64 and _UID.fullmatch(uid) is not None


def parse_header(dataset: Encoded, transfer_syntax_uid: str, *, start: int = 0) -> Header:
    """Return the header of the encoded data set that begins at `start`.

    Text is decoded with the data set's own Specific Character Set (0008,0005).

    Raises:
        RefusedInstanceError: 0xC000 where the bytes are no data set or lack one of the four UIDs,
            0x0117 where a UID breaks the rules of PS3.5 section 9.1.
    """
    try:
        raw = _read_elements(dataset, transfer_syntax_uid, start)
        header = _header_of(raw, is_little_endian=transfer_syntax_uid != ExplicitVRBigEndian)
        if not has_functional_groups(header.sop_class_uid):
            return header
        return _with_frames(header, frame_headers(dataset, transfer_syntax_uid, start=start))
    except RefusedInstanceError:
        raise
    except DecodingError as error:
        raise RefusedInstanceError(
            StorageStatus.CANNOT_UNDERSTAND, f"data set cannot be parsed: {error}"
        ) from error
    except Exception as error:  # whatever hostile bytes make the decoding of a value raise
        raise RefusedInstanceError(
            StorageStatus.CANNOT_UNDERSTAND, f"data set cannot be parsed: {type(error).__name__}"
        ) from error


def parse_head(head: bytes, transfer_syntax_uid: str) -> Header | None:
    """Return the header of a data set of which `head` has arrived, None if that may not be all.

    It never is all of an enhanced multi-frame image, whose frames are described at its end.

    Raises:
        RefusedInstanceError: as `parse_header`.
    """
    if transfer_syntax_uid not in _READABLE_FROM_THE_START:
        return None
    is_implicit_vr = transfer_syntax_uid == ImplicitVRLittleEndian
    raw = scan_elements(head, _TAGS, is_implicit_vr=is_implicit_vr)
    header = None if raw is None else _header_of(raw, is_little_endian=True)
    if header is not None and has_functional_groups(header.sop_class_uid):
        return None
    return header


def _with_frames(header: Header, frames: dict[str, Any]) -> Header:
    """Return the header with what its frames say, where it does not say it itself."""
    return replace(header, values={**frames, **header.values})


def _header_of(raw: dict[int, bytes], *, is_little_endian: bool) -> Header:
    values = _values_of(raw, is_little_endian)
    return Header(
        sop_class_uid=_required_uid(values, "SOPClassUID"),
        sop_instance_uid=_required_uid(values, "SOPInstanceUID"),
        study_instance_uid=_required_uid(values, "StudyInstanceUID"),
        series_instance_uid=_required_uid(values, "SeriesInstanceUID"),
        values=values,
    )


def _required_uid(values: dict[str, Any], keyword: str) -> str:
    uid = values.get(keyword)
    if uid is None:
        raise RefusedInstanceError(
            StorageStatus.CANNOT_UNDERSTAND, f"data set lacks a {keyword}, or it cannot be parsed"
        )
    if not is_valid_uid(uid):
        raise RefusedInstanceError(
            StorageStatus.INVALID_SOP_INSTANCE, f"{keyword} is not a valid UID"
        )
    return str(uid)


def _read_elements(dataset: Encoded, transfer_syntax_uid: str, start: int) -> dict[int, bytes]:
    if transfer_syntax_uid in _DEFLATED:
        deflated = memoryview(dataset)[start:]
        dataset, start = inflated_start(deflated, _LONGEST_INFLATED_HEADER), 0
    return read_elements(
        dataset,
        _TAGS,
        sequences=_SEQUENCE_TAGS,
        start=start,
        is_implicit_vr=transfer_syntax_uid == ImplicitVRLittleEndian,
        is_little_endian=transfer_syntax_uid != ExplicitVRBigEndian,
    )


def _values_of(raw: dict[int, bytes], is_little_endian: bool) -> dict[str, Any]:
    character_sets = raw.get(_CHARACTER_SET_TAG, b"")
    values: dict[str, Any] = {}
    for tag, value in raw.items():
        attribute = _ATTRIBUTE_OF.get(tag)
        if attribute is not None and value:
            found = _value_of(attribute, value, character_sets, is_little_endian)
            if found is not None:
                values[attribute.keyword] = found
    return values


# The images of a study say the same in nearly all of these attributes, one after the other.
@lru_cache(maxsize=4096)
def _value_of(
    attribute: _Attribute, value: bytes, character_sets: bytes, is_little_endian: bool
) -> Any:
    try:
        found = _convert(attribute, value, _encodings_of(character_sets), is_little_endian)
    except (ValueError, struct.error, OverflowError):
        return None  # an invalid value is no reason to lose an image
    if not found:
        return None
    return found if attribute.is_multiple else found[0]


@lru_cache(maxsize=64)
def _encodings_of(character_sets: bytes) -> list[str]:
    """Return Python's names of the data set's character sets (DICOM PS3.3 C.12.1.1.2).

    Only the standard's own terms are looked up. pydicom would also take any codec of Python's, of
    which some decode to what no database takes, and some are slow on purpose-made input.
    """
    terms = [term.strip(" \x00") for term in character_sets.decode("ascii", "replace").split("\\")]
    known = [term for term in terms if term in python_encoding]
    if not known:
        return [default_encoding]
    first = [] if terms[0] in python_encoding else [""]
    return list(convert_encodings([*first, *known]))


def _convert(
    attribute: _Attribute, value: bytes, encodings: list[str], is_little_endian: bool
) -> list[Any]:
    vr = attribute.vr
    if vr in _INTEGER:
        code = _INTEGER[vr]
        count = len(value) // struct.calcsize("<" + code)
        return list(struct.unpack(f"{'<' if is_little_endian else '>'}{count}{code}", value))
    if vr in _REAL:
        order = "<" if is_little_endian else ">"
        count = len(value) // struct.calcsize("<" + _REAL[vr])
        numbers = struct.unpack(f"{order}{count}{_REAL[vr]}", value)
        return [_finite(number) for number in numbers]
    if vr == "SQ":
        return [True] if len(value) > _EMPTY_SEQUENCE else []
    texts = _texts(vr, value, encodings)
    if vr == "IS":
        return [int(text) for text in texts if text]
    if vr == "DS":
        return [_finite(text) for text in texts if text]
    # The place of a value counts in Image Type, so an empty one between others is kept.
    return texts if any(texts) else []


def _finite(text: str | float) -> float:
    number = float(text)
    if not math.isfinite(number):  # PostgreSQL's JSON has no such numbers
        raise ValueError("not a finite number")
    return number


def _texts(vr: str, value: bytes, encodings: list[str]) -> list[str]:
    if vr == "PN":
        groups = [decode_bytes(group, encodings, PN_DELIMS) for group in value.split(b"=")]
        text = "=".join(groups)
    elif vr in {"LO", "SH", "LT", "ST", "UT"}:
        text = decode_bytes(value, encodings, TEXT_VR_DELIMS)
    else:
        text = value.decode("ascii", "replace")
    if vr == "UI":  # padded with NUL; what is left of others must make it invalid
        return [text.rstrip("\x00").strip(" ")]
    text = text.replace("\x00", "")  # PostgreSQL refuses it in any text
    parts = [text] if vr in _SINGLE_TEXT else text.split("\\")
    return [part.strip() for part in parts]
