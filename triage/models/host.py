"""Warm model hosts: child processes that keep a model loaded, one for each package and device.

A crash, a hang or an exhausted memory of a model ends its host and that run only. The hosts end
with the worker, whatever ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

import structlog

from triage.core.analysis import AnalysisFailedError, NotTheModelsFaultError
from triage.models.channel import Channel, Message, channel_pair
from triage.models.confinement import Launch, launch_of
from triage.models.devices import CPU, available_devices
from triage.models.last_words import LastWords
from triage.models.memory import DeviceMemory, HostMemory, full_devices, is_short, resident_bytes
from triage.models.packages import ModelPackage, PackageError
from triage.models.starting import HostProcess, start_host
from triage.models.stopping import RunStoppedError, StopSignal, stop_signal
from triage.models.tensors import ModelInput, ModelOutput
from triage.settings import SandboxMode, WorkerSettings

_LOADING_LIMIT_S = 300.0
_MEGABYTE = 1 << 20
_TYPICAL_BYTES = 512 * _MEGABYTE
_HostKey = tuple[str, str]  # the package's digest, the device

log = structlog.get_logger()


class ModelHosts:
    """The hosts of one worker. Safe to use from several threads and tasks at once.

    There is one host for each model and device. Its runs come one after the other; those of
    different hosts side by side. A run goes to the device with the fewest runs.
    """

    def __init__(self, settings: WorkerSettings, *, sandbox: SandboxMode = "prefer") -> None:
        self.devices = available_devices(settings.device)
        self._sandbox: SandboxMode = sandbox
        self._budget_bytes = settings.host_memory_mb * _MEGABYTE
        self._growth_factor = settings.host_growth_factor
        self._hosts: dict[_HostKey, _Host] = {}  # least recently used first
        self._sizes: dict[str, int] = {}  # bytes that a model's host took when it was last seen
        self._runs: Counter[_HostKey] = Counter()  # under way or waiting
        self._lock = threading.Lock()
        self._computing_s = 0.0
        self._is_closed = False
        # Not asyncio's own executor: a few hosts that hang would keep everything else waiting.
        self._threads = ThreadPoolExecutor(32, thread_name_prefix="model-host")

    async def infer(
        self, package: ModelPackage, model_input: ModelInput, time_limit_s: float | None = None
    ) -> ModelOutput:
        """Run the model without blocking the event loop; otherwise as `infer_now`.

        It ends early where the task's `stop_signal` is set.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, self.infer_now, package, model_input, time_limit_s, stop_signal.get()
        )

    def infer_now(
        self,
        package: ModelPackage,
        model_input: ModelInput,
        time_limit_s: float | None = None,
        stop: StopSignal | None = None,
    ) -> ModelOutput:
        """Run the model in its host, which is started if it is not there.

        `time_limit_s` bounds the run alone, not the wait for the host; without it the manifest's
        limit holds. A run that is too large for the device's memory is done on the CPU where the
        manifest lets it (`runner.cpu_fallback`). `stop` ends it early.

        Raises:
            AnalysisFailedError: the model crashed, took too long, raised an error, or was stopped.
        """
        stop = stop or StopSignal()
        spec = package.manifest.runner
        limit = spec.time_limit_s if time_limit_s is None else time_limit_s
        device = self._least_loaded(package)
        try:
            return self._infer_on(device, package, model_input, limit, stop)
        except _OutOfMemoryError as error:
            if not spec.cpu_fallback or device == CPU:
                raise
            log.warning("run goes to the CPU", model=package.manifest.identity, reason=str(error))
        return self._infer_on(CPU, package, model_input, limit, stop)

    def _infer_on(
        self,
        device: str,
        package: ModelPackage,
        model_input: ModelInput,
        limit: float,
        stop: StopSignal,
    ) -> ModelOutput:
        key = (package.sha256, device)
        with self._lock:
            self._runs[key] += 1
        try:
            return self._run(key, package, model_input, limit, stop)
        except RunStoppedError:
            raise NotTheModelsFaultError("the run was stopped before the model began") from None
        finally:
            with self._lock:
                self._runs -= Counter({key: 1})

    def _run(
        self,
        key: _HostKey,
        package: ModelPackage,
        model_input: ModelInput,
        limit: float,
        stop: StopSignal,
    ) -> ModelOutput:
        while True:
            host = self._host_of(package, key[1])
            try:
                output, seconds = host.run(
                    model_input, limit, threads=self._threads_of_a_run(), stop=stop
                )
            except _HostGoneError:
                continue  # evicted, or ended with the run before this one: there is a new host
            except AnalysisFailedError as error:
                # What state an error left behind, such as a poisoned CUDA context, goes with it.
                self._discard(host)
                if isinstance(error, _OutOfMemoryError):
                    # The device is full of models that wait; the next attempt needs the room.
                    self._clear(host.device)
                raise
            with self._lock:
                self._computing_s += seconds
            self._evict(keep=host)
            self._recycle_if_worn(host, package)
            return output

    def _recycle_if_worn(self, host: _Host, package: ModelPackage) -> None:
        """End a host that has run often or grown, and warm another one before the next study."""
        worn = host.is_worn(self._growth_factor)
        if not worn:
            return
        log.info("model host recycled", model=host.identity, reason=worn)
        self._forget(host)
        host.retire()
        with contextlib.suppress(RuntimeError):  # the worker is stopping
            self._threads.submit(self._warm_quietly, package)

    async def warm(self, package: ModelPackage) -> None:
        """Load the model without blocking the event loop; otherwise as `warm_now`."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self.warm_now, package)

    def warm_now(self, package: ModelPackage) -> None:
        """Load the model and run it once on made-up images, so that no study waits for it.

        Raises:
            PackageError: the model cannot be loaded.
        """
        host = self._host_of(package, self._least_loaded(package))
        try:
            host.warm_up(threads=self._threads_of_a_run())
        except (_HostGoneError, AnalysisFailedError) as error:
            self._discard(host)
            raise PackageError(f"{package.path}: cannot be loaded: {error}") from error
        self._evict(keep=host)

    def is_warm(self, package: ModelPackage) -> bool:
        """Return whether a host has the model loaded, or is loading it."""
        with self._lock:
            hosts = [host for (sha256, _), host in self._hosts.items() if sha256 == package.sha256]
        return any(host.is_alive for host in hosts)

    def has_room_for(self, package: ModelPackage, beside: Collection[ModelPackage]) -> bool:
        """Return whether the model fits into the budget without one of `beside` having to end."""
        with self._lock:
            stay = {p.sha256 for p in beside}
            used = [h.memory().resident_bytes for h in self._hosts.values() if h.sha256 in stay]
            size = self._sizes.get(package.sha256, _TYPICAL_BYTES)
        return sum(used) + size <= self._budget_bytes

    def process_ids(self) -> dict[str, int]:
        """Return the process of each live host by model, the least recently used first."""
        with self._lock:
            hosts = list(self._hosts.values())
        named = {h: h.identity if h.device in self.devices[:1] else h.on_device for h in hosts}
        return {named[h]: h.pid for h in hosts if h.pid is not None and h.is_alive}

    def computing_s(self) -> float:
        """Return the seconds that models have computed in their hosts, all together."""
        with self._lock:
            return self._computing_s

    def close(self) -> None:
        """End all hosts. A run that is under way fails."""
        with self._lock:
            self._is_closed = True
            hosts, self._hosts = list(self._hosts.values()), {}
        for host in hosts:
            host.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _least_loaded(self, package: ModelPackage) -> str:
        """Return the device with the fewest runs; loading the model there counts as one."""
        with self._lock:
            load = Counter[str]()
            for (_, device), count in self._runs.items():
                load[device] += count
            cold = {d: (package.sha256, d) not in self._hosts for d in self.devices}
            models = Counter(device for _, device in self._hosts)
        return min(self.devices, key=lambda d: (load[d] + cold[d], cold[d], models[d]))

    def _threads_of_a_run(self) -> int:
        """Return this run's part of the cores: as many as runs go side by side share them."""
        with self._lock:
            busy = len(+self._runs)
        return max(1, len(os.sched_getaffinity(0)) // max(1, busy))

    def _host_of(self, package: ModelPackage, device: str) -> _Host:
        key = (package.sha256, device)
        with self._lock:
            if self._is_closed:
                raise NotTheModelsFaultError("the worker is stopping")
            host = self._hosts.pop(key, None) or _Host(package, device, self._sandbox)
            self._hosts[key] = host  # the most recently used is the last
            return host

    def _forget(self, host: _Host) -> None:
        with self._lock:
            if self._hosts.get(host.key) is host:
                del self._hosts[host.key]

    def _discard(self, host: _Host) -> None:
        self._forget(host)
        host.kill()

    def _warm_quietly(self, package: ModelPackage) -> None:
        try:
            self.warm_now(package)
        except (PackageError, AnalysisFailedError) as error:
            log.error("worker.model_unavailable", model=package.manifest.name, error=str(error))

    def _evict(self, keep: _Host) -> None:
        """End idle hosts, the least recently used first, until the others fit the memory."""
        with self._lock:
            held = {host: host.memory() for host in self._hosts.values()}
            self._sizes |= {host.sha256: memory.resident_bytes for host, memory in held.items()}
            ended: list[HostMemory] = []
            for host in list(held):
                remaining = list(held.values())
                is_in_the_way = is_short(remaining, self._budget_bytes) or (
                    host.device in full_devices(remaining, ended)
                )
                may_end = host is not keep and not host.is_pinned
                if is_in_the_way and may_end and self._end_if_idle(host):
                    ended.append(held.pop(host))

    def _clear(self, device: str) -> None:
        """End the idle hosts on a device that a run has found full."""
        with self._lock:
            for host in list(self._hosts.values()):
                if host.device == device:
                    self._end_if_idle(host)

    def _end_if_idle(self, host: _Host) -> bool:
        resident = host.memory().resident_bytes
        if not host.kill_if_idle():
            return False
        log.info("model host evicted", model=host.identity, bytes=resident)
        del self._hosts[host.key]
        return True


class _HostGoneError(Exception):
    """The host was ended before the run began; another one takes it."""


class _OutOfMemoryError(AnalysisFailedError):
    """The device's memory is too small for the run, also in the smallest pieces."""


class _Host:
    """One child process with one loaded model. The process starts with the first use."""

    def __init__(self, package: ModelPackage, device: str, sandbox: SandboxMode) -> None:
        self._package = package
        self.device = device
        self._sandbox: SandboxMode = sandbox
        self._launch: Launch | None = None
        self._lock = threading.Lock()  # one request at a time
        self._process: HostProcess | None = None
        self._channel: Channel | None = None
        self._lifeline: int | None = None
        self._words: LastWords | None = None
        self._on_device: DeviceMemory | None = None
        self._runs = 0
        self._first_bytes = 0
        self._is_ended = False

    @property
    def identity(self) -> str:
        return self._package.manifest.identity

    @property
    def on_device(self) -> str:
        return f"{self.identity} on {self.device}"

    @property
    def sha256(self) -> str:
        return self._package.sha256

    @property
    def key(self) -> _HostKey:
        return self.sha256, self.device

    @property
    def is_pinned(self) -> bool:
        return self._package.manifest.runner.keep_warm

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def warm_up(self, *, threads: int) -> None:
        """Start the process, load the model and run it once on made-up images."""
        with self._lock, self._ending_on_failure():
            self._load(threads, warm_up=True)

    def run(
        self, model_input: ModelInput, time_limit_s: float, *, threads: int, stop: StopSignal
    ) -> tuple[ModelOutput, float]:
        """Return what the model says, and the seconds that it took in its process.

        Raises AnalysisFailedError where the model fails.
        """
        content = {"do": "run", "threads": threads, "device": self.device}
        with self._lock, self._ending_on_failure():
            self._load(threads)
            with stop.ending(self.kill):
                answer = self._ask(Message(content, model_input.to_arrays()), time_limit_s)
            self._on_device = DeviceMemory.of(answer.content)
            if smaller := answer.content.get("remark"):
                log.warning("device is full", model=self.identity, remark=smaller)
            self._runs += 1
            self._first_bytes = self._first_bytes or resident_bytes(self.pid)
            try:
                # The host's memory is its own again with the next run.
                arrays = {name: values.copy() for name, values in answer.arrays.items()}
                return ModelOutput.from_arrays(arrays), float(answer.content["seconds"])
            except (TypeError, KeyError, ValueError) as error:
                raise AnalysisFailedError(
                    f"{self.identity} gave an unknown answer: {error}"
                ) from None

    def memory(self) -> HostMemory:
        """Return what the process holds of the machine's memory and its device's."""
        return HostMemory(self.device, resident_bytes(self.pid), self._on_device)

    def is_worn(self, growth_factor: float) -> str:
        """Return why the process is to be replaced, or "" where it is not."""
        if self._runs >= self._package.manifest.runner.recycle_after_runs:
            return f"after {self._runs} runs"
        now = resident_bytes(self.pid)
        if now > growth_factor * self._first_bytes > 0:
            return f"it grew from {self._first_bytes >> 20} to {now >> 20} MB"
        return ""

    def retire(self) -> None:
        """End the process once no run is under way; a run that waits for it gets another host."""
        with self._lock:
            self.kill()

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
            self._let_go()

    @contextlib.contextmanager
    def _ending_on_failure(self) -> Iterator[None]:
        """End the process before the next in line gets it: it would meet what the error left."""
        try:
            yield
        except AnalysisFailedError:
            self.kill()
            raise

    def _load(self, threads: int, *, warm_up: bool = False) -> None:
        if self._is_ended:
            raise _HostGoneError
        if self.is_alive:
            return
        self._start()
        load = {
            "do": "load",
            "package": str(self._package.path),
            "sha256": self._package.sha256,
            "device": self.device,
            "threads": threads,
            "warm_up": warm_up,
        }
        answer = self._ask(Message(load), _LOADING_LIMIT_S)
        log.info(
            "model host started",
            model=self.identity,
            device=self.device,
            pid=self.pid,
            seconds=round(answer.content["seconds"], 3),
            warm_up_failed=answer.content["warm_up_failed"],
        )
        for remark in answer.content["remarks"]:
            log.warning("model runs as plain float32", model=self.identity, remark=remark)

    def _start(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._let_go()
        ours, theirs = channel_pair()
        lifeline, self._lifeline = os.pipe()
        self._launch = launch_of(self._package.path, self._sandbox)
        with theirs:
            self._process, self._words = start_host(
                self._launch, self.device, theirs.fileno(), lifeline
            )
        os.close(lifeline)
        self._channel = Channel(ours)
        if self._is_ended:
            self.kill()  # it was ended while the process was being started

    def _let_go(self) -> None:
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            os.close(lifeline)
        if self._launch is not None:
            self._launch.clean_up()

    def _ask(self, message: Message, time_limit_s: float) -> Message:
        assert self._channel is not None, "the host was not started"
        self._channel.settimeout(time_limit_s)
        try:
            self._channel.send(message)
            answer = self._channel.receive()
        except TimeoutError:
            self.kill()
            raise AnalysisFailedError(
                f"{self.identity} took longer than {time_limit_s:g} s and was stopped"
            ) from None
        except OSError:
            answer = None
        except ValueError as error:
            raise AnalysisFailedError(f"{self.identity} broke its channel: {error}") from None
        if answer is None:
            if self._is_ended:
                raise NotTheModelsFaultError(f"{self.identity} ended: its host was stopped")
            raise AnalysisFailedError(f"{self.identity} ended: {self._last_words()}")
        return self._checked(answer)

    def _checked(self, answer: Message) -> Message:
        content = answer.content
        if content.get("ok") is True:
            return answer
        said = f"{self.identity} failed: {content.get('reason', 'no reason was given')}"
        raise _OutOfMemoryError(said) if content.get("out_of_memory") else AnalysisFailedError(said)

    def _last_words(self) -> str:
        assert self._process is not None, "the host was not started"
        assert self._words is not None, "the host was not started"
        try:
            status = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return "its process closed the channel"
        words = self._words.text()
        told = f"; its last words: {words}" if words else ""
        if status >= 0:
            return f"its process exited with status {status}{told}"
        name = signal.Signals(-status).name
        hint = ", perhaps for want of memory" if -status == signal.SIGKILL else ""
        return f"its process was ended by {name}{hint}{told}"
