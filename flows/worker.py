"""`triage work`: a warm process that watches the queue and carries studies through the flow.

The database is the queue and Prefect is the record: the worker sees a pending run within
`worker.poll_interval_s`, and calls the flow in its own process, where the model hosts are warm.
Deliveries do not need Prefect, so results reach the archive also while it is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version

import structlog
from prefect import get_client
from prefect.states import Crashed

from flows.analysis import analyse_study
from flows.arrivals import Arrivals
from flows.jobs import Jobs
from flows.steps import Step
from flows.warming import Warming
from triage.models.ahead import DecodedAhead
from triage.models.device_states import DeviceWatch
from triage.models.devices import CPU
from triage.models.host import ModelHosts
from triage.results.delivery.rounds import deliver_next, queue_notices
from triage.results.notifying.rounds import send_next as send_next_notification
from triage.results.remote.returning import take_back_next
from triage.results.remote.sending import send_next
from triage.results.withdrawal import withdraw_next
from triage.settings import RemoteModelSettings, Settings
from triage.settings.notifications import BROWSER
from triage.store import runs
from triage.store.changes import CommitWatch, Lookout
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.notification_rounds import notify_round
from triage.store.watch_alerts import watch_round
from triage.store.workers import Heartbeat, beat

log = structlog.get_logger()

_DECODED_AND_WRITTEN = 2  # beside those on GPUs; a model on the CPU leaves no core for more
_HEARTBEAT_S = 5.0
_DELIVERY_POLL_S = 0.2
_WITHDRAWAL_POLL_S = 1.0
_NOTIFICATION_POLL_S = 0.5
_ORPHANS_POLL_S = 5.0  # deliveries whose destination is not in the settings any more
_REMOTE_POLL_S = 1.0
_WARMING_POLL_S = 2.0
_PREFECT_PAUSE_S = 2.0
_DECODE_AHEAD_POLL_S = 0.25
_JOB_POLL_S = 0.5
_JOB_RETENTION_S = 60.0


def worker_name() -> str:
    """Return the name of this machine's worker: the same after a restart."""
    return f"{os.environ.get('TRIAGE_WORKER_NAME') or 'worker'}@{socket.gethostname()}"


def run_worker(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT."""
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    database = Database(settings.database_url)
    database.check_schema()
    hosts = ModelHosts(settings.worker, sandbox=settings.trust.sandbox)
    step = Step(
        worker=worker_name(),
        settings=settings,
        database=database,
        files=InstanceFiles(settings.data_directory),
        hosts=hosts,
        decoded=DecodedAhead(settings.worker.decode_ahead_mb * 1024**2),
    )
    worker = Worker(step)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    try:
        await worker.work()
    finally:
        hosts.close()
        database.close()


class Worker:
    """Watches the queue, the outbox and the leases, each in a loop of its own."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._warming = Warming(step)
        self._jobs = Jobs(step)
        self._devices = DeviceWatch(step.hosts.devices)
        self._in_flight = (
            step.settings.worker.studies_in_flight
            or sum(d != CPU for d in step.hosts.devices) + _DECODED_AND_WRITTEN
        )
        self._channels = [c for c in step.settings.notifications.channels if c != BROWSER]
        # Of their own: destinations that do not answer must not take the threads that flag studies.
        self._senders = ThreadPoolExecutor(
            1 + sum(d.concurrency for d in step.settings.destinations) + len(self._channels),
            thread_name_prefix="deliver",
        )
        self._commits = CommitWatch(step.database)
        self._stopping = asyncio.Event()
        self._flows: set[asyncio.Task[None]] = set()
        self._unclaimed = 0
        self._prefect_error = ""

    def stop(self) -> None:
        """Claim nothing more; what is being worked on is finished first."""
        self._stopping.set()

    async def work(self) -> None:
        """Work until `stop` is called."""
        step = self._step
        await self._recover(
            lambda session: runs.release_worker(
                session,
                step.worker,
                maximum_attempts=step.settings.worker.maximum_attempts,
                now=step.clock(),
            )
        )
        await asyncio.to_thread(self._jobs.recover, is_start=True)
        if step.settings.worker.warm_models:
            await self._warming.warm_all()
        log.info("worker.ready", worker=step.worker, models=list(step.hosts.process_ids()))
        loops = [
            asyncio.create_task(self._after_commits(once, pause))
            for once, pause in (
                (self._start_flows, step.settings.worker.poll_interval_s),
                (self._queue_notices, _DELIVERY_POLL_S),
                (self._notify, _NOTIFICATION_POLL_S),
                (self._jobs.carry_out_next, _JOB_POLL_S),
            )
        ]
        loops += [
            asyncio.create_task(self._guarded(once, pause))
            for once, pause in (
                (partial(self._deliver, None), _ORPHANS_POLL_S),
                (self._withdraw, _WITHDRAWAL_POLL_S),
                (self._beat, _HEARTBEAT_S),
                (self._recover_expired, _HEARTBEAT_S),
                (self._warm_ahead, _WARMING_POLL_S),
                (self._watch_models, step.settings.watch.interval_s),
                (self._delete_due_jobs, _JOB_RETENTION_S),
            )
        ]
        loops += [
            asyncio.create_task(
                self._after_commits(partial(self._deliver, d.name), _DELIVERY_POLL_S)
            )
            for d in step.settings.destinations
            for _ in range(d.concurrency)
        ]
        loops += [
            asyncio.create_task(
                self._after_commits(
                    partial(self._send_notifications, channel), _NOTIFICATION_POLL_S
                )
            )
            for channel in self._channels
        ]
        loops += [
            asyncio.create_task(self._guarded(partial(self._ask, model), _REMOTE_POLL_S))
            for model in step.settings.remote_models
        ]
        if step.settings.remote_models:
            loops.append(asyncio.create_task(self._guarded(self._take_back, _REMOTE_POLL_S)))
        if step.settings.worker.decode_ahead_mb:
            ahead = Arrivals(step.database, step.files, step.decoded)
            loops.append(
                asyncio.create_task(self._after_commits(ahead.decode, _DECODE_AHEAD_POLL_S))
            )
        await self._stopping.wait()
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await asyncio.gather(*self._flows, return_exceptions=True)
        await asyncio.to_thread(self._senders.shutdown)
        self._commits.close()

    async def _after_commits(
        self, once: Callable[[], Awaitable[bool | None]], pause_s: float
    ) -> None:
        """Call `once` again and again, as `_guarded` does, but not while nothing is committed.

        It says whether it left something to do, which then does not wait for a commit.
        """
        lookout = Lookout(self._commits)

        async def look() -> None:
            if not lookout.is_due():
                return
            try:
                is_left = await once()
            except BaseException:
                lookout.look_again()
                raise
            if is_left:
                lookout.look_again()

        await self._guarded(look, pause_s, name=repr(once))

    async def _guarded(
        self, once: Callable[[], Awaitable[None]], pause_s: float, *, name: str = ""
    ) -> None:
        """Call `once` for ever; what goes wrong is logged and tried again."""
        while True:
            try:
                await once()
            except Exception as error:  # noqa: BLE001 - a loop of the worker must never end
                log.error("worker.loop_failed", loop=name or repr(once), error=repr(error))
                await asyncio.sleep(1.0)
            await asyncio.sleep(pause_s)

    async def _start_flows(self) -> bool:
        """Call a flow for each run that waits, and say whether runs are left to look for."""
        if len(self._flows) >= self._in_flight:
            return True
        waiting = await asyncio.to_thread(self._count_claimable) - self._unclaimed
        for _ in range(min(waiting, self._in_flight - len(self._flows))):
            task = asyncio.create_task(self._call_flow())
            self._flows.add(task)
            task.add_done_callback(self._flows.discard)
        return bool(self._flows) or waiting > 0

    def _count_claimable(self) -> int:
        with self._step.database.reading() as session:
            return runs.count_claimable(session, self._step.clock())

    async def _call_flow(self) -> None:
        claimed = False

        def on_claim() -> None:
            nonlocal claimed
            if not claimed:
                claimed = True
                self._unclaimed -= 1

        self._unclaimed += 1
        self._step.with_claim_callback(on_claim).become_worker()
        try:
            await analyse_study(return_state=True)
            self._prefect_error = ""
        except Exception as error:  # noqa: BLE001 - Prefect raises whatever its client met
            await self._wait_for_prefect(error)
        finally:
            on_claim()

    async def _wait_for_prefect(self, error: Exception) -> None:
        """Hold this place for a while: the runs stay pending, and nothing is lost."""
        self._prefect_error = f"{type(error).__name__}: {error}"[:300]
        log.warning("worker.flow_not_recorded", error=self._prefect_error)
        with contextlib.suppress(TimeoutError):
            pause = random.uniform(0.5, 1.0) * _PREFECT_PAUSE_S  # noqa: S311
            await asyncio.wait_for(self._stopping.wait(), pause)

    async def _deliver(self, destination: str | None) -> None:
        """Work off what one destination is to get, or, with None, what is for none that is known.

        Each has a loop of its own: one that does not answer holds up nobody else.
        """
        step = self._step
        known = [d.name for d in step.settings.destinations]
        deliver = partial(
            deliver_next,
            step.database,
            step.settings,
            step.files,
            step.clock,
            random.random,
            destination=destination,
            other_than=known if destination is None else (),
        )
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(self._senders, deliver):
            pass

    async def _ask(self, model: RemoteModelSettings) -> None:
        """Send a remote model what it accepts; each has a loop of its own, like destinations."""
        step = self._step
        send = partial(send_next, step.database, step.settings, step.files, step.clock, model)
        while await asyncio.to_thread(send):
            pass

    async def _take_back(self) -> None:
        step = self._step
        take = partial(take_back_next, step.database, step.settings, step.files, step.clock)
        while await asyncio.to_thread(take):
            pass

    async def _withdraw(self) -> None:
        step = self._step
        while await asyncio.to_thread(
            withdraw_next, step.database, step.settings, step.files, step.clock
        ):
            pass

    async def _notify(self) -> None:
        """Decide who is told of what was flagged; each channel is sent in a loop of its own."""
        step = self._step
        await asyncio.to_thread(
            notify_round,
            step.database,
            step.settings.notifications,
            step.clock,
            holder=step.worker,
        )

    async def _send_notifications(self, channel: str) -> None:
        step = self._step
        send = partial(
            send_next_notification,
            step.database,
            step.settings,
            step.clock,
            random.random,
            channel=channel,
        )
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(self._senders, send):
            pass

    async def _queue_notices(self) -> None:
        step = self._step
        await asyncio.to_thread(queue_notices, step.database, step.settings, step.clock)

    async def _warm_ahead(self) -> None:
        if self._step.settings.worker.warm_models:
            await self._warming.warm_ahead()

    async def _beat(self) -> None:
        def write() -> None:
            devices = self._step.hosts.devices
            said = Heartbeat(
                device=_in_words(devices),
                warm_models=", ".join(self._step.hosts.process_ids()),
                prefect_error=self._prefect_error,
                version=version("triage"),
                devices=self._devices.states(),
                doing={run: said.step.value for run, said in list(self._step.progress.items())},
            )
            with self._step.database.transaction() as session:
                beat(session, self._step.worker, said, now=self._step.clock())

        await asyncio.to_thread(write)

    async def _recover_expired(self) -> None:
        step = self._step
        await self._recover(
            lambda session: runs.recover_expired_leases(
                session,
                maximum_attempts=step.settings.worker.maximum_attempts,
                now=step.clock(),
            )
        )
        await asyncio.to_thread(self._jobs.recover)

    async def _delete_due_jobs(self) -> None:
        await asyncio.to_thread(self._jobs.delete_due)

    async def _recover(self, put_back: Callable[..., list[runs.AbandonedRun]]) -> None:
        """Put runs of dead workers back, and say so on their Prefect flow runs."""

        def write() -> list[runs.AbandonedRun]:
            with self._step.database.transaction() as session:
                return put_back(session)

        for abandoned in await asyncio.to_thread(write):
            log.warning("run.abandoned", run=abandoned.run_id)
            if abandoned.flow_run_id:
                await _mark_crashed(abandoned.flow_run_id)

    async def _watch_models(self) -> None:
        """Look at the rules about live models, unless another worker does."""
        step = self._step
        changed = await asyncio.to_thread(
            watch_round, step.database, step.settings.watch, step.clock, holder=step.worker
        )
        for alert in changed:
            say = log.info if alert.cleared_at else log.warning
            say(
                "watch.cleared" if alert.cleared_at else "watch.raised",
                model=f"{alert.model} {alert.version}",
                rule=alert.rule,
                text=alert.text,
            )


def _in_words(devices: Sequence[str]) -> str:
    return devices[0] if len(devices) == 1 else f"{devices[0]} to {devices[-1]}"


async def _mark_crashed(flow_run_id: str) -> None:
    """Tell Prefect that nobody carries this flow run any more; it is only a record."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(5), get_client() as client:
            await client.set_flow_run_state(
                flow_run_id, Crashed(message="the worker stopped"), force=True
            )
