"""A thread of the receiver that deletes what retention says, and watches the disk."""

from __future__ import annotations

import threading
from datetime import timedelta

import structlog

from triage.settings import Settings
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.disk import Watermarks
from triage.store.files import InstanceFiles
from triage.store.purge import LeaseTakenError, Purger
from triage.store.sweep import Sweep

log = structlog.get_logger(__name__)

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
        self._tick_s = min(_LOOK_AT_DISK_S, settings.retention.interval_s)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="triage-housekeeping", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the study that it is at."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        was_failing = False
        while not self._stopping.wait(self._tick_s):
            try:
                self.go_round()
                was_failing = False
            except Exception as error:  # noqa: BLE001 - the thread must outlive an outage
                if not was_failing:
                    log.warning("housekeeping failed", error=type(error).__name__)
                was_failing = True

    def go_round(self) -> None:
        """Do what is due now."""
        self._watermarks.level()  # says so in the log when it changes, also while nobody sends
        now = self._clock()
        if now >= self._next_round:
            self._next_round = now + self._pause
            try:
                self._purger.go_round(self._stopping.is_set)
            except LeaseTakenError:
                return
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP
            self._sweep.go_round(self._stopping.is_set)
