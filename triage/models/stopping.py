"""How a run that nobody wants any more is stopped while its model computes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class RunStoppedError(Exception):
    """The run was stopped before its model began."""


class StopSignal:
    """Stops one run: its host is ended if it computes for it, and else not begun with.

    A host has the runs of many studies one after the other, so it may be ended only while it is
    this run that it computes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._end: Callable[[], None] | None = None

    @property
    def is_set(self) -> bool:
        """Whether the run is to stop."""
        return self._is_set

    @property
    def is_computing(self) -> bool:
        """Whether a host computes for the run at this moment."""
        return self._end is not None

    def set(self) -> None:
        """Stop the run."""
        with self._lock:
            self._is_set = True
            if self._end is not None:
                self._end()

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """Let `end` be called if the run is stopped within the block.

        Raises:
            RunStoppedError: it is stopped already.
        """
        with self._lock:
            if self._is_set:
                raise RunStoppedError
            self._end = end
        try:
            yield
        finally:
            with self._lock:
                self._end = None


_never = StopSignal()
stop_signal: ContextVar[StopSignal] = ContextVar("stop_signal", default=_never)
"""The signal of the run that this task carries; by default one that is never set."""
