"""The queue of jobs about models, on SQLite and on PostgreSQL, and a job's folder."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tests.store.test_runs import finish, held, queue_runs
from tests.tools import ManualClock
from triage.core.jobs import CheckOrder, JobState, Scaffolded, TryOrder
from triage.store import model_jobs
from triage.store.database import Database
from triage.store.job_files import JobFolder, abandoned_folders
from triage.store.model_jobs import ClaimedJob, JobLostError, JobNotOverError, UnknownJobError
from triage.store.model_tables import ModelJobRow

LEASE = timedelta(seconds=30)
WEEK = timedelta(days=7)


def ask(database: Database, clock: ManualClock, *, is_kept: bool = False) -> int:
    with database.transaction() as session:
        row = model_jobs.add_job(
            session,
            CheckOrder(package="package.zip"),
            model_id=None,
            who="ada",
            folder=os.urandom(16).hex(),
            is_kept=is_kept,
            now=clock(),
        )
        return row.id


def claim(database: Database, clock: ManualClock, worker: str = "w") -> ClaimedJob | None:
    with database.transaction() as session:
        return model_jobs.claim_job(session, worker=worker, lease=LEASE, now=clock())


def claimed(database: Database, clock: ManualClock, worker: str = "w") -> ClaimedJob:
    job = claim(database, clock, worker)
    assert job is not None
    return job


def fail(database: Database, clock: ManualClock, job: ClaimedJob, *, dies: bool) -> JobState:
    with database.transaction() as session:
        return model_jobs.fail_job(
            session, job, "it died", may_be_repeated=dies, keep_for=WEEK, now=clock()
        )


def job_row(database: Database, job_id: int) -> ModelJobRow:
    with database.reading() as session:
        return model_jobs.find_job(session, job_id)


def test_one_job_is_done_at_a_time_in_the_order_they_were_asked_for(
    database: Database, clock: ManualClock
) -> None:
    first, second = ask(database, clock), ask(database, clock)
    job = claimed(database, clock)
    assert (job.job_id, job.order, job.who) == (first, CheckOrder(package="package.zip"), "ada")
    assert claim(database, clock) is None
    assert claim(database, clock, "another worker") is None
    with database.transaction() as session:
        outcome = {"kind": "init", "model": "a 1.0.0", "left_to_say": []}
        model_jobs.finish_job(session, job, outcome, keep_for=WEEK, now=clock())
    row = job_row(database, first)
    assert (row.state, row.outcome, row.delete_after) == (JobState.DONE, outcome, clock() + WEEK)
    assert claim(database, clock, "another worker") is None  # the lease is still w's
    assert claimed(database, clock).job_id == second


def test_job_begins_only_when_no_study_waits_or_is_analysed(
    database: Database, clock: ManualClock
) -> None:
    queue_runs(database, clock, "ROUTINE")
    ask(database, clock)
    assert claim(database, clock) is None
    run = held(database, clock)
    assert claim(database, clock) is None
    finish(database, clock, run)
    assert claim(database, clock) is not None


def test_job_whose_worker_died_is_repeated_once(database: Database, clock: ManualClock) -> None:
    job_id = ask(database, clock)
    lost = claimed(database, clock)
    clock.advance(31)
    with database.transaction() as session:
        recovered = model_jobs.recover_jobs(session, worker="", keep_for=WEEK, now=clock())
    assert recovered == [job_id]
    again = claimed(database, clock, "another worker")
    with pytest.raises(JobLostError), database.transaction() as session:
        model_jobs.renew_job(session, lost, "late", lease=LEASE, now=clock())
    with database.transaction() as session:  # as it starts again: not waiting for its lease
        model_jobs.recover_jobs(session, worker="another worker", keep_for=WEEK, now=clock())
    row = job_row(database, again.job_id)
    assert row.state is JobState.FAILED
    assert row.reason == "the worker stopped while it was at this job (2 attempts)"


def test_death_is_repeated_and_a_refusal_is_not(database: Database, clock: ManualClock) -> None:
    ask(database, clock)
    assert fail(database, clock, claimed(database, clock), dies=True) is JobState.WAITING
    assert fail(database, clock, claimed(database, clock), dies=True) is JobState.FAILED
    refused = ask(database, clock)
    assert fail(database, clock, claimed(database, clock), dies=False) is JobState.FAILED
    assert job_row(database, refused).reason == "it died"


def test_cancelled_job_ends_at_once_or_tells_its_worker(
    database: Database, clock: ManualClock
) -> None:
    running, waiting = ask(database, clock), ask(database, clock)
    job = claimed(database, clock)
    with database.transaction() as session:
        assert model_jobs.renew_job(session, job, "1 of 2 cases", lease=LEASE, now=clock())
        for job_id in (running, waiting):
            model_jobs.cancel_job(session, job_id, who="ada", keep_for=WEEK, now=clock())
    assert job_row(database, waiting).state is JobState.CANCELLED
    with database.transaction() as session:
        assert not model_jobs.is_wanted(session, job)
        assert not model_jobs.renew_job(session, job, "2 of 2", lease=LEASE, now=clock())
        model_jobs.mark_cancelled(session, job, keep_for=WEEK, now=clock())
    row = job_row(database, running)
    assert (row.state, row.reason) == (JobState.CANCELLED, "cancelled by ada")


def test_job_of_a_worker_that_is_asked_to_stop_keeps_its_attempts(
    database: Database, clock: ManualClock
) -> None:
    job_id = ask(database, clock)
    job = claimed(database, clock)
    with database.transaction() as session:
        model_jobs.put_job_back(session, job)
    row = job_row(database, job_id)
    assert (row.state, row.attempts) == (JobState.WAITING, 0)


def test_jobs_are_deleted_when_their_time_is_over_unless_they_are_kept(
    database: Database, clock: ManualClock
) -> None:
    short, kept = ask(database, clock), ask(database, clock, is_kept=True)
    with pytest.raises(JobNotOverError, match="cancel it first"), database.transaction() as session:
        model_jobs.delete_job(session, short)
    for _ in (short, kept):
        with database.transaction() as session:
            job = model_jobs.claim_job(session, worker="w", lease=LEASE, now=clock())
            assert job is not None
            model_jobs.finish_job(session, job, {}, keep_for=WEEK, now=clock())
    clock.advance(WEEK.total_seconds())
    with database.transaction() as session:
        assert len(model_jobs.delete_due_jobs(session, clock())) == 1
        assert model_jobs.find_job(session, kept).delete_after is None
        with pytest.raises(UnknownJobError):
            model_jobs.find_job(session, short)
        model_jobs.delete_job(session, kept)
        assert model_jobs.known_folders(session) == frozenset()


def test_folder_holds_an_order_and_gives_back_what_came_of_it(tmp_path: Path) -> None:
    folder = JobFolder.create(tmp_path)
    order = TryOrder(model="a", version="1.0.0", study_instance_uid="1.2")
    (folder.uploads / "images.zip").write_bytes(b"x")
    folder.begin(order)
    (folder.out / "seg.dcm").write_bytes(b"x")
    folder.begin(order)  # a second attempt finds nothing of the first
    assert folder.results() == []
    assert TryOrder.model_validate(folder.order()) == order
    assert folder.outcome() is None
    folder.tell("1 of 2 cases")
    folder.end(outcome=Scaffolded(model="a 1.0.0", left_to_say=()))
    (folder.out / "package.zip").write_bytes(b"x")
    (folder.out / "link").symlink_to("/etc/passwd")
    content, refusal = folder.outcome() or ({}, "nothing")
    assert (folder.progress(), content["model"], refusal) == ("1 of 2 cases", "a 1.0.0", "")
    assert [path.name for path in folder.results()] == ["package.zip"]
    assert [folder.result(name) for name in ("link", "../order.json", "x")] == [None] * 3
    folder.drop_inputs()
    assert not folder.uploads.exists()
    assert folder.path.stat().st_mode & 0o077 == 0


def test_folder_that_no_row_names_is_found_once_it_is_old(tmp_path: Path) -> None:
    known, abandoned = JobFolder.create(tmp_path), JobFolder.create(tmp_path)
    named, day = frozenset({known.name}), timedelta(days=1)
    now = time.time()
    assert [*abandoned_folders(tmp_path, named, now=now, after=day)] == []
    later = now + day.total_seconds() + 1
    assert [*abandoned_folders(tmp_path, named, now=later, after=day)] == [abandoned]
    assert [*abandoned_folders(tmp_path / "none", named, now=later, after=day)] == []
