"""The elements of an encoded data set, found without building what lies between them.

Sequences are stepped over with a counter and no recursion: one byte of hostile input never becomes
an object, so neither nesting nor millions of empty items take memory, and the work is bounded.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from dataclasses import dataclass
from mmap import mmap

from triage.decoding.errors import DecodingError

Encoded = bytes | mmap
"""An encoded data set in memory, or a file mapped into it."""

_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD
_FIRST_PIXEL_TAG = 0x7FE00000
_UNDEFINED = 0xFFFFFFFF
_SHORTEST_HEAD = 8
_FIRST_TAG = 0x00080000  # lower groups are no part of data sets (DICOM PS3.5 section 7.1)
_KNOWN_VR = re.compile(rb"[A-Z]{2}")
# DICOM PS3.5 section 7.1.2: these have two reserved bytes and a length of four.
_LONG_VR = frozenset((b"OB OD OF OL OV OW SQ SV UC UN UR UT UV").split())
_SHORT_VR = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_IMPLICIT_HEAD = struct.Struct("<HHL")
_EXPLICIT_HEAD = struct.Struct("<HH2sH")
_LONG_LENGTH = struct.Struct("<L")
_LONGEST_HEAD = 12

_DEEPEST = 64  # nested sequences; objects of the standard have less than ten
_MOST_ELEMENTS = 300_000  # a reader builds up to 1.5 kB of each
_LONGEST_VALUE = 65536  # no attribute of the index may be longer (DICOM PS3.5 table 6.2-1)


@dataclass(frozen=True, slots=True)
class _Head:
    tag: int
    vr: bytes
    length: int
    value_at: int


def read_elements(
    dataset: Encoded,
    tags: Collection[int],
    *,
    sequences: Collection[int] = (),
    start: int = 0,
    is_implicit_vr: bool,
    is_little_endian: bool,
) -> dict[int, bytes]:
    """Return the values of `tags` at the top level of what begins at `start`.

    Of those that are `sequences`, whatever their length is, the first bytes are returned: enough
    to tell an empty one from one with an item. Of an element that comes twice, the last counts, as
    for other readers. A value that is longer than any of its kind may be, or of undefined length,
    is left out.

    Raises:
        DecodingError: the data set ends within an element, or its sequences are malformed, nested
            deeper than 64 times, or hold more than 300,000 elements.
    """
    reader = _Reader(
        dataset, start, is_implicit_vr=is_implicit_vr, is_little_endian=is_little_endian
    )
    last = max(tags)
    values: dict[int, bytes] = {}
    at = start
    while at + _SHORTEST_HEAD <= len(dataset):
        head = reader.head(at)
        if head.tag > last:
            return values
        if head.tag < _FIRST_TAG:
            # Behind our own file meta information, readers would take it for a part of that.
            raise DecodingError("it holds elements of a command or of a file's header")
        at = reader.end_of(head)
        if at > len(dataset):
            break
        if head.tag in sequences:
            values[head.tag] = dataset[head.value_at : min(at, head.value_at + _LONGEST_HEAD)]
        elif head.tag in tags and at - head.value_at == head.length <= _LONGEST_VALUE:
            values[head.tag] = dataset[head.value_at : at]
    if at != len(dataset):
        raise DecodingError("it ends within an element")
    return values


def read_nested(
    dataset: Encoded,
    tags: Collection[int],
    sequences: Collection[int],
    *,
    start: int = 0,
    is_implicit_vr: bool,
    is_little_endian: bool,
) -> list[tuple[int, bytes]]:
    """Return tag and value of each of `tags` that lies in nested `sequences`, in their order.

    Which item an element lies in is not told. Other sequences are stepped over, and the walk ends
    where the pixels begin.

    Raises:
        DecodingError: as `read_elements`.
    """
    reader = _Reader(
        dataset, start, is_implicit_vr=is_implicit_vr, is_little_endian=is_little_endian
    )
    at = start
    found: list[tuple[int, bytes]] = []
    is_inside = False
    while at + _SHORTEST_HEAD <= len(dataset):
        head = reader.head(at)
        if _FIRST_PIXEL_TAG <= head.tag < _ITEM:
            break
        if head.tag in sequences or head.tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
            is_inside = True
            at = head.value_at
            continue
        at = reader.end_of(head)
        if is_inside and head.tag in tags and head.length <= _LONGEST_VALUE:
            found.append((head.tag, dataset[head.value_at : min(at, len(dataset))]))
    return found


def check_elements(
    dataset: Encoded, start: int, *, is_implicit_vr: bool, is_little_endian: bool
) -> None:
    """Make sure that a reader which builds all that lies in sequences can take the data set.

    Args:
        dataset: what holds the data set, a whole file for example.
        start: where in it the data set begins. It may end within its last element, such as the
            pixels of an interrupted transfer: what is missing takes no memory.
        is_implicit_vr, is_little_endian: how it is encoded.

    Raises:
        DecodingError: its sequences are as `read_elements` says, anywhere in the data set.
    """
    reader = _Reader(
        dataset, start, is_implicit_vr=is_implicit_vr, is_little_endian=is_little_endian
    )
    at = start
    while at + _SHORTEST_HEAD <= len(dataset):
        at = reader.end_of(reader.head(at))


def scan_elements(
    head: bytes, tags: Collection[int], *, is_implicit_vr: bool
) -> dict[int, bytes] | None:
    """Return the values of `tags` from the first bytes of a little endian data set.

    The ordinary data set, in a fraction of the time that `read_elements` takes. None where the
    bytes do not reach beyond the greatest of the tags, or hold anything out of the ordinary before:
    an undefined length, a tag out of order, a VR that the standard does not name.
    """
    last = max(tags)
    values: dict[int, bytes] = {}
    at, before, end = 0, _FIRST_TAG - 1, len(head) - _LONGEST_HEAD
    while at <= end:
        if is_implicit_vr:
            group, element, length = _IMPLICIT_HEAD.unpack_from(head, at)
            at += 8
        else:
            group, element, vr, length = _EXPLICIT_HEAD.unpack_from(head, at)
            at += 8
            if vr in _LONG_VR:
                (length,) = _LONG_LENGTH.unpack_from(head, at)
                at += 4
            elif vr not in _SHORT_VR:
                return None
        tag = group << 16 | element
        if tag <= before:
            return None
        if tag > last:
            return values
        if length > _LONGEST_VALUE:
            return None
        if tag in tags:
            values[tag] = head[at : at + length]
        before = tag
        at += length
    return None


class _Reader:
    """Steps from element to element of one encoded data set (DICOM PS3.5 section 7)."""

    def __init__(
        self, dataset: Encoded, start: int, *, is_implicit_vr: bool, is_little_endian: bool
    ) -> None:
        self._dataset = dataset
        self._is_implicit_vr = is_implicit_vr
        vr_of_first = dataset[start + 4 : start + 6]
        if len(vr_of_first) == 2:
            # Some senders encode otherwise than they announce; pydicom goes by the first element.
            self._is_implicit_vr = not _KNOWN_VR.fullmatch(vr_of_first)
        order = "<" if is_little_endian else ">"
        self._tag_and_length = struct.Struct(order + "HHL")
        self._tag_and_vr = struct.Struct(order + "HH2sH")
        self._length = struct.Struct(order + "L")
        self._sequence_end = self._tag_and_length.pack(0xFFFE, 0xE0DD, 0)
        self._left = _MOST_ELEMENTS

    def head(self, at: int) -> _Head:
        """Return tag, VR and length of the element at `at`."""
        self._left -= 1
        if self._left < 0:
            raise DecodingError("it has too many elements")
        try:
            group, element, vr, length = self._tag_and_vr.unpack_from(self._dataset, at)
            tag = group << 16 | element
            # Some writers turn to implicit VR within an explicit data set; items have no VR.
            if self._is_implicit_vr or group == 0xFFFE or not _KNOWN_VR.fullmatch(vr):
                _, _, length = self._tag_and_length.unpack_from(self._dataset, at)
                return _Head(tag, b"", length, at + 8)
            if vr in _LONG_VR:
                (length,) = self._length.unpack_from(self._dataset, at + 8)
                return _Head(tag, vr, length, at + 12)
        except struct.error as error:
            raise DecodingError("it ends within an element") from error
        return _Head(tag, vr, length, at + 8)

    def end_of(self, head: _Head) -> int:
        """Return where an element at the top level ends, be it behind the data set."""
        if head.length == _UNDEFINED:
            return self.after_undefined(head)
        return head.value_at + head.length

    def after(self, head: _Head) -> int:
        """Return where an element or item of defined length within a sequence ends."""
        end = head.value_at + head.length
        if end > len(self._dataset):
            raise DecodingError("it ends within an element")
        return end

    def after_undefined(self, head: _Head) -> int:
        """Return where a value of undefined length ends (DICOM PS3.5 section 7.5.2).

        Within it, sequences and items take turns, so that their depth says in which one is.
        """
        if not self._is_sequence(head):
            return self._after_delimiter(head.value_at)
        at, depth = head.value_at, 1
        while depth:
            inner = self.head(at)
            is_in_sequence = depth % 2 == 1
            ends = _SEQUENCE_END if is_in_sequence else _ITEM_END
            if inner.tag == ends:
                at, depth = inner.value_at, depth - 1
            elif is_in_sequence and inner.tag != _ITEM:
                raise DecodingError("a sequence holds something else than items")
            elif inner.length != _UNDEFINED:
                at = self.after(inner)
            elif is_in_sequence or self._is_sequence(inner):
                at, depth = inner.value_at, depth + 1
            else:
                at = self._after_delimiter(inner.value_at)
            if depth > 2 * _DEEPEST:
                raise DecodingError(f"its sequences are nested deeper than {_DEEPEST} times")
        return at

    def _is_sequence(self, head: _Head) -> bool:
        if head.vr == b"SQ":
            return True
        return self.head(head.value_at).tag in (_ITEM, _SEQUENCE_END)

    def _after_delimiter(self, at: int) -> int:
        found = self._dataset.find(self._sequence_end, at)
        if found < 0:
            raise DecodingError("a value of undefined length has no end")
        return found + len(self._sequence_end)
