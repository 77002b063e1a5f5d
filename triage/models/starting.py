"""How the process of a model host comes to be: forked where that is safe, else started afresh."""

from __future__ import annotations

import os
import subprocess
from typing import Protocol

import structlog

from triage.models.confinement import Launch, host_environment
from triage.models.devices import CPU
from triage.models.forked import ForkServerError, fork_server
from triage.models.last_words import LastWords

log = structlog.get_logger()


class HostProcess(Protocol):
    """What is needed of a host's process; `subprocess.Popen` is one."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal, or None while it lives."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raise subprocess.TimeoutExpired where it lives on."""

    def kill(self) -> None:
        """End it at once."""


def start_host(
    launch: Launch, device: str, channel: int, lifeline: int
) -> tuple[HostProcess, LastWords]:
    """Start the process of a host, which gets the descriptors `channel` and `lifeline`.

    A host on the CPU is forked from a process that has imported what it needs. One on an
    accelerator is started afresh: a driver that something imported has touched does not survive a
    fork. So is every host where the system has no pidfd, or where forking fails.
    """
    printed, theirs = os.pipe()
    with os.fdopen(theirs, "wb") as output:
        process = _forked(launch, channel, lifeline, theirs) if device == CPU else None
        if process is None:
            process = subprocess.Popen(
                [*launch.command, str(channel), str(lifeline)],
                pass_fds=[channel, lifeline],
                env=launch.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
    return process, LastWords(os.fdopen(printed, "rb"))


def _forked(launch: Launch, channel: int, lifeline: int, printed: int) -> HostProcess | None:
    if not hasattr(os, "pidfd_open"):
        return None
    order = {"policy": launch.policy, "environment": dict(launch.environment)}
    environment = host_environment(os.environ, None)
    try:
        return fork_server.fork(order, (channel, lifeline, printed), environment)
    except ForkServerError as error:
        log.warning("model host is not forked", reason=str(error))
        return None
