"""A thread of the receiver that moves studies when the policy or their wait says so."""

from __future__ import annotations

from triage.receiver.rounds import Rounds
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.prioritising import is_ranking_due, rank_some

_LOOK_EVERY_S = 2.0


class PlaceRounds:
    """Rounds of ranking; several may do so on one database, each study is ranked by one of them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._rounds = Rounds(
            "places",
            self.go_round,
            pause_s=_LOOK_EVERY_S,
            failing="places do not follow the policy",
        )

    def start(self) -> None:
        """Start the thread."""
        self._rounds.start()

    def stop(self) -> None:
        """End the thread after the round that is under way."""
        self._rounds.end()
        self._rounds.join()

    def go_round(self) -> bool:
        """Rank some studies, if any are due; return whether there were any."""
        with self._database.reading() as session:
            if not is_ranking_due(session, self._clock()):
                return False
        with self._database.transaction() as session:
            return rank_some(session, self._clock()) > 0
