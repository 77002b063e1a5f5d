"""A study's whole life on one line of time: who sent it, what was done to it, where it went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict
from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, joinedload

from triage.core.commitment import CommitmentState
from triage.core.runs import DeliveryState, RunState, StudyState
from triage.core.stages import COUNTING_STAGES
from triage.core.visits import Ending
from triage.store.arrivals import ASSOCIATION_IS_DEAD_AFTER
from triage.store.history import is_for_readers
from triage.store.outbox import label_of
from triage.store.studies import find_study
from triage.store.tables import (
    AnalysisRunRow,
    ArchiveCountRow,
    ArrivalSignalRow,
    CommitmentRow,
    DeliveryRow,
    OpenAssociationRow,
    PriorityEventRow,
    PriorSearchRow,
    StudyEventRow,
    StudyRow,
)
from triage.store.visit_tables import VisitRow
from triage.store.visits import visits_of
from triage.worklist.whereabouts import Whereabouts, whereabouts_of
from triage.worklist.wording import (
    calendar_date,
    duration,
    patient_identifier,
    person_name,
    without_series_uids,
)

_MOST_EVENTS = 500
WAYS = {
    "dicom": "DICOM",
    "dicom-tls": "DICOM over TLS",
    "stow": "STOW-RS",
    "pull": "pulled",
    "priors": "pulled as a prior",
    "folder": "watched folder",
}
_ENDINGS = {
    Ending.OPEN: "still open",
    Ending.RELEASED: "",
    Ending.ABORTED: "aborted",
    Ending.BROKEN: "connection lost",
}
_STEPS = {
    "decode": "decoding the images",
    "infer": "the model",
    "interpret": "reading its output as findings",
    "results": "building the result objects",
}
_RUN_TONES = {
    RunState.RUNNING: "going-on",
    RunState.FAILED: "failed",
    RunState.REFUSED: "refused",
    RunState.CANCELLED: "refused",
}
_DELIVERY_TONES = {
    DeliveryState.DELIVERED: "done",
    DeliveryState.WAITING: "wait",
    DeliveryState.SENDING: "going-on",
    DeliveryState.DEAD: "failed",
    DeliveryState.GIVEN_UP: "refused",
    DeliveryState.WITHDRAWN: "refused",
}


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Tone(StrEnum):
    """What a bar stands for."""

    WAIT = "wait"
    GOING_ON = "going-on"
    DONE = "done"
    DECODE = "decode"
    INFER = "infer"
    INTERPRET = "interpret"
    RESULTS = "results"
    REFUSED = "refused"
    FAILED = "failed"


class Bar(_View):
    """Something that took from `start` to `end`; a moment where the two are one.

    `is_idle` says that nothing was done in that time, so that it may be drawn shorter.
    """

    start: datetime
    end: datetime
    tone: Tone
    text: str
    is_idle: bool = False


_ENDING_TONES = {
    Ending.OPEN: Tone.GOING_ON,
    Ending.RELEASED: Tone.DONE,
    Ending.ABORTED: Tone.FAILED,
    Ending.BROKEN: Tone.FAILED,
}


class Lane(_View):
    """One line of the picture: its name, and what happened on it."""

    group: str
    name: str
    bars: tuple[Bar, ...]


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
    visits = _visits(session, study, now)
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
        lanes=tuple(_lanes(session, study, visits, events, runs, now=now)),
        events=_table(session, study, visits, events, runs),
        runs=tuple(_run_view(run, study) for run in runs),
        can_be_completed=not is_complete,
        can_be_run_again=is_complete and not study.is_prior and study.purged_at is None,
    )


@dataclass(frozen=True, slots=True)
class _Visit:
    """A visit, with how it ended as far as is known now."""

    row: VisitRow
    ending: Ending

    @property
    def sender(self) -> str:
        """Who sent, by which way, from where."""
        where = f" from {self.row.address}" if self.row.address else ""
        title = self.row.calling_ae_title or "unnamed sender"
        return f"{title}, {WAYS[self.row.way]}{where}"

    @property
    def words(self) -> str:
        """How much came, and what went wrong."""
        row = self.row
        said = [f"{row.instances} images, {row.size_bytes / 1e6:.1f} MB"]
        if row.associations > 1:
            said.append(f"{row.associations} associations")
        if row.refused:
            said.append(f"{row.refused} refused, the last with {row.last_error}")
        said.append(_ENDINGS[self.ending])
        return "; ".join(filter(None, said))


def _visits(session: Session, study: StudyRow, now: datetime) -> list[_Visit]:
    """Return the visits; one that a killed receiver has left open is broken off."""
    is_held_open = exists().where(
        OpenAssociationRow.study_id == study.id,
        OpenAssociationRow.alive_at >= now - ASSOCIATION_IS_DEAD_AFTER,
    )
    is_open = session.scalars(select(is_held_open)).one()
    visits = []
    for row in visits_of(session, study.id):
        ending = Ending(row.ended)
        if ending is Ending.OPEN and not is_open:
            ending = Ending.BROKEN
        visits.append(_Visit(row, ending))
    return visits


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


def _lanes(
    session: Session,
    study: StudyRow,
    visits: Sequence[_Visit],
    events: Sequence[StudyEventRow],
    runs: Sequence[AnalysisRunRow],
    *,
    now: datetime,
) -> Iterable[Lane]:
    yield from _arrival_lanes(study, visits)
    yield from _completeness_lanes(session, study, events, now)
    yield from _priors_lane(session, study, now)
    for run in runs:
        name = f"{run.model.name} {run.model.version}"
        yield Lane(group="Analysis", name=name, bars=tuple(_run_bars(run, now)))
    yield from _priority_lane(session, study)
    yield from _delivery_lanes(session, study, now)
    yield from _commitment_lanes(session, study)
    yield from _ending_lane(events)


def _arrival_lanes(study: StudyRow, visits: Sequence[_Visit]) -> Iterable[Lane]:
    by_sender: dict[str, list[Bar]] = defaultdict(list)
    for visit in visits:
        start, end = visit.row.began_at, visit.row.last_at
        bar = Bar(start=start, end=end, tone=_ENDING_TONES[visit.ending], text=visit.words)
        by_sender[visit.sender].append(bar)
    if not visits:  # it came before visits were kept
        at = study.first_instance_at
        bar = Bar(start=at, end=study.last_instance_at, tone=Tone.DONE, text="images")
        by_sender[study.calling_ae_title or "unnamed sender"].append(bar)
    for name, bars in by_sender.items():
        yield Lane(group="Arrival", name=name, bars=tuple(bars))


def _completeness_lanes(
    session: Session, study: StudyRow, events: Sequence[StudyEventRow], now: datetime
) -> Iterable[Lane]:
    bars = []
    began: datetime | None = None
    for event in events:
        if event.kind in ("received", "reopened"):
            began = began or event.at
        elif event.kind == "complete" and began is not None:
            wait = Bar(start=began, end=event.at, tone=Tone.WAIT, text=event.text, is_idle=True)
            bars.append(wait)
            began = None
    if began is not None:
        said = "images may still come"
        bars.append(Bar(start=began, end=now, tone=Tone.GOING_ON, text=said, is_idle=True))
    if bars:
        yield Lane(group="Arrival", name="until complete", bars=tuple(bars))
    marks = [
        Bar(
            start=row.updated_at,
            end=row.updated_at,
            tone=Tone.DONE,
            text=f"{row.source}: {row.state}",
        )
        for row in session.scalars(
            select(ArrivalSignalRow)
            .where(ArrivalSignalRow.study_instance_uid == study.study_instance_uid)
            .order_by(ArrivalSignalRow.id)
        )
    ]
    count = session.get(ArchiveCountRow, study.id)
    if count is not None and count.answered_at is not None:
        text = f"the archive counts {count.instances} images"
        at = count.answered_at
        marks.append(Bar(start=at, end=at, tone=Tone.DONE, text=text))
    if marks:
        yield Lane(group="Arrival", name="announced", bars=tuple(marks))


def _priors_lane(session: Session, study: StudyRow, now: datetime) -> Iterable[Lane]:
    search = session.get(PriorSearchRow, study.id)
    if search is None:
        return
    end = search.finished_at
    tone = Tone.DONE if end else Tone.GOING_ON
    bar = Bar(start=search.created_at, end=end or now, tone=tone, text=search.said or "searched")
    yield Lane(group="Arrival", name=f"priors from {search.remote}", bars=(bar,))


def _run_bars(run: AnalysisRunRow, now: datetime) -> Iterable[Bar]:
    over = run.finished_at or now
    begun = run.started_at or over
    waited = duration((begun - run.created_at).total_seconds())
    wait = f"waited {waited} for a worker" if run.started_at else f"waiting for {waited}"
    if begun > run.created_at or run.state is RunState.PENDING:
        yield Bar(start=run.created_at, end=begun, tone=Tone.WAIT, text=wait, is_idle=True)
    at = begun
    for key, words in _STEPS.items():
        seconds = run.timings_s.get(key)
        if not isinstance(seconds, int | float) or run.started_at is None:
            continue
        end = min(at + timedelta(seconds=seconds), max(over, at))
        yield Bar(start=at, end=end, tone=Tone(key), text=f"{words}: {duration(seconds)}")
        at = end
    if run.started_at is not None and run.state is not RunState.COMPLETED:
        tone = Tone(_RUN_TONES.get(run.state, "refused"))
        took = duration((over - at).total_seconds())
        text = f"{run.state.value}{f': {run.reason}' if run.reason else ''} ({took})"
        yield Bar(start=at, end=max(over, at), tone=tone, text=without_series_uids(text))
    elif run.state is RunState.CANCELLED:
        yield Bar(start=over, end=over, tone=Tone.REFUSED, text=run.reason)


def _priority_lane(session: Session, study: StudyRow) -> Iterable[Lane]:
    rows = session.scalars(
        select(PriorityEventRow)
        .where(PriorityEventRow.study_id == study.id)
        .order_by(PriorityEventRow.id)
    )
    bars = tuple(
        Bar(
            start=row.at,
            end=row.at,
            tone=Tone.DONE,
            text=f"{row.before.label} to {row.after.label}: {row.reason}",
        )
        for row in rows
        if row.before is not row.after
    )
    if bars:
        yield Lane(group="Reading", name="priority", bars=bars)


def _delivery_lanes(session: Session, study: StudyRow, now: datetime) -> Iterable[Lane]:
    rows = session.scalars(
        select(DeliveryRow)
        .where(DeliveryRow.study_id == study.id)
        .options(joinedload(DeliveryRow.result_object), joinedload(DeliveryRow.run))
        .order_by(DeliveryRow.destination, DeliveryRow.id)
    ).unique()
    lanes: dict[str, list[Bar]] = defaultdict(list)
    for row in rows:
        end = row.delivered_at or (now if row.state in _WAITING else row.next_attempt_at)
        start = min(_queued_at(row) or end, end)
        tried = f", {row.attempts} attempts" if row.attempts > 1 else ""
        error = f": {row.last_error}" if row.last_error and row.delivered_at is None else ""
        text = f"{label_of(row)} {row.state.value}{tried}{error}"
        tone = Tone(_DELIVERY_TONES[row.state])
        # A destination that is away for a day is tried now and then.
        is_idle = row.delivered_at is None or row.attempts > 1
        bar = Bar(start=start, end=end, tone=tone, text=text, is_idle=is_idle)
        lanes[row.destination].append(bar)
    for name, bars in lanes.items():
        yield Lane(group="Delivery", name=f"to {name}", bars=tuple(bars))


_WAITING = (DeliveryState.WAITING, DeliveryState.SENDING)


def _queued_at(row: DeliveryRow) -> datetime | None:
    if row.result_object is not None:
        return row.result_object.created_at
    return row.run.finished_at if row.run is not None else None


def _commitment_lanes(session: Session, study: StudyRow) -> Iterable[Lane]:
    rows = session.execute(
        select(
            CommitmentRow.archive,
            CommitmentRow.state,
            func.count(),
            func.max(CommitmentRow.committed_at),
        )
        .where(CommitmentRow.study_id == study.id)
        .group_by(CommitmentRow.archive, CommitmentRow.state)
        .order_by(CommitmentRow.archive)
    )
    lanes: dict[str, list[Bar]] = defaultdict(list)
    for archive, state, count, at in rows:
        if state is CommitmentState.COMMITTED and at is not None:
            bar = Bar(
                start=at, end=at, tone=Tone.DONE, text=f"storage of {count} objects committed"
            )
            lanes[archive].append(bar)
    for archive, bars in lanes.items():
        yield Lane(group="Delivery", name=f"commitment of {archive}", bars=tuple(bars))


def _ending_lane(events: Sequence[StudyEventRow]) -> Iterable[Lane]:
    tones = {"withdrawn": Tone.REFUSED, "purged": Tone.REFUSED, "forgotten": Tone.REFUSED}
    bars = tuple(
        Bar(start=e.at, end=e.at, tone=tones.get(e.kind, Tone.DONE), text=f"{e.kind}: {e.text}")
        for e in events
        if e.kind in ("read", "unread", "feedback", *tones)
    )
    if bars:
        yield Lane(group="Reading", name="read, withdrawn, deleted", bars=bars)


def _table(
    session: Session,
    study: StudyRow,
    visits: Sequence[_Visit],
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
        for key, words in _STEPS.items()
        if isinstance(seconds := run.timings_s.get(key), int | float)
    ]
    waited = duration(((run.started_at or run.created_at) - run.created_at).total_seconds())
    said = [f"waited {waited}", *steps, f"on {run.claimed_by}" if run.claimed_by else ""]
    if run.attempts > 1:
        said.append(f"attempt {run.attempts}")
    return f"{run.state.value}; " + ", ".join(filter(None, said))
