"""`triage up`: all of Triage on one machine, each part a child process that is kept running."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from triage.core.errors import TriageError
from triage.prefect_server import prefect_environment, prefect_server_command
from triage.settings import Settings
from triage.web.viewer_files import viewer_folder

log = structlog.get_logger()

_STOP_WITHIN_S = 15.0
_POLL_S = 0.2
_LONGEST_RESTART_PAUSE_S = 30.0
_PR_SET_PDEATHSIG = 1


class StartError(TriageError):
    """Triage cannot start; the message says why and what to do."""


@dataclass(slots=True)
class Part:
    """A child process: how it is started, and how often it had to be started again."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    start_again_at: float = 0.0
    started_at: float = field(default=0.0)


def up(settings: Settings) -> None:
    """Run receiver, worker, web and (unless an address is configured) Prefect until a signal.

    Raises:
        StartError: a port is in use, or Triage is already running on this data directory.
    """
    settings.data_directory.mkdir(parents=True, exist_ok=True)
    with _only_one(settings.data_directory):
        _require_free_ports(settings)
        _Supervisor(settings).run()


def check_can_start(settings: Settings) -> None:
    """Raise StartError if `up` could not start now."""
    if settings.data_directory.is_dir():
        with _only_one(settings.data_directory):
            pass
    _require_free_ports(settings)


class _Supervisor:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = False
        self._logs = settings.data_directory / "log"
        self._logs.mkdir(exist_ok=True)
        self._pids = settings.data_directory / "run"
        self._pids.mkdir(exist_ok=True)
        self._environment = {**os.environ, **prefect_environment(settings)}
        triage = [sys.executable, "-m", "triage.cli"]
        self._parts = [
            Part("receiver", [*triage, "receive"]),
            Part("web", [*triage, "web"]),
            Part("worker", [*triage, "work"]),
        ]
        if not settings.prefect.api_url:
            self._parts.insert(0, Part("prefect", prefect_server_command(settings)))

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            for part in self._parts:
                self._start(part)
            while not self._stopping:
                time.sleep(_POLL_S)
                for part in self._parts:
                    self._keep_running(part)
        finally:
            self._stop_all()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _start(self, part: Part) -> None:
        with (self._logs / f"{part.name}.log").open("ab") as output:
            part.process = subprocess.Popen(
                part.command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the supervisor, which stops in order
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads are running here
            )
        part.started_at = time.monotonic()
        (self._pids / f"{part.name}.pid").write_text(str(part.process.pid), encoding="ascii")
        log.info("part.started", part=part.name, pid=part.process.pid)

    def _keep_running(self, part: Part) -> None:
        now = time.monotonic()
        if part.process is not None:
            status = part.process.poll()
            if status is None:
                return
            if now - part.started_at > 60:
                part.restarts = 0
            pause = min(_LONGEST_RESTART_PAUSE_S, 0.5 * 2**part.restarts)
            part.process, part.start_again_at = None, now + pause
            part.restarts += 1
            log.error(
                "part.stopped",
                part=part.name,
                status=status,
                again_in_s=pause,
                log=str(self._logs / f"{part.name}.log"),
            )
        if part.process is None and now >= part.start_again_at:
            self._start(part)

    def _stop_all(self) -> None:
        # Prefect goes last, so that the worker can record what it finishes.
        for part in reversed(self._parts):
            if part.process is None:
                continue
            part.process.terminate()
            try:
                part.process.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                part.process.kill()
                part.process.wait()
            log.info("part.ended", part=part.name)


def _die_with_parent() -> None:
    # If the supervisor is killed outright, no part may be left behind holding its port.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def _only_one(data_directory: Path) -> Iterator[None]:
    path = data_directory / "triage.pid"
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise StartError(
                f"Triage is already running on {data_directory} (process {holder}); "
                f"stop it with: kill {holder}"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _require_free_ports(settings: Settings) -> None:
    receiver = settings.receiver
    wanted = [("web", "TRIAGE_WEB__PORT", settings.web.host, settings.web.port)]
    if receiver.plain:
        wanted.insert(0, ("receiver", "TRIAGE_RECEIVER__PORT", receiver.host, receiver.port))
    if receiver.tls_port is not None:
        variable = "TRIAGE_RECEIVER__TLS_PORT"
        wanted.append(("receiver over TLS", variable, receiver.host, receiver.tls_port))
    if not settings.prefect.api_url:
        prefect = settings.prefect
        wanted.append(("Prefect server", "TRIAGE_PREFECT__PORT", prefect.host, prefect.port))
    taken = [_advice(*entry) for entry in wanted if not _is_free(entry[2], entry[3])]
    if taken:
        raise StartError("\n".join(taken))
    viewer = ("viewer", "TRIAGE_VIEWER__PORT", settings.web.host, settings.viewer.port)
    if viewer_folder(settings) and not _is_free(*viewer[2:]):
        # Studies and the worklist do not wait for a viewer.
        log.warning("no viewer", reason=_advice(*viewer))


def _advice(name: str, variable: str, host: str, port: int) -> str:
    return (
        f"port {port} on {host}, which the {name} needs, is in use by another program; "
        f"stop that program, or choose another port with {variable}={port + 1}"
    )


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
