"""How honest bytes become hostile ones, as strategies that Hypothesis can shrink."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

_INTERESTING = (
    b"\x00",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\xfe\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\xff\xff",
    b"\x00\x80",
    b"\x1b$B",
    b"\\",
    b"../",
    b"%s%n",
    b"SQ",
    b"UN",
    b"OB\x00\x00",
    struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF),
    struct.pack("<HHL", 0xFFFE, 0xE00D, 0),
    struct.pack("<HHL", 0xFFFE, 0xE0DD, 0),
    b"\xff\x4f\xff\x51",
    b"\x04\x00\x00\x00",
    b"\r\n--",
)


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change, at a place that is given as a share of the length.

    Attributes:
        kind: "flip" a bit, "overwrite", "insert", "cut" out, "repeat" a stretch, or "end" there.
        place, extent: from 0 to 1.
        content: what is written, of "overwrite" and "insert".
    """

    kind: str
    place: float
    extent: float
    content: bytes

    def of(self, original: bytes) -> bytes:
        """Return `original` with this change."""
        at = int(self.place * len(original))
        until = at + int(self.extent * (len(original) - at))
        match self.kind:
            case "flip" if original:
                at = min(at, len(original) - 1)
                flipped = original[at] ^ (1 << int(self.extent * 7))
                return original[:at] + bytes([flipped]) + original[at + 1 :]
            case "overwrite":
                return original[:at] + self.content + original[at + len(self.content) :]
            case "insert":
                return original[:at] + self.content + original[at:]
            case "cut":
                return original[:at] + original[until:]
            case "repeat":
                return original[:until] + original[at:until] * 3 + original[until:]
            case _:
                return original[:at]


# Of whole numbers: floats would mostly be 0 or next to it, and change nothing but the beginning.
_SHARE = st.integers(0, 9_999).map(lambda number: number / 10_000)
_SMALL_SHARE = st.integers(0, 200).map(lambda number: number / 10_000)
_MUTATION = st.builds(
    Mutation,
    kind=st.sampled_from(
        ["flip", "flip", "overwrite", "overwrite", "insert", "cut", "repeat", "end"]
    ),
    place=_SHARE,
    # Mostly short stretches: long ones leave little of what was honest.
    extent=st.one_of(_SMALL_SHARE, _SMALL_SHARE, _SMALL_SHARE, _SHARE),
    content=st.one_of(st.sampled_from(_INTERESTING), st.binary(min_size=1, max_size=8)),
)


def _mutated(original: bytes, mutations: Sequence[Mutation]) -> bytes:
    for mutation in mutations:
        original = mutation.of(original)
    return original


def mutations_of(originals: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return a strategy for inputs that come of one of `originals` by a few changes."""
    return st.builds(
        _mutated, st.sampled_from(originals), st.lists(_MUTATION, min_size=1, max_size=4)
    )
