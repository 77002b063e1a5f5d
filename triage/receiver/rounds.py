"""Threads of the receiver that do what is due, again and again, until it stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Protocol

import structlog

from triage.store.changes import CommitWatch, Lookout
from triage.store.database import Database

log = structlog.get_logger(__name__)


class Duty(Protocol):
    """Work of a receiver that goes on by itself, in threads of its own."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """Come to an end."""
        ...


class Rounds:
    """Calls `go_round` as long as it returns True, and then every `pause_s` seconds.

    An error is logged once and the rounds go on: they must outlive a database or a peer that is
    away.
    """

    def __init__(
        self,
        name: str,
        go_round: Callable[[], object],
        *,
        pause_s: float = 0.5,
        pauses_first: bool = False,
        share_of_time: float = 0.0,
        failing: str = "",
        commits_to: Database | None = None,
        is_pressing: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare.

        Args:
            name: of the thread.
            go_round: one round.
            pause_s: the pause after a round, in seconds.
            pauses_first: whether there is a pause before the first round too.
            share_of_time: how many times as long as the round before it a pause is at least.
            failing: what the log says of an error, instead of the error with its traceback.
            commits_to: the database whose commits bring something to do. While there are none, a
                round begins once a second, for what becomes due with time.
            is_pressing: whether a round is to begin after the pause though nothing was committed.
        """
        self._name = name
        self._go_round = go_round
        self._pause_s = pause_s
        self._pauses_first = pauses_first
        self._share_of_time = share_of_time
        self._failing = failing
        self._database = commits_to
        self._is_pressing = is_pressing
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"triage-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_ending(self) -> bool:
        """Whether no further round begins."""
        return self._stopping.is_set()

    def end(self) -> None:
        """Begin no further round."""
        self._stopping.set()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the round that is under way, or leave it to end with the process."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        if self._database is None:
            self._go_on(lambda: True)
            return
        with closing(CommitWatch(self._database)) as watch:
            lookout = Lookout(watch)
            self._go_on(lambda: lookout.is_due() or self._is_pressing())

    def _go_on(self, is_due: Callable[[], bool]) -> None:
        was_failing = False
        pause_s = self._pause_s if self._pauses_first else 0.0
        while not self._stopping.wait(pause_s):
            if not was_failing and not is_due():
                continue
            started = time.monotonic()
            try:
                while not self.is_ending and self._go_round() is True:
                    pass
                was_failing = False
            except Exception as error:  # noqa: BLE001 - the thread must outlive an outage
                if not was_failing:
                    self._say(error)
                was_failing = True
            pause_s = max(self._pause_s, self._share_of_time * (time.monotonic() - started))

    def _say(self, error: Exception) -> None:
        if self._failing:
            log.warning(self._failing, error=type(error).__name__)
        else:
            log.exception("round failed", rounds=self._name, error=type(error).__name__)
