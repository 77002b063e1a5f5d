"""The queue of analysis runs: claimed most urgent first, under a lease."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session, joinedload

from triage.core.findings import Finding
from triage.core.input_characteristics import characteristics_of
from triage.core.manifest import ModelManifest
from triage.core.runs import RunState, check_transition
from triage.core.stages import COUNTING_STAGES, RUNNING_STAGES, Stage
from triage.core.studies import Series
from triage.store import breaker
from triage.store.history import note
from triage.store.model_tables import ModelRow
from triage.store.run_inputs import ClaimedInputs, claim_inputs
from triage.store.stand_ins import ask_production, ask_production_for_parked
from triage.store.tables import AnalysisRunRow, FindingRow, StudyRow
from triage.store.withdrawals import is_withdrawn_by_person


class LeaseLostError(Exception):
    """The run was taken over by another worker, or superseded, while this one worked on it."""


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that this worker holds, with all that is needed to carry it out.

    `inputs` are the series by the names of the manifest's inputs, the first of them `series`.
    `refusal` is why it cannot be carried out, where a required prior did not come.
    """

    run_id: int
    claim: int
    attempt: int
    study_id: int
    study_instance_uid: str
    model_id: int
    generation: int
    counts: bool
    manifest: ModelManifest
    package_path: str
    package_sha256: str
    series: Series
    inputs: Mapping[str, Series]
    refusal: str = ""


def claim_most_urgent(
    session: Session, *, worker: str, lease: timedelta, now: datetime
) -> ClaimedRun | None:
    """Claim the most urgent run that is pending, or None if there is none.

    Most urgent is the run whose study comes first on the reading list: it follows the study when
    that moves. A shadow run comes after all
    that count, because nobody waits for it. Two workers never get the same run: PostgreSQL skips
    rows that another has locked, SQLite has one writer at a time. Runs of a parked model are
    passed over (`triage.store.breaker`).
    """
    run = _most_urgent(session, COUNTING_STAGES, now) or _most_urgent(session, RUNNING_STAGES, now)
    if run is None or not breaker.may_be_claimed(session, run.model_id, now):
        return None
    check_transition(run.id, run.state, RunState.RUNNING)
    run.state = RunState.RUNNING
    run.attempts += 1
    run.claim += 1
    run.claimed_by = worker[:128]
    run.lease_until = now + lease
    run.started_at = now
    run.finished_at = None
    run.reason = ""
    manifest = ModelManifest.model_validate(run.model.manifest)
    claimed = claim_inputs(session, run, manifest)
    run.instances_sha256 = claimed.digest
    return _claimed(session, run, manifest, claimed)


def _most_urgent(
    session: Session, stages: Collection[Stage], now: datetime
) -> AnalysisRunRow | None:
    return session.scalars(
        select(AnalysisRunRow)
        .join(ModelRow, ModelRow.id == AnalysisRunRow.model_id)
        .where(*_claimable(now), AnalysisRunRow.stage.in_(stages))
        .order_by(AnalysisRunRow.priority.desc(), AnalysisRunRow.ranked_at, AnalysisRunRow.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=AnalysisRunRow)
    ).first()


def _claimable(now: datetime) -> tuple[ColumnElement[bool], ...]:
    is_due = AnalysisRunRow.available_at <= now
    return (AnalysisRunRow.state == RunState.PENDING, is_due, breaker.is_available(now))


def _claimed(
    session: Session, run: AnalysisRunRow, manifest: ModelManifest, claimed: ClaimedInputs
) -> ClaimedRun:
    study = session.scalars(select(StudyRow).where(StudyRow.id == run.study_id)).one()
    return ClaimedRun(
        run_id=run.id,
        claim=run.claim,
        attempt=run.attempts,
        study_id=run.study_id,
        study_instance_uid=study.study_instance_uid,
        model_id=run.model_id,
        generation=run.generation,
        counts=run.stage.counts,
        manifest=manifest,
        package_path=run.model.package_path,
        package_sha256=run.model.package_sha256,
        series=claimed.inputs[0][1],
        inputs=dict(claimed.inputs),
        refusal=claimed.refusal,
    )


def count_claimable(session: Session, now: datetime) -> int:
    """Return how many runs could be claimed now."""
    return session.scalars(
        select(func.count())
        .select_from(AnalysisRunRow)
        .join(ModelRow, ModelRow.id == AnalysisRunRow.model_id)
        .where(*_claimable(now))
    ).one()


def renew_lease(session: Session, run: ClaimedRun, *, lease: timedelta, now: datetime) -> None:
    """Keep the run for another `lease`.

    Raises:
        LeaseLostError: another worker has it, or it was superseded.
    """
    _held(session, run).lease_until = now + lease


def is_cancelled(session: Session, run: ClaimedRun) -> bool:
    """Return whether a person has cancelled the run."""
    state = session.scalars(
        select(AnalysisRunRow.state).where(AnalysisRunRow.id == run.run_id)
    ).one()
    return state is RunState.CANCELLED


def record_findings(
    session: Session, run: ClaimedRun, findings: Sequence[Finding], *, input_sha256: str
) -> None:
    """Write the findings of a run that is still going on, over those of an earlier attempt.

    They are written before the DICOM objects are built, so that the flag waits for nothing. A
    person may judge them before the run is completed, so the rows of an earlier attempt stay, and
    with them what was said of them.

    Raises:
        LeaseLostError: another worker has the run; nothing may be written.
    """
    row = _held(session, run)
    row.input_sha256 = input_sha256
    said = {finding.key: finding for finding in findings}
    earlier = {old.key: old for old in row.findings}
    for key in earlier.keys() - said.keys():
        session.delete(earlier[key])
    for key, finding in said.items():
        new = earlier.get(key)
        if new is None:
            new = FindingRow(run_id=run.run_id, key=key)
            session.add(new)
        new.present = finding.present
        new.confidence = finding.confidence
        new.content = finding.model_dump(mode="json")


def complete_run(
    session: Session,
    run: ClaimedRun,
    said: str,
    *,
    timings_s: Mapping[str, float],
    input_values: Mapping[str, float] | None = None,
    now: datetime,
) -> None:
    """Mark the run completed; `said` is its outcome in words, for the study's history.

    `input_values` describe the array that the model was given; with what the headers say of the
    images they are kept for the watch over drift.

    Raises:
        LeaseLostError: another worker has the run; nothing may be written.
    """
    row = _held(session, run)
    _finish(row, RunState.COMPLETED, "", now)
    row.timings_s = dict(timings_s)
    row.input_characteristics = _characteristics(row, run) | dict(input_values or {})
    text = f"{run.manifest.identity}: {said}"
    note(session, run.study_id, "analysed", text, at=now, run_id=run.run_id)


def _characteristics(row: AnalysisRunRow, run: ClaimedRun) -> dict[str, str | float]:
    study = row.study
    return characteristics_of(
        run.series,
        sex=study.patient.sex,
        birth_date=study.patient.birth_date,
        study_date=study.study_date,
    )


def note_flow_run(session: Session, run: ClaimedRun, flow_run_id: str) -> None:
    """Remember which Prefect flow run carries the run."""
    _held(session, run).flow_run_id = flow_run_id


def refuse_run(session: Session, run: ClaimedRun, reason: str, *, now: datetime) -> None:
    """State that the run's input is not for this model: "not analysed, because …".

    Raises:
        LeaseLostError: another worker has the run.
    """
    row = _held(session, run)
    _finish(row, RunState.REFUSED, reason, now)
    row.input_characteristics = _characteristics(row, run)
    text = f"{run.manifest.identity}: {reason}"
    note(session, run.study_id, "not-analysed", text, at=now, run_id=run.run_id)
    ask_production(session, row, now)


def fail_attempt(
    session: Session,
    run: ClaimedRun,
    reason: str,
    *,
    maximum_attempts: int,
    retry_after: timedelta,
    now: datetime,
) -> RunState:
    """Put the run back for another attempt, or mark it failed after the last one.

    Raises:
        LeaseLostError: another worker has the run.
    """
    row = _held(session, run)
    return _end_attempt(
        session,
        row,
        reason,
        maximum_attempts=maximum_attempts,
        retry_after=retry_after,
        now=now,
    )


@dataclass(frozen=True, slots=True)
class AbandonedRun:
    """A run whose worker has died, put back into the queue."""

    run_id: int
    flow_run_id: str


def recover_expired_leases(
    session: Session, *, maximum_attempts: int, now: datetime
) -> list[AbandonedRun]:
    """Put back the runs whose worker has died, and let no study wait for a parked canary."""
    ask_production_for_parked(session, now)
    expired = session.scalars(
        select(AnalysisRunRow)
        .where(AnalysisRunRow.state == RunState.RUNNING, AnalysisRunRow.lease_until < now)
        .with_for_update(skip_locked=True, of=AnalysisRunRow)
    ).all()
    return _abandon(session, expired, "the worker stopped", maximum_attempts, now)


def release_worker(
    session: Session, worker: str, *, maximum_attempts: int, now: datetime
) -> list[AbandonedRun]:
    """Put back what a worker of this name held before it was restarted."""
    held = session.scalars(
        select(AnalysisRunRow).where(
            AnalysisRunRow.state == RunState.RUNNING, AnalysisRunRow.claimed_by == worker
        )
    ).all()
    return _abandon(session, held, "the worker was restarted", maximum_attempts, now)


def _abandon(
    session: Session,
    rows: Sequence[AnalysisRunRow],
    reason: str,
    maximum_attempts: int,
    now: datetime,
) -> list[AbandonedRun]:
    for row in rows:
        _end_attempt(
            session,
            row,
            reason,
            maximum_attempts=maximum_attempts,
            retry_after=timedelta(0),
            now=now,
        )
    return [AbandonedRun(row.id, row.flow_run_id) for row in rows]


def _end_attempt(
    session: Session,
    row: AnalysisRunRow,
    reason: str,
    *,
    maximum_attempts: int,
    retry_after: timedelta,
    now: datetime,
) -> RunState:
    identity = f"{row.model.name} {row.model.version}"
    ask_production(session, row, now)  # at the first failure: it does not wait for the last
    if row.attempts >= maximum_attempts:
        _finish(row, RunState.FAILED, reason, now)
        text = f"{identity}: {reason} ({row.attempts} attempts)"
        note(session, row.study_id, "failed", text, at=now, run_id=row.id)
        return row.state
    check_transition(row.id, row.state, RunState.PENDING)
    row.state = RunState.PENDING
    row.reason = reason
    row.lease_until = None
    row.available_at = now + retry_after
    return row.state


def _finish(row: AnalysisRunRow, state: RunState, reason: str, now: datetime) -> None:
    check_transition(row.id, row.state, state)
    row.state = state
    row.reason = reason
    row.lease_until = None
    row.finished_at = now


def _held(session: Session, run: ClaimedRun) -> AnalysisRunRow:
    row = session.scalars(
        select(AnalysisRunRow)
        .where(AnalysisRunRow.id == run.run_id)
        .options(joinedload(AnalysisRunRow.model))
        .with_for_update(of=AnalysisRunRow)
    ).one()
    if row.state is not RunState.RUNNING or row.claim != run.claim:
        raise LeaseLostError(
            f"analysis run {run.run_id} is {row.state}, claim {row.claim}; "
            f"this worker held claim {run.claim}"
        )
    return row


def counting_findings(session: Session, study_id: int) -> list[tuple[str, Finding]]:
    """Return the findings of the study's current completed runs that count, with the model.

    What a person withdrew does not count.
    """
    rows = session.execute(
        select(AnalysisRunRow, FindingRow)
        .join(FindingRow, FindingRow.run_id == AnalysisRunRow.id)
        .join(StudyRow, StudyRow.id == AnalysisRunRow.study_id)
        .where(
            AnalysisRunRow.study_id == study_id,
            AnalysisRunRow.state == RunState.COMPLETED,
            AnalysisRunRow.generation == StudyRow.generation,
            ~is_withdrawn_by_person(AnalysisRunRow.id),
        )
        .order_by(FindingRow.id)
    ).all()
    return [
        (f"{run.model.name} {run.model.version}", Finding.model_validate(finding.content))
        for run, finding in rows
        if run.stage.counts
    ]


def count_by_state(session: Session) -> dict[RunState, int]:
    """Return how many runs stand in each state."""
    counted = session.execute(
        select(AnalysisRunRow.state, func.count()).group_by(AnalysisRunRow.state)
    )
    return {row[0]: row[1] for row in counted.all()}


def is_idle(session: Session) -> bool:
    """Return whether no run is pending or running."""
    busy = select(AnalysisRunRow.id).where(
        or_(AnalysisRunRow.state == RunState.PENDING, AnalysisRunRow.state == RunState.RUNNING)
    )
    return session.scalars(busy.limit(1)).first() is None
