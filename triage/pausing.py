"""Pausing the thread that pynetdicom gives each association, while we wait for an answer.

The thread looks for what the peer asks of us. Pynetdicom (3.0) pauses it before it waits for an
answer of the peer; what goes wrong there is mended here, for all that Triage asks of others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pynetdicom.association import Association

_PAUSES_WITHIN_S = 0.0005


def lose_no_answer(association: Association) -> Association:
    """Return the association that we opened, whose own thread takes no answer away from us.

    Pynetdicom takes the thread for paused from the moment before it looks whether it is to pause.
    An answer that comes before it has looked for messages once more is thrown away, and whoever
    waits for it waits until the timeout.
    """
    association._reactor_checkpoint = _Checkpoint(association)
    return association


def keep_pausable(association: Any) -> None:
    """Let a report come at any moment on an association that we opened.

    Pynetdicom serves a report in a thread of its own, which at its end notes that the association
    is not paused. If a call (a request, the release) has just paused it, that call would wait for
    ever.
    """
    serve = association._serve_request

    def serve_and_stay_paused(message: Any, context_id: int) -> None:
        serve(message, context_id)
        if not association._reactor_checkpoint.is_set():
            association._is_paused = True

    association._serve_request = serve_and_stay_paused


@contextmanager
def exclusive(association: Association) -> Iterator[None]:
    """Keep the thread of an association that loses no answer from taking what the caller waits for.

    Pynetdicom's own calls do so by themselves; this is for messages sent one by one.
    """
    association._reactor_checkpoint.clear()
    try:
        yield
    finally:
        association._reactor_checkpoint.set()


class _Checkpoint(threading.Event):
    """An event that is cleared once the thread that passes here waits for it."""

    def __init__(self, thread: threading.Thread) -> None:
        super().__init__()
        self._thread = thread
        self._changing = threading.Lock()
        self._may_pass = False
        self.set()

    def set(self) -> None:
        with self._changing:
            self._may_pass = True
            super().set()

    def clear(self) -> None:
        with self._changing:
            super().clear()
        while self._may_pass and self._thread.is_alive():
            time.sleep(_PAUSES_WITHIN_S)

    def wait(self, timeout: float | None = None) -> bool:
        with self._changing:
            if self.is_set():
                return True
            self._may_pass = False
        return super().wait(timeout)
