"""What a compressed frame says of its own size, read before a decoder makes room for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from triage.decoding.errors import DecodingError

_JPEG_START = b"\xff\xd8"
_JPEG_2000_START = b"\xff\x4f\xff\x51"  # SOC and SIZ (ISO/IEC 15444-1 A.4.1, A.5.1)
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "  # the file format around a codestream (15444-1 I.5.1)
_SIZ = struct.Struct(">HH8LH")
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_SCAN = 0xDA
_MOST_TILES = 10_000  # OpenJPEG makes room for each, some kilobytes, before it reads any


@dataclass(frozen=True, slots=True)
class CodestreamSize:
    """Rows, columns and components of a frame, as its codestream announces them."""

    rows: int
    columns: int
    components: int


def codestream_sizes(frame: bytes) -> Iterator[CodestreamSize]:
    """Yield each size that a JPEG, JPEG-LS or JPEG 2000 frame announces; none for other frames.

    Within a JP2 file every codestream counts, as it is the decoder's affair which one it takes.

    Raises:
        DecodingError: a header is cut off, or announces no size or too many tiles.
    """
    try:
        if frame.startswith(_JPEG_2000_START):
            yield _size_of_jpeg_2000(frame, 0)
        elif frame.startswith(_JP2_SIGNATURE):
            at = frame.find(_JPEG_2000_START)
            while at >= 0:
                yield _size_of_jpeg_2000(frame, at)
                at = frame.find(_JPEG_2000_START, at + 1)
        elif frame.startswith(_JPEG_START):
            yield from _sizes_of_jpeg(frame)
    except (struct.error, IndexError) as error:
        raise DecodingError("the header of its codestream is cut off") from error


def _size_of_jpeg_2000(frame: bytes, at: int) -> CodestreamSize:
    _, _, right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, components = (
        _SIZ.unpack_from(frame, at + len(_JPEG_2000_START))
    )
    if right <= left or bottom <= top or not tile_width or not tile_height:
        raise DecodingError("its codestream announces no size")
    across = -(-(right - tile_left) // tile_width)
    down = -(-(bottom - tile_top) // tile_height)
    if across * down > _MOST_TILES:
        raise DecodingError(f"its codestream announces {across * down} tiles")
    return CodestreamSize(bottom - top, right - left, components)


def _sizes_of_jpeg(frame: bytes) -> Iterator[CodestreamSize]:
    """Yield what stands in each frame header before the first scan (ISO/IEC 10918-1 B.2.2)."""
    at = len(_JPEG_START)
    while True:
        if frame[at] != 0xFF:
            raise DecodingError("its codestream has no frame header")
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte (B.1.1.2)
            at += 1
            continue
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        if marker == _START_OF_SCAN:
            return
        (length,) = struct.unpack_from(">H", frame, at + 2)
        if marker in _START_OF_FRAME:
            rows, columns, components = struct.unpack_from(">HHB", frame, at + 5)
            if not rows or not columns:
                raise DecodingError("its codestream announces no size")
            yield CodestreamSize(rows, columns, components)
        at += 2 + length
