"""What senders send, counted in memory where it arrives and written with what is written anyway."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from triage.core.visits import Ending, Way
from triage.store.clock import Clock
from triage.store.visits import Caller, RefusedCaller, VisitPart

_MOST_REFUSED = 1000


@dataclass(slots=True)
class _Count:
    began_at: datetime
    last_at: datetime
    instances: int = 0
    refused: int = 0
    size_bytes: int = 0
    last_error: str = ""
    is_first: bool = True
    is_new: bool = True


class VisitTally:
    """Counts what comes in one association, request or pull, of each study."""

    def __init__(self, way: Way, address: str, clock: Clock) -> None:
        self._way = way
        self._address = address
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, int | None], _Count] = {}

    def stored(self, calling_ae_title: str, study_id: int, size_bytes: int) -> None:
        """Count an instance that was acknowledged; `study_id` 0 is of no study yet."""
        with self._lock:
            count = self._count(calling_ae_title, study_id or None)
            count.instances += 1
            count.size_bytes += size_bytes

    def refused(self, calling_ae_title: str, why: str) -> None:
        """Count an instance that was not taken; `why` is what the sender was told."""
        with self._lock:
            count = self._count(calling_ae_title, None)
            count.refused += 1
            count.last_error = why

    def _count(self, calling_ae_title: str, study_id: int | None) -> _Count:
        now = self._clock()
        key = (calling_ae_title.strip(), study_id)
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count(now, now)
        count.last_at = now
        count.is_new = True
        return count

    def unwritten(self, ending: Ending = Ending.OPEN) -> list[VisitPart]:
        """Return what has not been written; with an `ending`, that too of what was written."""
        with self._lock:
            return [
                VisitPart(
                    caller=Caller(title, self._address, self._way),
                    study_id=study_id,
                    is_first=count.is_first,
                    instances=count.instances,
                    refused=count.refused,
                    size_bytes=count.size_bytes,
                    began_at=count.began_at,
                    last_at=count.last_at,
                    ended=ending,
                    last_error=count.last_error,
                )
                for (title, study_id), count in self._counts.items()
                if count.is_new or ending is not Ending.OPEN
            ]

    def written(self, parts: Sequence[VisitPart]) -> None:
        """Note that `parts` are committed, so that nothing is counted twice or lost."""
        with self._lock:
            for part in parts:
                count = self._counts[part.caller.calling_ae_title, part.study_id]
                count.instances -= part.instances
                count.refused -= part.refused
                count.size_bytes -= part.size_bytes
                count.is_first = False
                count.is_new = bool(count.instances or count.refused)


class RefusedCallers:
    """Counts rejected associations by caller and reason; of strangers by the thousand, no more."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._times: Counter[tuple[str, str, str]] = Counter()

    def add(self, calling_ae_title: str, address: str, reason: str) -> None:
        """Count a rejection."""
        key = (calling_ae_title.strip(), address, reason)
        with self._lock:
            if key in self._times or len(self._times) < _MOST_REFUSED:
                self._times[key] += 1

    def unwritten(self) -> list[RefusedCaller]:
        """Return those that have not been written."""
        now = self._clock()
        with self._lock:
            return [RefusedCaller(*key, times, now) for key, times in self._times.items()]

    def written(self, refused: Sequence[RefusedCaller]) -> None:
        """Note that these are committed."""
        with self._lock:
            for one in refused:
                key = (one.calling_ae_title, one.address, one.reason)
                self._times[key] -= one.times
                if not self._times[key]:
                    del self._times[key]
