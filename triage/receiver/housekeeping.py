"""A thread of the receiver that deletes what retention says, and watches the disk."""

from __future__ import annotations

from datetime import timedelta

from triage.receiver.rounds import Rounds
from triage.settings import Settings
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.disk import Watermarks
from triage.store.files import InstanceFiles
from triage.store.purge import LeaseTakenError, Purger
from triage.store.sweep import Sweep

_LOOK_AT_DISK_S = 10.0
_SWEEP = timedelta(hours=6)


class Housekeeping:
    """Rounds of deleting, beside receiving; one of several receivers does them at a time."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        files: InstanceFiles,
        watermarks: Watermarks,
        clock: Clock,
        *,
        holder: str,
    ) -> None:
        self._purger = Purger(database, files, settings.retention, clock, holder=holder)
        self._sweep = Sweep(
            database,
            files,
            clock,
            unindexed_after=timedelta(days=settings.retention.unindexed_days),
        )
        self._watermarks = watermarks
        self._clock = clock
        self._pause = timedelta(seconds=settings.retention.interval_s)
        # Not at once: a receiver that has just started has senders waiting.
        self._next_round = clock() + self._pause
        self._next_sweep = clock() + self._pause
        self._rounds = Rounds(
            "housekeeping",
            self.go_round,
            pause_s=min(_LOOK_AT_DISK_S, settings.retention.interval_s),
            pauses_first=True,
            failing="housekeeping failed",
        )

    def start(self) -> None:
        """Start the thread."""
        self._rounds.start()

    def stop(self) -> None:
        """End the thread after the study that it is at."""
        self._rounds.end()
        self._rounds.join()

    def go_round(self) -> None:
        """Do what is due now."""
        self._watermarks.level()  # says so in the log when it changes, also while nobody sends
        now = self._clock()
        if now >= self._next_round:
            self._next_round = now + self._pause
            try:
                self._purger.go_round(self._is_ending)
            except LeaseTakenError:
                return
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP
            self._sweep.go_round(self._is_ending)

    def _is_ending(self) -> bool:
        return self._rounds.is_ending
