"""What a list would have been read in, had it been sorted otherwise: the same readings, replayed.

At each moment at which a study was read, whatever stands first on the list is taken to be read
instead. So the readers' work is the same, and only who waits for it differs.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

Key = tuple[int, datetime]
"""As `triage.core.places.Place.key`: lower is read first."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A study on the list: when it came, where it stood then, and where once the AI had spoken.

    `flagged_at` is None where the AI said nothing that counts.
    """

    study: int
    arrived_at: datetime
    key: Key
    flagged_at: datetime | None = None
    flagged_key: Key | None = None


def replay(waiting: Sequence[Waiting], readings: Sequence[datetime]) -> Mapping[int, datetime]:
    """Return when each study would have been read; who is not in it would still wait.

    >>> from datetime import UTC, timedelta
    >>> noon = datetime(2024, 5, 6, 12, tzinfo=UTC)
    >>> hour = timedelta(hours=1)
    >>> first, urgent = Waiting(1, noon, (-1, noon)), Waiting(2, noon + hour, (-3, noon + hour))
    >>> {study: at.hour for study, at in replay([first, urgent], [noon + 2 * hour]).items()}
    {2: 14}
    """
    moves = [(one.arrived_at, one.study, one.key) for one in waiting]
    moves += [
        (max(one.flagged_at, one.arrived_at), one.study, one.flagged_key)
        for one in waiting
        if one.flagged_at is not None and one.flagged_key is not None
    ]
    moves.sort()
    read: dict[int, datetime] = {}
    queue: list[tuple[Key, int]] = []
    position = 0
    for moment in sorted(readings):
        while position < len(moves) and moves[position][0] <= moment:
            heapq.heappush(queue, (moves[position][2], moves[position][1]))
            position += 1
        while queue:
            study = heapq.heappop(queue)[1]
            if study not in read:  # it stands twice where a flag moved it
                read[study] = moment
                break
    return read
