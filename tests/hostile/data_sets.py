"""Hostile data sets, put together byte by byte where no library would write them."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from tests.datasets import ct_slice
from tests.hostile.conftest import SECRET, SOP_INSTANCE

STUDY = "1.2.826.0.1.3680043.9999.1"


def victim(**attributes: Any) -> Dataset:
    """Return an honest slice, with the name that no log may have."""
    identity = {"PatientName": SECRET, "SOPInstanceUID": SOP_INSTANCE}
    return ct_slice(STUDY, **(identity | attributes))


def encoded(dataset: Dataset, *, is_implicit_vr: bool = False) -> bytes:
    """Return `dataset` encoded in little endian."""
    content = encode(dataset, is_implicit_vr, True)
    assert content is not None
    return content


def raw_element(
    group: int, number: int, vr: bytes, value: bytes, *, length: int | None = None
) -> bytes:
    """Return an element in Explicit VR Little Endian; `length` is the lie about its length."""
    said = len(value) if length is None else length
    if vr in (b"SQ", b"OB", b"OW", b"UN", b"UT"):
        return struct.pack("<HH2sHL", group, number, vr, 0, said) + value
    return struct.pack("<HH2sH", group, number, vr, said) + value


ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
EMPTY_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0)


def nested_sequences(depth: int, *, tag: tuple[int, int] = (0x0008, 0x0001)) -> bytes:
    """Return sequences of undefined length, each in the only item of the one around it."""
    opening = raw_element(*tag, b"SQ", b"", length=0xFFFFFFFF) + ITEM
    return opening * depth + (ITEM_END + SEQUENCE_END) * depth


def nested_sequences_of_defined_length(
    depth: int, *, tag: tuple[int, int] = (0x0008, 0x0001)
) -> bytes:
    """Return the same with lengths, which a reader can step over."""
    heads = []
    for level in range(depth):
        inner = level * 20  # an element of 12 bytes and an item of 8 for each level further in
        item_head = struct.pack("<HHL", 0xFFFE, 0xE000, inner)
        heads.append(struct.pack("<HH2sHL", *tag, b"SQ", 0, inner + 8) + item_head)
    return b"".join(reversed(heads))


def deflated(content: bytes) -> bytes:
    """Return `content` as Deflated Explicit VR Little Endian has it (PS3.5 A.5)."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(content) + deflate.flush()


def deflate_bomb(start: bytes, inflated_mib: int) -> bytes:
    """Return some kilobytes that inflate to `start` and then that many MiB of zeros.

    After a full flush a block knows nothing of those before it, so that one can be repeated.
    """
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    first = deflate.compress(start) + deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(bytes(16 * 1024**2)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return first + block * (inflated_mib // 16) + deflate.flush(zlib.Z_FINISH)


def jpeg_2000_bomb(rows: int, columns: int, *, tile: int | None = None) -> bytes:
    """Return the main header of a JPEG 2000 codestream of that size, and next to nothing else.

    ISO/IEC 15444-1 A.5.1 (SIZ), A.6.1 (COD), A.6.4 (QCD), A.4.2 (SOT).
    """
    tile_columns, tile_rows = (tile, tile) if tile else (columns, rows)
    siz = struct.pack(
        ">HHLLLLLLLLHBBB",
        *(41, 0, columns, rows, 0, 0, tile_columns, tile_rows, 0, 0, 1),
        *(15, 1, 1),
    )
    cod = struct.pack(">HBBHBBBBBB", 12, 0, 0, 1, 0, 5, 4, 4, 0, 1)
    qcd = struct.pack(">HB16B", 19, 0x40, *[0x48] * 16)
    sot = struct.pack(">HHLBB", 10, 0, 0, 0, 1)
    return (
        b"\xff\x4f\xff\x51" + siz + b"\xff\x52" + cod + b"\xff\x5c" + qcd + b"\xff\x90" + sot
    ) + b"\xff\x93\xff\xd9"
