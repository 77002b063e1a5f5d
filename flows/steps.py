"""The steps of a study's path. Each works without Prefect and is tested without it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from triage.core.analysis import (
    Analysis,
    AnalysisFailedError,
    InputRefusedError,
    NotTheModelsFaultError,
)
from triage.core.policy import NOTHING_ASKED, AiPriority
from triage.core.progress import RunProgress, RunStep, run_progress
from triage.models.ahead import DecodedAhead
from triage.models.engine import analyse
from triage.models.host import ModelHosts
from triage.models.packages import PackageError
from triage.models.registry import registered_package
from triage.models.stopping import StopSignal, stop_signal
from triage.results.build import (
    build_results,
    needs_probabilities,
    number_segments,
    store_results,
)
from triage.settings import Settings
from triage.store import breaker, runs
from triage.store.clock import Clock, system_clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.notifications import raise_notifications
from triage.store.outbox import NewResultObject, add_result_objects
from triage.store.prioritising import raise_for_findings
from triage.store.runs import ClaimedRun, LeaseLostError
from triage.store.withdrawals import predecessor_reports

log = structlog.get_logger()

_RETRY_AFTER = timedelta(seconds=2)
_LOOK_AT_RUN_S = 1.0
_this_worker: ContextVar[Step] = ContextVar("this_worker")


@dataclass(frozen=True, slots=True)
class Step:
    """What every step needs: the database, the files, the warm model hosts and the settings."""

    worker: str
    settings: Settings
    database: Database
    files: InstanceFiles
    hosts: ModelHosts
    clock: Clock = system_clock
    decoded: DecodedAhead = field(default_factory=lambda: DecodedAhead(0))
    on_claim: Callable[[], None] = lambda: None
    progress: dict[int, RunProgress] = field(default_factory=dict)

    @staticmethod
    def of_this_worker() -> Step:
        """Return the one that `become_worker` set; flow parameters must be serializable."""
        return _this_worker.get()

    def with_claim_callback(self, on_claim: Callable[[], None]) -> Step:
        """Return the same with `on_claim`, called once the flow has claimed a run or found none."""
        return replace(self, on_claim=on_claim)

    def become_worker(self) -> None:
        """Make this the context of the flows that are called from here."""
        _this_worker.set(self)

    @property
    def lease(self) -> timedelta:
        """How long a claimed run stays this worker's without a sign of life."""
        return timedelta(seconds=self.settings.worker.lease_s)

    @contextlib.asynccontextmanager
    async def keeping_lease(self, run: ClaimedRun) -> AsyncIterator[None]:
        """Renew the lease of `run` as long as the block goes on; stop its model once cancelled.

        `progress` says meanwhile how far it is.
        """
        stop = StopSignal()
        token = stop_signal.set(stop)
        progress = self.progress[run.run_id] = RunProgress()
        progress_token = run_progress.set(progress)
        beside = [
            asyncio.create_task(self._renew_for_ever(run)),
            asyncio.create_task(self._stop_once_cancelled(run, stop)),
        ]
        try:
            yield
        except AnalysisFailedError as failure:
            if stop.is_set:
                raise LeaseLostError(f"run {run.run_id} was cancelled") from failure
            raise
        finally:
            stop_signal.reset(token)
            run_progress.reset(progress_token)
            self.progress.pop(run.run_id, None)
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _stop_once_cancelled(self, run: ClaimedRun, stop: StopSignal) -> None:
        """End the model of a run that a person has cancelled.

        One that was superseded goes on to its end: its warm host is what the new run waits for.
        """
        await asyncio.sleep(_LOOK_AT_RUN_S)
        while not await asyncio.to_thread(self._is_cancelled, run):
            await asyncio.sleep(_LOOK_AT_RUN_S)
        log.info("run.stopped", run=run.run_id, model=run.manifest.identity)
        await asyncio.to_thread(stop.set)

    def _is_cancelled(self, run: ClaimedRun) -> bool:
        try:
            with self.database.reading() as session:
                return runs.is_cancelled(session, run)
        except SQLAlchemyError as error:
            log.warning("run.state_not_read", run=run.run_id, error=type(error).__name__)
            return False  # in doubt it is carried to its end

    async def _renew_for_ever(self, run: ClaimedRun) -> None:
        while True:
            await asyncio.sleep(self.lease.total_seconds() / 3)
            await asyncio.to_thread(self._renew, run)

    def _renew(self, run: ClaimedRun) -> None:
        with self.database.transaction() as session:
            runs.renew_lease(session, run, lease=self.lease, now=self.clock())


async def claim_most_urgent_run(step: Step, *, flow_run_id: str) -> ClaimedRun | None:
    """Claim the most urgent pending run for this worker, or return None."""

    def claim() -> ClaimedRun | None:
        with step.database.transaction() as session:
            run = runs.claim_most_urgent(
                session, worker=step.worker, lease=step.lease, now=step.clock()
            )
            if run is not None:
                runs.note_flow_run(session, run, flow_run_id)
            return run

    run = await asyncio.to_thread(claim)
    step.on_claim()
    if run is not None:
        log.info("run.claimed", run=run.run_id, study=run.study_id, model=run.manifest.identity)
    return run


async def infer(step: Step, run: ClaimedRun) -> Analysis:
    """Decode the images, run the model in its warm host, and interpret what it says.

    Raises:
        InputRefusedError: the images are out of the model's scope, or were purged meanwhile.
        AnalysisFailedError: the model could not be run; another attempt may help.
    """
    if run.refusal:
        raise InputRefusedError(run.refusal)
    if not all(series.instances for series in run.inputs.values()):
        raise InputRefusedError("the images of this series were purged; send them again")
    try:
        package = await asyncio.to_thread(registered_package, run.package_path, run.package_sha256)
    except (PackageError, OSError) as error:
        raise AnalysisFailedError(f"model unavailable: {error}") from error
    first, *others = (
        (name, [(i.sop_instance_uid, step.files.absolute(i.path)) for i in series.instances])
        for name, series in run.inputs.items()
    )
    analysis = await analyse(
        step.hosts,
        package,
        first[1],
        dict(others),
        step.decoded.read,
        keep_probabilities=needs_probabilities(
            run.manifest, step.settings.results, step.settings.segmentation_forms
        ),
    )
    return number_segments(analysis, run.manifest)


async def raise_priority(step: Step, run: ClaimedRun, analysis: Analysis) -> str:
    """Record the findings, raise the study's priority, and make notifications, in one transaction.

    Shadow runs never touch the worklist. Returns the outcome in words.
    """
    identity = run.manifest.identity

    def record() -> AiPriority:
        with step.database.transaction() as session:
            runs.record_findings(
                session, run, analysis.findings, input_sha256=analysis.input_sha256
            )
            breaker.model_answered(session, run.model_id, now=step.clock())
            if not run.counts:
                return NOTHING_ASKED
            asked = raise_for_findings(
                session,
                run.study_id,
                [(identity, finding) for finding in analysis.findings],
                at=step.clock(),
                run_id=run.run_id,
            )
            raise_notifications(
                session,
                run.run_id,
                analysis.findings,
                step.settings.notifications,
                now=step.clock(),
            )
            return asked

    asked = await asyncio.to_thread(record)
    log.info("run.findings", run=run.run_id, study=run.study_id, priority=asked.priority)
    present = [f.in_words() for f in analysis.findings if f.present]
    return "; ".join(present) or "nothing found"


async def build_and_store_results(
    step: Step, run: ClaimedRun, analysis: Analysis
) -> tuple[list[NewResultObject], float]:
    """Build the DICOM objects that the manifest asks for and make their files durable.

    Those of a shadow run are built, so that a failure comes to light, and not kept. Returns the
    objects that are kept and the seconds that it took.
    """
    started = asyncio.get_running_loop().time()
    run_progress.get().step = RunStep.RESULTS

    def build() -> list[NewResultObject]:
        with step.database.reading() as session:
            predecessors = predecessor_reports(session, run.run_id)
        objects = build_results(
            analysis,
            run.manifest,
            study_instance_uid=run.study_instance_uid,
            settings=step.settings.results,
            produced_at=step.clock(),
            variants=step.settings.segmentation_forms,
            predecessors=predecessors,
        )
        return store_results(step.files, objects) if run.counts else []

    try:
        stored = await asyncio.to_thread(build)
    except InputRefusedError:
        raise
    except (ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        # The flag stands; only the objects are missing, which another attempt may bring.
        raise NotTheModelsFaultError(f"result objects could not be built: {error}") from error
    return stored, asyncio.get_running_loop().time() - started


async def complete_run(
    step: Step,
    run: ClaimedRun,
    analysis: Analysis,
    objects: tuple[list[NewResultObject], float],
    said: str,
) -> None:
    """Complete the run, index its objects and queue their deliveries, in one transaction."""
    stored, seconds = objects
    run_progress.get().step = RunStep.COMPLETE
    timings = {**analysis.timings_s, "results": round(seconds, 3)}

    def complete() -> None:
        now = step.clock()
        with step.database.transaction() as session:
            runs.complete_run(
                session,
                run,
                said,
                timings_s=timings,
                input_values=analysis.input_values,
                now=now,
            )
            add_result_objects(
                session,
                run_id=run.run_id,
                study_id=run.study_id,
                objects=stored,
                destinations=step.settings.destinations,
                now=now,
            )

    await asyncio.to_thread(complete)
    log.info("run.completed", run=run.run_id, study=run.study_id, **timings)


async def refuse_run(step: Step, run: ClaimedRun, reason: str) -> None:
    """State why the study was not analysed."""

    def refuse() -> None:
        with step.database.transaction() as session:
            runs.refuse_run(session, run, reason, now=step.clock())

    with contextlib.suppress(LeaseLostError):
        await asyncio.to_thread(refuse)
    log.info("run.refused", run=run.run_id, study=run.study_id, reason=reason)


async def fail_run(step: Step, run: ClaimedRun, failure: AnalysisFailedError) -> None:
    """Put the run back for another attempt, or state that it failed.

    A model that failed too many studies in a row is parked.
    """
    reason = str(failure)
    worker = step.settings.worker

    def fail() -> bool:
        with step.database.transaction() as session:
            now = step.clock()
            runs.fail_attempt(
                session,
                run,
                reason,
                maximum_attempts=worker.maximum_attempts,
                retry_after=_RETRY_AFTER * run.attempt,
                now=now,
            )
            if isinstance(failure, NotTheModelsFaultError):
                return False
            failed = breaker.FailedStudy(run.run_id, run.study_id, run.model_id, run.attempt)
            limits = breaker.Breaker(
                worker.breaker_failures, timedelta(seconds=worker.breaker_pause_s)
            )
            return breaker.model_failed(session, failed, reason, breaker=limits, now=now)

    is_parked = False
    with contextlib.suppress(LeaseLostError):
        is_parked = await asyncio.to_thread(fail)
    log.warning("run.failed", run=run.run_id, study=run.study_id, reason=reason)
    if is_parked:
        log.error("model.parked", model=run.manifest.identity, reason=reason)
