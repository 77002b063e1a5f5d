"""What the reading room saw, as counts and times: what a simulation of it begins with.

Nothing of a patient is read or given out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.dicom_json import items_of, values_of
from triage.core.manifest import ModelManifest
from triage.core.priority import Priority
from triage.core.runs import RunState
from triage.core.stages import COUNTING_STAGES
from triage.core.workitem_attributes import PERFORMED
from triage.core.workitems import StepState
from triage.simulation.history import FindingHistory, ModelHistory, ReadingHistory
from triage.simulation.scenario import HOURS
from triage.store.feedback import agreement_by_finding
from triage.store.model_tables import ModelRow
from triage.store.tables import AnalysisRunRow, StudyRow
from triage.store.watch import Scores, Window, count_outcomes, scores_over_time
from triage.store.workitem_tables import WorkitemRow

_LONGEST_READING = timedelta(hours=1)
_MOST_ROWS = 200_000
_STARTED, _ENDED = "00404050", "00404051"  # Performed Procedure Step Start and End DateTime
_DT = "%Y%m%d%H%M%S"


def reading_history(
    session: Session, days: int, *, minimum_judged: int, now: datetime
) -> ReadingHistory:
    """Return what came and was read in the last `days` days, or since the first study."""
    since = now - timedelta(days=days)
    rows = session.execute(
        select(StudyRow.first_instance_at, StudyRow.read_at, StudyRow.order_priority)
        .where(StudyRow.first_instance_at >= since, StudyRow.is_prior.is_(False))
        .order_by(StudyRow.first_instance_at)
        .limit(_MOST_ROWS)
    ).all()
    begins = min((came for came, _, _ in rows), default=now)
    return ReadingHistory(
        days=max((now - begins) / timedelta(days=1), 1.0),
        arrivals=_by_hour([came for came, _, _ in rows]),
        orders=dict(Counter(Priority(priority) for _, _, priority in rows)),
        claims_min=_claims(session, since),
        gaps_min=_gaps([(came, read) for came, read, _ in rows if read is not None]),
        models=tuple(
            one
            for row in _models(session)
            if (one := _model(session, row, since, now, minimum_judged)) is not None
        ),
    )


def _by_hour(moments: Sequence[datetime]) -> tuple[int, ...]:
    counts = Counter(moment.astimezone().hour for moment in moments)
    return tuple(counts[hour] for hour in range(HOURS))


def _claims(session: Session, since: datetime) -> tuple[float, ...]:
    """Return how long workitems of studies were performed, by those who performed them."""
    rows = session.scalars(
        select(WorkitemRow.attributes)
        .where(
            WorkitemRow.state == StepState.COMPLETED,
            WorkitemRow.study_id.is_not(None),
            WorkitemRow.finished_at >= since,
        )
        .limit(_MOST_ROWS)
    )
    times = []
    for attributes in rows:
        for item in items_of(attributes, PERFORMED)[:1]:
            started, ended = _moment(item, _STARTED), _moment(item, _ENDED)
            if started and ended and timedelta(0) < ended - started <= _LONGEST_READING:
                times.append((ended - started) / timedelta(minutes=1))
    return tuple(times)


def _moment(item: object, tag: str) -> datetime | None:
    """Return a DT (DICOM PS3.5 6.2) to the second; the difference of two needs no time zone."""
    text = str(next(iter(values_of(item, tag)), ""))[:14]  # type: ignore[arg-type]
    try:
        return datetime.strptime(text, _DT)  # noqa: DTZ007
    except ValueError:
        return None


def _gaps(read: Sequence[tuple[datetime, datetime]]) -> tuple[float, ...]:
    """Return the times between readings one after the other, in minutes.

    A gap counts where the second study lay there when the first was done, and is no break.
    """
    in_order = sorted((read_at, came) for came, read_at in read)
    gaps = []
    for (before, _), (after, came) in pairwise(in_order):
        if came <= before and timedelta(0) < after - before <= _LONGEST_READING:
            gaps.append((after - before) / timedelta(minutes=1))
    return tuple(gaps)


def _models(session: Session) -> Sequence[ModelRow]:
    return session.scalars(
        select(ModelRow).where(ModelRow.stage.in_(COUNTING_STAGES)).order_by(ModelRow.id)
    ).all()


def _model(
    session: Session, row: ModelRow, since: datetime, now: datetime, minimum_judged: int
) -> ModelHistory | None:
    window = Window(row.id, since, now)
    outcomes = count_outcomes(session, window)
    if not outcomes.completed:
        return None
    scores = {
        key: sum(buckets.values(), Scores())
        for key, buckets in scores_over_time(session, window).items()
    }
    agreement = agreement_by_finding(session, window, scores, minimum=minimum_judged)
    asked = {one.key: one.priority for one in ModelManifest.model_validate(row.manifest).findings}
    return ModelHistory(
        name=f"{row.name} {row.version}",
        studies=outcomes.total,
        answered=outcomes.completed,
        turnaround_min=_turnaround(session, window),
        findings=tuple(
            FindingHistory(
                key=key,
                raises_to=asked.get(key, Priority.ROUTINE),
                flagged=one.positives,
                not_flagged=one.runs - one.positives,
                agreement=agreement.get(key),
            )
            for key, one in scores.items()
        ),
    )


def _turnaround(session: Session, window: Window) -> float:
    """Return the mean time from a study's first image to the end of its run, in minutes."""
    rows = session.execute(
        select(AnalysisRunRow.finished_at, StudyRow.first_instance_at)
        .join(StudyRow, StudyRow.id == AnalysisRunRow.study_id)
        .where(*window.holds(), AnalysisRunRow.state == RunState.COMPLETED)
        .limit(_MOST_ROWS)
    )
    # A run long after its study is a late image or a model put to work afterwards, not triage.
    times = [
        (finished - came) / timedelta(minutes=1)
        for finished, came in rows
        if finished is not None and timedelta(0) <= finished - came <= timedelta(days=1)
    ]
    return sum(times) / len(times) if times else 0.0
