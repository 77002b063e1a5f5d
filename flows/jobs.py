"""What engineers ask of models on the pages, done beside the studies and never before them.

A job begins only while no run is pending or running, one at a time over all workers, and in a
process of its own at the lowest priority and on the CPU. So a study that comes meanwhile finds its
warm hosts, the memory of the GPU and nearly all of the processors; the job is not ended for it,
because an evaluation of hours would then never come to its end in a hospital.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from flows.steps import Step
from triage.core.jobs import OUTCOMES, Evaluated, JobState
from triage.models.overview import add_evaluation
from triage.store import model_jobs
from triage.store.job_files import JobFolder, abandoned_folders
from triage.store.model_jobs import ClaimedJob, JobLostError
from triage.store.model_tables import ModelJobRow

log = structlog.get_logger()

_LEASE = timedelta(seconds=30)
_LOOK_S = 0.5
_ABANDONED_AFTER = timedelta(days=1)

T = TypeVar("T")


class _EndedError(Exception):
    """The job's process was ended from here; `reason` says why, empty where a person asked."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Jobs:
    """Carries out jobs, one at a time."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._settings = step.settings.jobs
        self._keep_for = timedelta(days=self._settings.keep_days)

    async def carry_out_next(self) -> None:
        """Carry out the job that has waited longest, if it is time for one."""
        job = await asyncio.to_thread(self._claim)
        if job is None:
            return
        log.info("job.started", job=job.job_id, kind=job.order.kind)
        with contextlib.suppress(JobLostError):
            state = await self._carry_out(job)
            log.info("job.ended", job=job.job_id, kind=job.order.kind, state=state)

    def recover(self, *, is_start: bool = False) -> None:
        """Put back jobs whose worker died, and at the start those that this one left."""
        worker = self._step.worker if is_start else ""
        lost = self._write(
            lambda session: model_jobs.recover_jobs(
                session, worker=worker, keep_for=self._keep_for, now=self._step.clock()
            )
        )
        for job_id in lost:
            log.warning("job.abandoned", job=job_id)

    def delete_due(self) -> None:
        """Delete jobs whose time is over, the rows first: a file without a row nobody can reach."""
        for name in self._write(
            lambda session: model_jobs.delete_due_jobs(session, self._step.clock())
        ):
            self._folder(name).remove()
        with self._step.database.reading() as session:
            known = model_jobs.known_folders(session)
        for folder in abandoned_folders(
            self._step.settings.data_directory, known, now=time.time(), after=_ABANDONED_AFTER
        ):
            folder.remove()

    def _claim(self) -> ClaimedJob | None:
        step = self._step
        with step.database.reading() as session:  # most looks find nothing and take no lock
            if not model_jobs.has_waiting_job(session):
                return None
        return self._write(
            lambda session: model_jobs.claim_job(
                session, worker=step.worker, lease=_LEASE, now=step.clock()
            )
        )

    async def _carry_out(self, job: ClaimedJob) -> JobState:
        folder = self._folder(job.folder)
        try:
            await asyncio.to_thread(folder.begin, job.order)
            status = await self._run(job, folder)
        except asyncio.CancelledError:  # the worker is asked to stop
            with contextlib.suppress(JobLostError, SQLAlchemyError):
                self._write(lambda session: model_jobs.put_job_back(session, job))
            raise
        except _EndedError as ended:
            return await asyncio.to_thread(self._end, job, folder, ended)
        except OSError as error:
            reason = f"its folder cannot be used: {error.strerror}"
            return await asyncio.to_thread(self._fail, job, folder, reason, may_be_repeated=True)
        return await asyncio.to_thread(self._conclude, job, folder, status)

    async def _run(self, job: ClaimedJob, folder: JobFolder) -> int:
        """Run the job's process to its end and return its exit status."""
        with _lifeline() as lifeline, folder.log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "triage.cli", "models", "job", str(folder.path)),
                stdin=lifeline,
                stdout=output,
                stderr=output,
                env={**os.environ, "TRIAGE_WORKER__DEVICE": self._settings.device},
                # A group of its own, to be ended as a whole. Not a session: the kernel shares
                # the processors out between sessions first, and their members' niceness is lost.
                process_group=0,
            )
            try:
                return await self._attend(job, folder, process)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    async def _attend(
        self, job: ClaimedJob, folder: JobFolder, process: asyncio.subprocess.Process
    ) -> int:
        hold = _Hold(self._step, job)
        until = time.monotonic() + self._settings.time_limit_s
        while True:
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(process.wait(), _LOOK_S)
            if not await asyncio.to_thread(hold.renew, folder.progress()):
                raise _EndedError
            if time.monotonic() > until:
                limit = f"{self._settings.time_limit_s:g} s (jobs.time_limit_s)"
                raise _EndedError(f"it took longer than {limit}")

    def _end(self, job: ClaimedJob, folder: JobFolder, ended: _EndedError) -> JobState:
        if ended.reason:
            return self._fail(job, folder, ended.reason, may_be_repeated=False)
        self._write(
            lambda session: model_jobs.mark_cancelled(
                session, job, keep_for=self._keep_for, now=self._step.clock()
            )
        )
        folder.drop_inputs()
        folder.drop_results()
        return JobState.CANCELLED

    def _conclude(self, job: ClaimedJob, folder: JobFolder, status: int) -> JobState:
        """Write down what the ended process left."""
        left = folder.outcome() if status == 0 else None
        if left is None:
            said = folder.last_words()
            reason = f"its process ended with {_in_words(status)}" + (f": {said}" if said else "")
            return self._fail(job, folder, reason, may_be_repeated=True)
        content, refusal = left
        if refusal:
            return self._fail(job, folder, refusal, may_be_repeated=False)

        def write(session: Session) -> None:
            row = model_jobs.finish_job(
                session, job, content, keep_for=self._keep_for, now=self._step.clock()
            )
            self._keep_figures(session, row)

        self._write(write)
        folder.drop_inputs()
        return JobState.DONE

    def _keep_figures(self, session: Session, row: ModelJobRow) -> None:
        """Keep an evaluation with its version, as the command does."""
        outcome = OUTCOMES.validate_python(row.outcome)
        if isinstance(outcome, Evaluated) and row.model is not None:
            add_evaluation(
                session,
                row.model,
                outcome.figures,
                labels_name=str(row.order["labels_name"]),
                who=row.who,
                at=self._step.clock(),
            )

    def _fail(
        self, job: ClaimedJob, folder: JobFolder, reason: str, *, may_be_repeated: bool
    ) -> JobState:
        state = self._write(
            lambda session: model_jobs.fail_job(
                session,
                job,
                reason,
                may_be_repeated=may_be_repeated,
                keep_for=self._keep_for,
                now=self._step.clock(),
            )
        )
        folder.drop_results()
        if state.is_over:
            folder.drop_inputs()
        return state

    def _folder(self, name: str) -> JobFolder:
        return JobFolder.of(self._step.settings.data_directory, name)

    def _write(self, write: Callable[[Session], T]) -> T:
        with self._step.database.transaction() as session:
            return write(session)


class _Hold:
    """A job's lease, written only when there is news or it is time: each write is a sync."""

    def __init__(self, step: Step, job: ClaimedJob) -> None:
        self._step = step
        self._job = job
        self._said = ""
        self._renewed_at = time.monotonic()

    def renew(self, progress: str) -> bool:
        """Keep the lease, and return whether to go on.

        Raises:
            JobLostError: it is not this worker's any more.
        """
        try:
            return self._renew(progress)
        except SQLAlchemyError as error:  # a database that is away for a moment ends no job
            log.warning("job.database-away", job=self._job.job_id, error=type(error).__name__)
            return True

    def _renew(self, progress: str) -> bool:
        database, now = self._step.database, time.monotonic()
        if progress == self._said and now - self._renewed_at < _LEASE.total_seconds() / 3:
            with database.reading() as session:
                return model_jobs.is_wanted(session, self._job)
        with database.transaction() as session:
            is_wanted = model_jobs.renew_job(
                session, self._job, progress, lease=_LEASE, now=self._step.clock()
            )
        self._said, self._renewed_at = progress, now
        return is_wanted


@contextmanager
def _lifeline() -> Iterator[int]:
    """Give the end of a pipe for the job's process; the other one closes when this process dies."""
    theirs, ours = os.pipe()
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)


def _in_words(status: int) -> str:
    """Return an exit status as people say it.

    >>> _in_words(-9), _in_words(1)
    ('SIGKILL', 'status 1')
    """
    return signal.Signals(-status).name if status < 0 else f"status {status}"
