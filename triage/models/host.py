"""Warm model hosts: child processes that keep a model loaded, one for each package and device.

A crash, a hang or an exhausted memory of a model ends its host and that run only. The hosts end
with the worker, whatever ends it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

import triage
from triage.core.analysis import AnalysisFailedError
from triage.models.channel import Message, channel_pair, receive, send
from triage.models.packages import ModelPackage, PackageError
from triage.models.tensors import ModelInput, ModelOutput
from triage.settings import WorkerSettings

_LOADING_LIMIT_S = 300.0
_MEGABYTE = 1 << 20
_SOURCE_ROOT = Path(triage.__file__).parents[1]

log = structlog.get_logger()


class ModelHosts:
    """The hosts of one worker. Safe to use from several threads and tasks at once.

    Runs of one model come one after the other; runs of different models side by side.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._device = settings.device
        self._budget_bytes = settings.host_memory_mb * _MEGABYTE
        self._hosts: dict[str, _Host] = {}  # least recently used first
        self._lock = threading.Lock()
        self._is_closed = False
        # Not asyncio's own executor: a few hosts that hang would keep everything else waiting.
        self._threads = ThreadPoolExecutor(32, thread_name_prefix="model-host")

    async def infer(
        self, package: ModelPackage, model_input: ModelInput, time_limit_s: float | None = None
    ) -> ModelOutput:
        """Run the model without blocking the event loop; otherwise as `infer_now`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, self.infer_now, package, model_input, time_limit_s
        )

    def infer_now(
        self, package: ModelPackage, model_input: ModelInput, time_limit_s: float | None = None
    ) -> ModelOutput:
        """Run the model in its host, which is started if it is not there.

        `time_limit_s` bounds the run alone, not the wait for the host; without it the manifest's
        limit holds.

        Raises:
            AnalysisFailedError: the model crashed, took too long, or raised an error.
        """
        limit = package.manifest.runner.time_limit_s if time_limit_s is None else time_limit_s
        while True:
            host = self._host_of(package)
            try:
                return host.run(model_input, limit)
            except _HostGoneError:
                continue  # evicted, or ended with the run before this one: there is a new host
            except AnalysisFailedError as error:
                # What state an error left behind, such as a poisoned CUDA context, goes with it.
                self._discard(host)
                if "out of memory" in str(error).lower():
                    # The device is full of models that wait; the next attempt needs the room.
                    self._evict(keep=host, budget_bytes=0)
                raise
            finally:
                self._evict(keep=host)

    async def warm(self, package: ModelPackage) -> None:
        """Load the model without blocking the event loop; otherwise as `warm_now`."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self.warm_now, package)

    def warm_now(self, package: ModelPackage) -> None:
        """Load the model and run it once on made-up images, so that no study waits for it.

        Raises:
            PackageError: the model cannot be loaded.
        """
        host = self._host_of(package)
        try:
            host.warm_up()
        except (_HostGoneError, AnalysisFailedError) as error:
            self._discard(host)
            raise PackageError(f"{package.path}: cannot be loaded: {error}") from error
        self._evict(keep=host)

    def process_ids(self) -> dict[str, int]:
        """Return the process of each live host by model, the least recently used first."""
        with self._lock:
            hosts = list(self._hosts.values())
        return {host.identity: host.pid for host in hosts if host.pid is not None and host.is_alive}

    def close(self) -> None:
        """End all hosts. A run that is under way fails."""
        with self._lock:
            self._is_closed = True
            hosts, self._hosts = list(self._hosts.values()), {}
        for host in hosts:
            host.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _host_of(self, package: ModelPackage) -> _Host:
        with self._lock:
            if self._is_closed:
                raise AnalysisFailedError("the worker is stopping")
            host = self._hosts.pop(package.sha256, None) or _Host(package, self._device)
            self._hosts[package.sha256] = host  # the most recently used is the last
            return host

    def _discard(self, host: _Host) -> None:
        with self._lock:
            if self._hosts.get(host.sha256) is host:
                del self._hosts[host.sha256]
        host.kill()

    def _evict(self, keep: _Host, budget_bytes: int | None = None) -> None:
        """End idle hosts, the least recently used first, until the others fit the budget."""
        budget = self._budget_bytes if budget_bytes is None else budget_bytes
        with self._lock:
            used = {host: host.resident_bytes() for host in self._hosts.values()}
            for host in list(used):
                if sum(used.values()) <= budget:
                    return
                if host is not keep and host.kill_if_idle():
                    log.info("model host evicted", model=host.identity, bytes=used[host])
                    del used[host], self._hosts[host.sha256]


class _HostGoneError(Exception):
    """The host was ended before the run began; another one takes it."""


class _Host:
    """One child process with one loaded model. The process starts with the first use."""

    def __init__(self, package: ModelPackage, device: str) -> None:
        self._package = package
        self._device = device
        self._lock = threading.Lock()  # one request at a time
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._is_ended = False

    @property
    def identity(self) -> str:
        return self._package.manifest.identity

    @property
    def sha256(self) -> str:
        return self._package.sha256

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def warm_up(self) -> None:
        """Start the process, load the model and run it once on made-up images."""
        with self._lock:
            self._load(warm_up=True)

    def run(self, model_input: ModelInput, time_limit_s: float) -> ModelOutput:
        """Return what the model says; raise AnalysisFailedError where it cannot."""
        with self._lock:
            self._load()
            answer = self._ask(Message({"do": "run"}, model_input.to_arrays()), time_limit_s)
        return ModelOutput.from_arrays(answer.arrays)

    def resident_bytes(self) -> int:
        """Return the memory that the process holds, or 0 where the system does not say."""
        try:
            statm = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()
        except OSError:
            return 0
        return int(statm[1]) * os.sysconf("SC_PAGE_SIZE")

    def kill_if_idle(self) -> bool:
        """End the process unless a run is under way; return whether it was ended."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self.kill()
        finally:
            self._lock.release()
        return True

    def kill(self) -> None:
        """End the process at once. A request that waits for it fails."""
        self._is_ended = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _load(self, *, warm_up: bool = False) -> None:
        if self._is_ended:
            raise _HostGoneError
        if self.is_alive:
            return
        self._start()
        load = {
            "do": "load",
            "package": str(self._package.path),
            "sha256": self._package.sha256,
            "device": self._device,
            "warm_up": warm_up,
        }
        answer = self._ask(Message(load), _LOADING_LIMIT_S)
        log.info(
            "model host started",
            model=self.identity,
            pid=self.pid,
            seconds=round(answer.content["seconds"], 3),
            warm_up_failed=answer.content["warm_up_failed"],
        )

    def _start(self) -> None:
        if self._channel is not None:
            self._channel.close()
        ours, theirs = channel_pair()
        search_path = os.environ.get("PYTHONPATH", "")
        # OpenMP's threads spin while they wait for one another. Beside a receiver, a database and
        # a page that took a network from 0.3 s to 1.7 s on two cores; asleep they wait for nothing.
        environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_SOURCE_ROOT), search_path]))
        with theirs:
            # -P: a file named torch.py in the working directory must not be run.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "triage.models.host_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._channel = ours
        if self._is_ended:
            self.kill()  # it was ended while the process was being started

    def _ask(self, message: Message, time_limit_s: float) -> Message:
        assert self._channel is not None, "the host was not started"
        self._channel.settimeout(time_limit_s)
        try:
            send(self._channel, message)
            answer = receive(self._channel)
        except TimeoutError:
            self.kill()
            raise AnalysisFailedError(
                f"{self.identity} took longer than {time_limit_s:g} s and was stopped"
            ) from None
        except OSError:
            answer = None
        if answer is None:
            raise AnalysisFailedError(f"{self.identity} ended: {self._last_words()}")
        if not answer.content["ok"]:
            raise AnalysisFailedError(f"{self.identity} failed: {answer.content['reason']}")
        return answer

    def _last_words(self) -> str:
        assert self._process is not None, "the host was not started"
        stopped_by_us = self._is_ended
        try:
            status = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return "its process closed the channel"
        if stopped_by_us:
            return "its host was stopped"
        if status >= 0:
            return f"its process exited with status {status}"
        name = signal.Signals(-status).name
        hint = ", perhaps for want of memory" if -status == signal.SIGKILL else ""
        return f"its process was ended by {name}{hint}"
