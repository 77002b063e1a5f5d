"""What a host prints: read at once, so that no host waits for a reader, and mostly forgotten."""

from __future__ import annotations

import threading
from typing import IO

_KEPT_BYTES = 4096
_TOLD_CHARACTERS = 300


class LastWords:
    """The end of what comes out of a pipe."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._kept = b""
        self._reader = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._reader.start()

    def text(self, timeout_s: float = 1.0) -> str:
        """Return the last line that was printed, or "" where there was none.

        Waits up to `timeout_s` for the other side to have ended.
        """
        self._reader.join(timeout_s)
        lines = self._kept.decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        printable = "".join(c if c.isprintable() else " " for c in said[-1]) if said else ""
        return printable[-_TOLD_CHARACTERS:]

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            while chunk := pipe.read1(1 << 16):  # type: ignore[attr-defined]
                self._kept = (self._kept + chunk)[-_KEPT_BYTES:]
