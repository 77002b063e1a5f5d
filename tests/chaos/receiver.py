"""`triage receive` as a process that can be killed in whole or in part, and started again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.tools import PROJECT, find_free_port

_STARTS_WITHIN_S = 60.0
_ORPHANS_END_WITHIN_S = 10.0


class ChaosError(AssertionError):
    """The receiver did not do what it promises, or could not be started at all."""


class KillableReceiver:
    """A receiver on a data directory of its own."""

    def __init__(self, folder: Path, database_url: str = "") -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = find_free_port()
        self.log = folder / "receiver.log"
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: set[int] = set()
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "TRIAGE_DATA_DIRECTORY": str(self.data),
            "TRIAGE_DATABASE__URL": database_url,
            "TRIAGE_MODEL_REGISTRY": str(PROJECT / "model_registry"),
            "TRIAGE_RECEIVER__PORT": str(self.port),
            "TRIAGE_RECEIVER__MINIMUM_FREE_MB": "0",
            "TRIAGE_RECEIVER__NETWORK_TIMEOUT_S": "5",
            "TRIAGE_RECEIVER__QUIET_PERIOD_BY_MODALITY_S": '{"CT": 2.0}',
        }

    def prepare(self) -> None:
        """Make the database and register the models, as `triage prepare` does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ran = self._triage("prepare")
        if ran.wait(120):
            raise ChaosError(f"triage prepare failed:\n{self.log.read_text()}")

    def _triage(self, command: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "triage.cli", command],
                cwd=self.folder,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._groups.add(process.pid)
        return process

    def start(self) -> None:
        """Start and return once connections are taken; try again where the port is still held."""
        deadline = time.monotonic() + _STARTS_WITHIN_S
        self._process = self._triage("receive")
        self.starts += 1
        while not self.takes_connections():
            if time.monotonic() > deadline:
                raise ChaosError(f"the receiver did not start:\n{self.log.read_text()[-4000:]}")
            if self._process.poll() is not None:
                self._process = self._triage("receive")
            time.sleep(0.02)

    def takes_connections(self) -> bool:
        """Whether a connection to the port is taken."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True

    @property
    def is_running(self) -> bool:
        """Whether the process that was started is alive."""
        return self._process is not None and self._process.poll() is None

    def kill(self, chance: random.Random) -> str:
        """SIGKILL the whole group of processes, the first one, or one of its children.

        Returns what was killed.
        """
        assert self._process is not None
        children = self._children()
        what = chance.choice(["all", "parent", "child"]) if children else "all"
        if what == "child":
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(children), signal.SIGKILL)
            return what
        with contextlib.suppress(ProcessLookupError):
            if what == "all":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        return what

    def _children(self) -> list[int]:
        assert self._process is not None
        process = self._process.pid
        with contextlib.suppress(FileNotFoundError):
            content = Path(f"/proc/{process}/task/{process}/children").read_text()
            return [int(pid) for pid in content.split()]
        return []

    def stop(self) -> None:
        """End it as an administrator does."""
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)

    def outlived(self) -> set[int]:
        """Return the groups of processes that are alive though their receiver was ended.

        A child whose parent was killed has to end by itself, and may take a moment.
        """
        deadline = time.monotonic() + _ORPHANS_END_WITHIN_S
        while (alive := set(filter(_has_processes, self._groups))) and time.monotonic() < deadline:
            time.sleep(0.1)
        return alive

    def end(self) -> None:
        """Kill whatever is left."""
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()


def _has_processes(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
