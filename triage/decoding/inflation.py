"""Deflated data sets (DICOM PS3.5 A.5), inflated no further than is safe."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from triage.decoding.errors import DecodingError

LARGEST_INFLATED_BYTES = 1024 * 1024 * 1024
"""What a deflated data set may become: 1 GiB, some 2000 slices of a CT.

A thousandth of it, sent, can become that (zlib's greatest ratio), and every reader of the stored
object would have to hold it in memory.
"""

_INPUT_BYTES = 64 * 1024
_OUTPUT_BYTES = 1024 * 1024


def inflated_start(deflated: bytes | memoryview, longest: int) -> bytes:
    """Return the first `longest` bytes of an inflated data set, after a look at all of it.

    The rest is inflated piece by piece and not kept.

    Raises:
        DecodingError: it becomes larger than LARGEST_INFLATED_BYTES, is damaged, or has no end.
    """
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    start = bytearray()
    size = 0
    try:
        for piece in _inflated(inflate, memoryview(deflated)):
            size += len(piece)
            if size > LARGEST_INFLATED_BYTES:
                raise DecodingError(
                    f"it inflates to more than {LARGEST_INFLATED_BYTES // 1024**2} MiB"
                )
            start += piece[: longest - len(start)]
    except zlib.error as error:
        raise DecodingError("what is deflated is damaged") from error
    if not inflate.eof:
        raise DecodingError("what is deflated ends too early")
    return bytes(start)


def _inflated(inflate: zlib._Decompress, deflated: memoryview) -> Iterator[bytes]:
    # In small pieces: zlib copies what it has not consumed at each call.
    for at in range(0, len(deflated), _INPUT_BYTES):
        waiting = bytes(deflated[at : at + _INPUT_BYTES])
        while not inflate.eof:
            yield inflate.decompress(waiting, _OUTPUT_BYTES)
            waiting = inflate.unconsumed_tail
            if not waiting:
                break
