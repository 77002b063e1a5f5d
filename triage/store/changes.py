"""Whether anything was committed since one looked last, for a millionth of a second's work.

Loops that look again and again for something to do would else put the same questions to a database
that has not changed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass

from triage.store.database import Database

_LONGEST_BLIND_S = 1.0


class CommitWatch:
    """Tells the commits of all connections to an SQLite file; used and closed by one thread."""

    def __init__(self, database: Database) -> None:
        self._file = database.file
        self._connection: sqlite3.Connection | None = None

    def stamp(self) -> int | None:
        """Return a number that a commit changes, or None where only looking helps.

        That is PostgreSQL, where asking would cost as much as looking.
        """
        if self._file is None:
            return None
        try:
            if self._connection is None:
                # Without patience: whoever asks must not wait for a writer.
                self._connection = sqlite3.connect(self._file, timeout=0, isolation_level=None)
            # https://www.sqlite.org/pragma.html#pragma_data_version
            stamp: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            self.close()
            return None
        return stamp

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass(slots=True)
class Lookout:
    """Whether it is time to look for something to do.

    It is after each commit of anybody, as long as the last look left something, and at the latest
    after `longest_s`, for what becomes due with time alone, such as retries and leases.
    """

    watch: CommitWatch
    longest_s: float = _LONGEST_BLIND_S
    monotonic: Callable[[], float] = time.monotonic
    _seen: int | None = None
    _looked_at: float = float("-inf")

    def is_due(self) -> bool:
        """Say whether to look now. What is committed while one looks makes the next look due."""
        stamp, now = self.watch.stamp(), self.monotonic()
        if stamp is not None and stamp == self._seen and now < self._looked_at + self.longest_s:
            return False
        self._seen, self._looked_at = stamp, now
        return True

    def look_again(self) -> None:
        """Make the next look due: something is left to do."""
        self._seen = None
