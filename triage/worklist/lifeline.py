"""A study's whole life on one line of time: who sent it, what was done to it, where it went."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from triage.core.runs import RunState, StudyState
from triage.core.stages import COUNTING_STAGES
from triage.store.history import is_for_readers
from triage.store.outbox import failed_attempts
from triage.store.studies import find_study
from triage.store.tables import (
    AnalysisRunRow,
    PriorityEventRow,
    StudyEventRow,
    StudyRow,
)
from triage.worklist.lanes import STEPS, Lane, lanes_of
from triage.worklist.visits import SeenVisit, seen_visits
from triage.worklist.whereabouts import Whereabouts, whereabouts_of
from triage.worklist.wording import (
    calendar_date,
    duration,
    patient_identifier,
    person_name,
    without_series_uids,
)

_MOST_EVENTS = 500


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class LifeEvent(_View):
    """A line of the table: when, how long, what kind, in words."""

    at: datetime
    until: datetime | None = None
    kind: str
    text: str


class RunInLife(_View):
    """A run as the page's buttons need it."""

    run_id: int
    model: str
    name: str
    state: str
    reason: str
    attempts: int
    is_current: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    timings_s: dict[str, float]
    claimed_by: str
    flow_run_id: str
    can_be_cancelled: bool


class StudyLife(_View):
    """All of a study's life, and what can be done about it."""

    study_instance_uid: str
    patient_name: str
    patient_id: str
    accession_number: str
    description: str
    study_date: str
    modalities: tuple[str, ...]
    state: str
    priority: str
    completion_reason: str
    where: Whereabouts
    lanes: tuple[Lane, ...]
    events: tuple[LifeEvent, ...]
    runs: tuple[RunInLife, ...]
    can_be_completed: bool
    can_be_run_again: bool


def study_life(session: Session, study_instance_uid: str, now: datetime) -> StudyLife | None:
    """Return the life of a study, or None where Triage never held it; without shadow models."""
    study = find_study(session, study_instance_uid)
    if study is None:
        return None
    events = _events(session, study)
    visits = seen_visits(session, study, now)
    runs = _runs(session, study)
    is_complete = study.state is StudyState.COMPLETE
    return StudyLife(
        study_instance_uid=study.study_instance_uid,
        patient_name=person_name(study.patient.name),
        patient_id=patient_identifier(study.patient.patient_id),
        accession_number=study.accession_number,
        description=study.description,
        study_date=calendar_date(study.study_date),
        modalities=tuple(filter(None, study.modalities.split("\\"))),
        state=study.state.value,
        priority=study.priority.label,
        completion_reason=study.completion_reason,
        where=whereabouts_of(session, [study], now)[study.id],
        lanes=tuple(lanes_of(session, study, visits, events, runs, now=now)),
        events=_table(session, study, visits, events, runs),
        runs=tuple(_run_view(run, study) for run in runs),
        can_be_completed=not is_complete,
        can_be_run_again=is_complete and not study.is_prior and study.purged_at is None,
    )


def _events(session: Session, study: StudyRow) -> Sequence[StudyEventRow]:
    newest = session.scalars(
        select(StudyEventRow)
        .where(StudyEventRow.study_id == study.id, is_for_readers())
        .order_by(StudyEventRow.id.desc())
        .limit(_MOST_EVENTS)
    ).all()
    return newest[::-1]


def _runs(session: Session, study: StudyRow) -> Sequence[AnalysisRunRow]:
    return session.scalars(
        select(AnalysisRunRow)
        .where(AnalysisRunRow.study_id == study.id, AnalysisRunRow.stage.in_(COUNTING_STAGES))
        .options(joinedload(AnalysisRunRow.model))
        .order_by(AnalysisRunRow.id)
    ).all()


def _run_view(run: AnalysisRunRow, study: StudyRow) -> RunInLife:
    return RunInLife(
        run_id=run.id,
        model=f"{run.model.name} {run.model.version}",
        name=run.model.name,
        state=run.state.value,
        reason=without_series_uids(run.reason),
        attempts=run.attempts,
        is_current=run.generation == study.generation and run.state is not RunState.SUPERSEDED,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        timings_s={k: float(v) for k, v in run.timings_s.items() if isinstance(v, (int, float))},
        claimed_by=run.claimed_by,
        flow_run_id=run.flow_run_id,
        can_be_cancelled=run.state in (RunState.PENDING, RunState.RUNNING),
    )


def _table(
    session: Session,
    study: StudyRow,
    visits: Sequence[SeenVisit],
    events: Sequence[StudyEventRow],
    runs: Sequence[AnalysisRunRow],
) -> tuple[LifeEvent, ...]:
    lines = [
        LifeEvent(
            at=visit.row.began_at,
            until=visit.row.last_at,
            kind="sent",
            text=f"{visit.sender}: {visit.words}",
        )
        for visit in visits
    ]
    lines += [
        LifeEvent(
            at=run.started_at,
            until=run.finished_at,
            kind="run",
            text=f"run {run.id} of {run.model.name} {run.model.version}: {_run_in_words(run)}",
        )
        for run in runs
        if run.started_at is not None
    ]
    lines += [
        LifeEvent(
            at=one.at,
            kind="not-taken",
            text=f"{one.label} to {one.destination}, attempt {one.number}: {one.answer}",
        )
        for one in failed_attempts(session, study.id)
    ]
    lines += [
        LifeEvent(at=event.at, kind=event.kind, text=without_series_uids(event.text))
        for event in events
    ]
    lines += [
        LifeEvent(
            at=row.at,
            kind="priority",
            text=f"{row.before.label} to {row.after.label}: {row.reason}",
        )
        for row in session.scalars(
            select(PriorityEventRow).where(PriorityEventRow.study_id == study.id)
        )
        if row.before is not row.after
    ]
    return tuple(sorted(lines, key=lambda line: line.at))


def _run_in_words(run: AnalysisRunRow) -> str:
    steps = [
        f"{words} {duration(seconds)}"
        for key, words in STEPS.items()
        if isinstance(seconds := run.timings_s.get(key), int | float)
    ]
    waited = duration(((run.started_at or run.created_at) - run.created_at).total_seconds())
    said = [f"waited {waited}", *steps, f"on {run.claimed_by}" if run.claimed_by else ""]
    if run.attempts > 1:
        said.append(f"attempt {run.attempts}")
    return f"{run.state.value}; " + ", ".join(filter(None, said))
