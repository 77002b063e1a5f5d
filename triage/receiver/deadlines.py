"""Time limits that pynetdicom does not watch: those of a whole message and a whole association."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from pynetdicom.association import Association

log = structlog.get_logger(__name__)

Monotonic = Callable[[], float]
_ROUND_S = 0.25
_GRACE_S = 2.0


class Watched(Protocol):
    """An association whose time is limited."""

    def arriving(self) -> object | None:
        """Return what stands for the message that is arriving, None between two messages."""
        ...

    def is_busy(self) -> bool:
        """Return whether a message is being answered."""
        ...

    def abort(self) -> None:
        """Tell the peer that it is over; must not wait."""
        ...

    def cut(self) -> None:
        """Close the connection whatever the peer does; must not wait."""
        ...

    def is_over(self) -> bool:
        """Return whether nothing is left to end."""
        ...


@dataclass
class _Watch:
    association: Watched
    opened_at: float
    message: weakref.ref[Any] | None = None
    message_since: float = 0.0
    aborted_at: float | None = None


class Deadlines:
    """A thread that ends associations which live too long or whose message never ends.

    The idle timer of an association starts anew with each PDU, and a read with each byte: a peer
    that sends a little now and then would hold its thread, and its studies open, for ever.
    """

    def __init__(
        self,
        *,
        message_s: float,
        association_s: float,
        monotonic: Monotonic = time.monotonic,
    ) -> None:
        self._message_s = message_s
        self._association_s = association_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._watches: list[_Watch] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="triage-deadlines", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()

    def watch(self, association: Watched) -> None:
        """Limit the time of an association that was opened just now."""
        with self._lock:
            self._watches.append(_Watch(association, self._monotonic()))

    def __len__(self) -> int:
        with self._lock:
            return len(self._watches)

    def _run(self) -> None:
        while not self._stopping.wait(_ROUND_S):
            self.go_round()

    def go_round(self) -> None:
        """End what is due now."""
        now = self._monotonic()
        with self._lock:
            self._watches = [w for w in self._watches if not w.association.is_over()]
            watches = list(self._watches)
        for watch in watches:
            self._look_at(watch, now)

    def _look_at(self, watch: _Watch, now: float) -> None:
        if watch.aborted_at is not None:
            # A thread that waits for the rest of a PDU does not get to sending the abort.
            if now - watch.aborted_at >= _GRACE_S:
                watch.association.cut()
            return
        reason = self._overdue(watch, now)
        if reason:
            log.warning("association ended", reason=reason)
            watch.aborted_at = now
            watch.association.abort()

    def _overdue(self, watch: _Watch, now: float) -> str:
        message = watch.association.arriving()
        if message is None:
            watch.message = None
            # Only between two messages: the last one need not be sent again for it.
            if now - watch.opened_at >= self._association_s and not watch.association.is_busy():
                return f"it lasted longer than {self._association_s:g} s"
            return ""
        if watch.message is None or watch.message() is not message:
            watch.message, watch.message_since = weakref.ref(message), now
        if now - watch.message_since >= self._message_s:
            return f"a message took longer than {self._message_s:g} s to arrive"
        return ""


class WatchedAssociation:
    """An association of pynetdicom's as `Deadlines` sees it."""

    def __init__(self, association: Association) -> None:
        self._association = association

    def arriving(self) -> object | None:
        """Return what stands for the message that is arriving."""
        return getattr(self._association.dul, "arriving", None)

    def is_busy(self) -> bool:
        """Return whether a message is being answered, by one thread or the other."""
        association = self._association
        return (
            getattr(association.dul, "is_answering", False)
            or not association._is_paused
            or not association.dimse.msg_queue.empty()
        )

    def abort(self) -> None:
        """Send A-ABORT (DICOM PS3.8 9.3.8)."""
        self._association.abort(block=False)

    def cut(self) -> None:
        """Shut the connection down, so that a read of its thread ends."""
        transport = self._association.dul.socket
        connection = transport.socket if transport is not None else None
        if connection is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket's own: it takes the TLS layer away from under a read.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def is_over(self) -> bool:
        """Return whether both threads of the association have ended."""
        return not self._association.is_alive() and not self._association.dul.is_alive()
