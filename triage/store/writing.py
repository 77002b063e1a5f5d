"""Writing pieces that lie apart in memory to a file, without joining them first."""

from __future__ import annotations

import os
from collections.abc import Sequence

Piece = bytes | bytearray | memoryview


def write_all(descriptor: int, pieces: Sequence[Piece], position: int) -> None:
    """Write `pieces`, at most IOV_MAX (1024) of them, one behind the other from `position` on.

    Raises:
        OSError: the disk refused; a part may be written.
    """
    wanted = sum(map(len, pieces))
    written = os.pwritev(descriptor, pieces, position)
    if written < wanted:  # a signal or a limit; rare, so the rest is joined
        rest = memoryview(b"".join(pieces))
        while written < wanted:
            written += os.pwrite(descriptor, rest[written:], position + written)
