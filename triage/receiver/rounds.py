"""A thread that does what is due, again and again, until the receiver stops."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class Rounds:
    """Calls `go_round` until it returns False, then every `pause_s` seconds or when woken.

    An error is logged once and the rounds go on: they must outlive a database or a peer that is
    away.
    """

    def __init__(self, name: str, go_round: Callable[[], bool], *, pause_s: float = 0.5) -> None:
        self._name = name
        self._go_round = go_round
        self._pause_s = pause_s
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name=f"triage-{self._name}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Let the next round begin at once."""
        self._woken.set()

    def end(self) -> None:
        """Begin no further round."""
        self._stopping.set()
        self._woken.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the round that is under way, or leave it to end with the process."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        was_failing = False
        while not self._stopping.is_set():
            try:
                while not self._stopping.is_set() and self._go_round():
                    pass
                was_failing = False
            except Exception as error:
                if not was_failing:
                    log.exception("round failed", rounds=self._name, error=type(error).__name__)
                was_failing = True
            self._woken.wait(self._pause_s)
            self._woken.clear()
