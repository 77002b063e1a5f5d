"""A worker's side of the fork server: the one server of this process, and the hosts it forked."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress

from triage.models.channel import channel_pair
from triage.models.fork_server import MAXIMUM_ORDER_BYTES, STATUS_BYTES
from triage.models.last_words import LastWords

_STARTING_LIMIT_S = 120.0
_IMPORTED = (
    "monai.bundle",
    "monai.inferers",
    "monai.networks.nets",
    "monai.transforms",
    "triage.models.acceleration",
    "triage.models.runners.monai_bundle",
    "triage.models.runners.network",
    "triage.models.runners.programs",
    "triage.models.runners.python_class",
    "triage.models.samples",
)


class ForkServerError(Exception):
    """No process can be forked; the message says why."""


class ForkedProcess:
    """A process that another one forked, with what `subprocess.Popen` has for its own children."""

    def __init__(self, pid: int, watched: int, status: int) -> None:
        """Take the process `pid`, its pidfd, and the pipe that its exit status will come by."""
        self.pid = pid
        self._watched = watched
        self._status = status
        self._lock = threading.Lock()
        self.returncode: int | None = None
        for descriptor in (watched, status):
            weakref.finalize(self, os.close, descriptor)

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while the process lives."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process, in seconds; return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still lives.
        """
        if self.returncode is None:
            ended = select.poll()
            ended.register(self._watched, select.POLLIN)
            if not ended.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
            with self._lock:
                if self.returncode is None:
                    self.returncode = self._told_status()
        return self.returncode

    def kill(self) -> None:
        """End the process at once, if it still lives."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._watched, signal.SIGKILL)

    def _told_status(self) -> int:
        data = os.read(self._status, STATUS_BYTES)
        if not data:  # the server was ended before it could say
            return -signal.SIGKILL
        return int.from_bytes(data, sys.byteorder, signed=True)


class ForkServer:
    """A fork server, started when it is first needed, and again should it end.

    One is enough for a process, however many `ModelHosts` it has. Safe to use from several threads.
    """

    def __init__(self, imported: Sequence[str] = _IMPORTED) -> None:
        """Prepare a server that imports the modules `imported` before it forks."""
        self._imported = imported
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def fork(
        self,
        order: Mapping[str, object],
        descriptors: Sequence[int],
        environment: Mapping[str, str],
    ) -> ForkedProcess:
        """Have a process forked from a server whose environment is `environment`.

        Args:
            order: what the process is to do, see `triage.models.fork_server`.
            descriptors: of the host's channel, its lifeline and what it prints to.
            environment: a server with another one is replaced.

        Raises:
            ForkServerError: the server cannot be started, or ended.
        """
        with self._lock:
            running = self._server_with(environment)
            try:
                return running.fork(order, descriptors)
            except OSError as error:
                said = running.last_words()
                self._stop()
                raise ForkServerError(f"the fork server failed: {error}; {said}") from error

    def close(self) -> None:
        """End the server. Hosts that it forked live on, as their lifelines want."""
        with self._lock:
            self._stop()

    def _server_with(self, environment: Mapping[str, str]) -> _Running:
        if self._running is None or not self._running.serves(environment):
            self._stop()
            self._running = _Running(self._imported, environment)
        return self._running

    def _stop(self) -> None:
        running, self._running = self._running, None
        if running is not None and running.is_ours:
            running.stop()


class _Running:
    """A server that runs."""

    def __init__(self, imported: Sequence[str], environment: Mapping[str, str]) -> None:
        self._owner = os.getpid()
        self._environment = dict(environment)
        self._orders, theirs = channel_pair()
        self._orders.settimeout(_STARTING_LIMIT_S)
        # -P: a file named torch.py in the working directory must not be run.
        python = (sys.executable, "-P", "-m")
        with theirs:
            self.process = subprocess.Popen(
                [*python, "triage.models.fork_server", str(theirs.fileno()), *imported],
                pass_fds=[theirs.fileno()],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        assert self.process.stdout is not None, "asked for above"
        self._words = LastWords(self.process.stdout)

    def fork(self, order: Mapping[str, object], descriptors: Sequence[int]) -> ForkedProcess:
        data = json.dumps(order).encode()
        if len(data) > MAXIMUM_ORDER_BYTES:
            raise OSError(f"an order of {len(data)} bytes; {MAXIMUM_ORDER_BYTES} can be sent")
        socket.send_fds(self._orders, [data], descriptors)
        answer, received, _, _ = socket.recv_fds(self._orders, 64, 2)
        if not answer:
            raise ConnectionResetError("it closed the connection")
        watched, status = received
        return ForkedProcess(int(answer), watched, status)

    @property
    def is_ours(self) -> bool:
        """Whether this process started it, and not one that this process is a fork of."""
        return self._owner == os.getpid()

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Return whether it forks processes for us in such an environment."""
        return self.is_ours and self._environment == environment and self.process.poll() is None

    def stop(self) -> None:
        self._orders.close()
        self.process.kill()
        self.process.wait()

    def last_words(self) -> str:
        return f"its last words: {self._words.text() or 'none'}"


fork_server = ForkServer()
"""The server of this process."""

atexit.register(fork_server.close)
