"""What the index keeps of a data set, read from its encoded bytes without touching the pixels.

The values are converted here and not by pydicom's data elements: what a sender got wrong is left
out instead of being raised or written to a warning with its value, and a slice takes a fraction
of a millisecond.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from triage.core.studies import IMAGE_HEADER_KEYWORDS
from triage.receiver.elements import scan_elements
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


@dataclass(frozen=True, slots=True)
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
_TAGS = [_CHARACTER_SET_TAG, *(attribute.tag for attribute in _ATTRIBUTES)]
_WANTED_TAGS = frozenset(_TAGS)
_LAST_TAG = max(_TAGS)
_UNDEFINED_LENGTH = 0xFFFFFFFF
# The longest value of the attributes above has 1024 characters; some senders exceed their limits.
_LONGEST_VALUE = 1024 * 1024

_DEFLATED = {
    DeflatedExplicitVRLittleEndian,
    "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
    "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
}
# A header is some kilobytes. A deflated data set may claim any size, so it is inflated no further.
_LONGEST_INFLATED_HEADER = 16 * 1024 * 1024
_DEFLATED_CHUNK = 64 * 1024

# Explicit little endian, but for what DICOM PS3.5 says of their pixels, are most of the others.
_PLAIN = frozenset(AllTransferSyntaxes) - _DEFLATED - {ImplicitVRLittleEndian, ExplicitVRBigEndian}
_SMALL_BYTES = 64 * 1024

_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)
_INTEGER = {"US": "H", "SS": "h", "UL": "I", "SL": "i"}
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
        return {k: self.values[k] for k in IMAGE_HEADER_KEYWORDS if k in self.values}


def is_valid_uid(uid: str) -> bool:
    """Return whether `uid` is digits and dots, 64 characters at most (DICOM PS3.5 section 9.1).

    >>> is_valid_uid("1.2.840.10008.1.1"), is_valid_uid("../../x"), is_valid_uid("1..2")
    (True, False, False)

    Components with leading zeros are let through: senders make them, and they harm nobody.
    """
    return len(uid) <= 64 and _UID.fullmatch(uid) is not None


def parse_header(dataset: bytes, transfer_syntax_uid: str) -> Header:
    """Return the header of an encoded data set.

    Text is decoded with the data set's own Specific Character Set (0008,0005).

    Raises:
        RefusedInstanceError: 0xC000 where the bytes are no data set or lack one of the four UIDs,
            0x0117 where a UID breaks the rules of PS3.5 section 9.1.
    """
    return _parse(io.BytesIO(dataset), transfer_syntax_uid, _Progress())


class HeaderReader:
    """Reads the header of a data set that is still arriving, as soon as all of it is there."""

    def __init__(self, transfer_syntax_uid: str) -> None:
        self._transfer_syntax_uid = transfer_syntax_uid

    def read_head(self, head: bytes) -> Header | None:
        """Return the header, or None if `head`, the first bytes, may not hold all of it."""
        if self._transfer_syntax_uid in _PLAIN:
            raw = scan_elements(head, _WANTED_TAGS, _LAST_TAG)
            if raw is not None:
                return _header_of(_values_of(raw, is_little_endian=True))
        progress = _Progress()
        try:
            header = _parse(io.BytesIO(head), self._transfer_syntax_uid, progress)
        except RefusedInstanceError:
            return None  # judged again when the whole data set is there
        return header if progress.is_past_the_header else None

    def read_whole(self, read: ReadAt, size_bytes: int) -> Header:
        """Return the header of a data set of `size_bytes` that has arrived.

        Values that are not wanted are skipped, so little of it comes into memory.

        Raises:
            RefusedInstanceError: as `parse_header`.
        """
        if size_bytes <= _SMALL_BYTES and (header := self.read_head(read(0, size_bytes))):
            return header
        stream = io.BufferedReader(_ReadAtStream(read, size_bytes))
        return _parse(stream, self._transfer_syntax_uid, _Progress())


ReadAt = Callable[[int, int], bytes]
"""Gives up to so many bytes (second argument) from a place (first argument)."""


class _ReadAtStream(io.RawIOBase):
    def __init__(self, read: ReadAt, size_bytes: int) -> None:
        self._read_at = read
        self._size_bytes = size_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}
        self._position = max(0, bases[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        received = self._read_at(self._position, len(buffer))
        buffer[: len(received)] = received
        self._position += len(received)
        return len(received)


@dataclass(slots=True)
class _Progress:
    is_past_the_header: bool = False

    def stop_when(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        del vr
        if int(tag) > _LAST_TAG:
            self.is_past_the_header = True
        elif int(tag) in _WANTED_TAGS and _LONGEST_VALUE < length < _UNDEFINED_LENGTH:
            raise ValueError("a value of the header is longer than any that can be meant")
        return self.is_past_the_header


def _parse(stream: BinaryIO, transfer_syntax_uid: str, progress: _Progress) -> Header:
    try:
        raw = _read_elements(stream, transfer_syntax_uid, progress)
        values = _values_of(raw, is_little_endian=transfer_syntax_uid != ExplicitVRBigEndian)
    except Exception as error:  # whatever hostile bytes make the parser raise
        raise RefusedInstanceError(
            StorageStatus.CANNOT_UNDERSTAND, f"data set cannot be parsed: {type(error).__name__}"
        ) from error
    return _header_of(values)


def _header_of(values: dict[str, Any]) -> Header:
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


def _read_elements(
    stream: BinaryIO, transfer_syntax_uid: str, progress: _Progress
) -> dict[int, bytes]:
    """Return the encoded values of the wanted attributes by tag."""
    if transfer_syntax_uid in _DEFLATED:
        stream = io.BytesIO(_inflated_header(stream))
    elements = read_dataset(
        stream,
        is_implicit_VR=transfer_syntax_uid == ImplicitVRLittleEndian,
        is_little_endian=transfer_syntax_uid != ExplicitVRBigEndian,
        stop_when=progress.stop_when,
        specific_tags=list(_TAGS),
    )
    found: dict[int, bytes] = {}
    for tag in _TAGS:
        raw: Any = elements.get_item(tag) if tag in elements else None
        if isinstance(raw, RawDataElement) and raw.value:
            found[tag] = raw.value
    return found


def _inflated_header(stream: BinaryIO) -> bytes:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    header = bytearray()
    while (chunk := stream.read(_DEFLATED_CHUNK)) and len(header) < _LONGEST_INFLATED_HEADER:
        header += inflate.decompress(chunk, _LONGEST_INFLATED_HEADER - len(header))
    return bytes(header)


def _values_of(raw: dict[int, bytes], *, is_little_endian: bool) -> dict[str, Any]:
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
def _encodings_of(value: bytes) -> list[str]:
    terms = value.decode("ascii", "replace").split("\\")
    return list(convert_encodings([term.strip(" \x00") for term in terms]))


def _convert(
    attribute: _Attribute, value: bytes, encodings: list[str], is_little_endian: bool
) -> list[Any]:
    vr = attribute.vr
    if vr in _INTEGER:
        code = _INTEGER[vr]
        count = len(value) // struct.calcsize("<" + code)
        return list(struct.unpack(f"{'<' if is_little_endian else '>'}{count}{code}", value))
    texts = _texts(vr, value, encodings)
    if vr == "IS":
        return [int(text) for text in texts if text]
    if vr == "DS":
        return [_finite(text) for text in texts if text]
    # The place of a value counts in Image Type, so an empty one between others is kept.
    return texts if any(texts) else []


def _finite(text: str) -> float:
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
    text = text.replace("\x00", "")  # padding of UIDs, and PostgreSQL refuses it in any text
    parts = [text] if vr in _SINGLE_TEXT else text.split("\\")
    return [part.strip() for part in parts]
