"""A study's life as bars on lines: arrival, analysis, reading, delivery."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from triage.core.commitment import CommitmentState
from triage.core.runs import DeliveryState, RunState
from triage.core.visits import Ending
from triage.store.outbox import failed_attempts, label_of
from triage.store.tables import (
    AnalysisRunRow,
    ArchiveCountRow,
    ArrivalSignalRow,
    CommitmentRow,
    DeliveryRow,
    PriorityEventRow,
    PriorSearchRow,
    StudyEventRow,
    StudyRow,
)
from triage.worklist.visits import SeenVisit
from triage.worklist.wording import duration, without_series_uids

STEPS = {
    "decode": "decoding the images",
    "infer": "the model",
    "interpret": "reading its output as findings",
    "results": "building the result objects",
}
"""The timed steps of a run in their order, in words."""
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
_WAITING = (DeliveryState.WAITING, DeliveryState.SENDING)


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


def lanes_of(
    session: Session,
    study: StudyRow,
    visits: Sequence[SeenVisit],
    events: Sequence[StudyEventRow],
    runs: Sequence[AnalysisRunRow],
    *,
    now: datetime,
) -> Iterable[Lane]:
    """Give the lines of the picture, in the order in which a study passes them."""
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


def _arrival_lanes(study: StudyRow, visits: Sequence[SeenVisit]) -> Iterable[Lane]:
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
    for key, words in STEPS.items():
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
    for one in failed_attempts(session, study.id):
        text = f"{one.label}, attempt {one.number}: {one.answer}"
        lanes[one.destination].append(Bar(start=one.at, end=one.at, tone=Tone.FAILED, text=text))
    for name, bars in lanes.items():
        yield Lane(group="Delivery", name=f"to {name}", bars=tuple(bars))


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
