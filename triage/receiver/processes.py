"""Several receiver processes on one port.

One Python process uses one core. Here a parent listens and hands each connection, as an open
descriptor, to the next of its children (round robin: with few long associations, the kernel's own
spreading by SO_REUSEPORT often leaves a process idle). Each child is a whole receiver under a name
of its own; what is to be done once and not in each, the first one does. The parent holds no
database connection and starts no thread, so it can fork a child again at any time.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import multiprocessing
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkProcess

import structlog

from triage.receiver.refusals import ReceiverError

log = structlog.get_logger(__name__)

_BACKLOG = 128
_LOOK_AFTER_CHILDREN_S = 0.2
_LONGEST_RESTART_PAUSE_S = 10.0
_STOP_WITHIN_S = 15.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Listener:
    """A place to listen on, and the setting that names it."""

    host: str
    port: int
    key: str
    is_tls: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """A child's part: which of how many it is, and a channel of connections for each listener."""

    index: int
    count: int
    channels: tuple[socket.socket, ...]


RunShare = Callable[[Share], None]
"""Serves a share until SIGTERM."""


@dataclass(slots=True)
class _Child:
    index: int
    process: ForkProcess | None = None
    channels: tuple[socket.socket, ...] = ()
    started_at: float = 0.0
    failures: int = 0
    start_again_at: float = field(default=0.0)


def bind(listener: Listener) -> socket.socket:
    """Return a socket that listens there.

    Raises:
        ReceiverError: the address is in use or not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
        return socket.create_server((listener.host, listener.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise not_listening(listener, error) from error


def not_listening(listener: Listener, error: OSError) -> ReceiverError:
    """Return in words why nobody can listen there."""
    if error.errno == errno.EADDRINUSE:
        return ReceiverError(
            f"port {listener.port} of {listener.host} is in use by another program; stop it, or "
            f"choose another with {listener.key}"
        )
    return ReceiverError(
        f"cannot listen on {listener.host} port {listener.port}: {error.strerror}; check "
        f"receiver.host and {listener.key}"
    )


class ReceiverProcesses:
    """The parent: accepts connections, hands them on, and starts again what has died."""

    def __init__(self, listeners: Sequence[Listener], count: int, run_share: RunShare) -> None:
        self._listeners = listeners
        self._run_share = run_share
        self._children = [_Child(index) for index in range(count)]
        self._next = 0
        self._stopping = False

    def run(self) -> None:
        """Serve until `stop` is called, by a signal handler.

        Raises:
            ReceiverError: the address is in use or not this machine's.
        """
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(bind(listener)) for listener in self._listeners]
            selector = stack.enter_context(selectors.DefaultSelector())
            for number, listening in enumerate(sockets):
                listening.setblocking(False)
                selector.register(listening, selectors.EVENT_READ, number)
            for child in self._children:
                self._start(child, sockets)
            try:
                while not self._stopping:
                    for key, _ in selector.select(_LOOK_AFTER_CHILDREN_S):
                        self._accept(sockets[key.data], key.data)
                    for child in self._children:
                        self._keep_running(child, sockets)
            finally:
                self._stop_all()

    def stop(self) -> None:
        """Let `run` return."""
        self._stopping = True

    def _start(self, child: _Child, sockets: Sequence[socket.socket]) -> None:
        pairs = [socket.socketpair() for _ in sockets]
        ours, theirs = zip(*pairs, strict=True)
        # What the child inherits and must not keep: a listening socket would hold the port after
        # the parent's death, and a channel of a sibling would hide that the parent has ended.
        foreign = [*sockets, *ours, *(s for c in self._children for s in c.channels)]
        share = Share(child.index, len(self._children), theirs)
        context = multiprocessing.get_context("fork")
        child.process = context.Process(
            target=_run_child, args=(share, foreign, self._run_share), daemon=True
        )
        child.process.start()
        for channel in theirs:
            channel.close()
        child.channels = ours
        child.started_at = time.monotonic()

    def _keep_running(self, child: _Child, sockets: Sequence[socket.socket]) -> None:
        now = time.monotonic()
        if child.process is not None:
            if child.process.is_alive():
                return
            log.warning(
                "receiver process ended", index=child.index, exit_code=child.process.exitcode
            )
            lived_s = now - child.started_at
            child.failures = 0 if lived_s > _LONGEST_RESTART_PAUSE_S else child.failures + 1
            pause_s = min(0.1 * 2**child.failures, _LONGEST_RESTART_PAUSE_S)
            child.start_again_at = now + (pause_s if child.failures else 0.0)
            self._forget(child)
        if now >= child.start_again_at:
            self._start(child, sockets)

    def _accept(self, listening: socket.socket, number: int) -> None:
        try:
            connection, _ = listening.accept()
        except OSError as error:  # the peer has given up, or no descriptor is left
            log.warning("connection not accepted", error=error.strerror)
            return
        with connection:
            for _ in self._children:
                child = self._children[self._next % len(self._children)]
                self._next += 1
                if child.channels and _hand_over(child.channels[number], connection):
                    return
        log.warning("connection closed: no receiver process is there to take it")

    def _forget(self, child: _Child) -> None:
        for channel in child.channels:
            channel.close()
        child.channels = ()
        child.process = None

    def _stop_all(self) -> None:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + _STOP_WITHIN_S
        for process in running:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


def _hand_over(channel: socket.socket, connection: socket.socket) -> bool:
    try:
        socket.send_fds(channel, [b"c"], [connection.fileno()], socket.MSG_DONTWAIT)
    except OSError:  # it has died, or takes nothing
        return False
    return True


def _run_child(share: Share, foreign: Sequence[socket.socket], run_share: RunShare) -> None:
    # At once, not in order: whoever starts the receiver again uses the same names.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for inherited in foreign:
        inherited.close()
    run_share(share)


def receive_connection(channel: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
    """Return the next connection that the parent hands over, and its peer's address.

    Raises:
        EOFError: the parent has ended.
        OSError: the peer is gone already.
    """
    message, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not message:
        raise EOFError
    connection = socket.socket(fileno=descriptors[0])
    try:
        host, port, *_ = connection.getpeername()
    except OSError:
        connection.close()
        raise
    return connection, (host, port)
