"""The circuit breaker: a model that fails study after study is parked, and tried again later.

A parked model's runs stay in the queue, and nobody waits for them: the study's status says at once
that the model is unavailable. After the pause one run is tried; if the model answers, it is
unparked and its runs go on. A run that has waited for a day is given up, because retention keeps
the images that a run waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session, aliased

from triage.core.runs import RunState, check_transition
from triage.store.history import note
from triage.store.model_events import record_event
from triage.store.model_tables import ModelRow
from triage.store.tables import AnalysisRunRow

_WHO = "triage"
_LONGEST_WAIT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Breaker:
    """After how many studies that failed in a row a model is parked, and for how long."""

    failures: int
    pause: timedelta


@dataclass(frozen=True, slots=True)
class FailedStudy:
    """The run that failed, as the breaker counts it."""

    run_id: int
    study_id: int
    model_id: int
    attempt: int


def model_failed(
    session: Session, failed: FailedStudy, reason: str, *, breaker: Breaker, now: datetime
) -> bool:
    """Count a failure of the model; park it where it was one too many, and return whether it is.

    Each study counts once, because one bad study says little of a model. The failure of a parked
    model parks it for another pause.
    """
    model = _locked(session, failed.model_id)
    if not _failed_before(session, failed):
        model.failures_in_a_row += 1
    was_parked = model.parked_until is not None
    if not was_parked and model.failures_in_a_row < breaker.failures:
        return False
    model.parked_until = now + breaker.pause
    model.parked_reason = reason
    _give_up_old_runs(session, model, now)
    if not was_parked:
        said = f"{model.failures_in_a_row} studies failed in a row, the last one: {reason}"
        record_event(session, model, "parked", who=_WHO, at=now, reason=said)
    return True


def model_answered(session: Session, model_id: int, *, now: datetime) -> None:
    """Forget the failures of a model that gave findings; it is unparked if it was parked."""
    troubled = or_(ModelRow.failures_in_a_row > 0, ModelRow.parked_until.is_not(None))
    found = session.scalars(
        select(ModelRow).where(ModelRow.id == model_id, troubled).with_for_update(of=ModelRow)
    ).first()
    if found is not None:
        _close(session, found, "the model answered", who=_WHO, now=now)


def unpark(session: Session, model: ModelRow, *, who: str, reason: str, now: datetime) -> None:
    """Let the runs of a parked model go on at once, because a person says so."""
    _close(session, model, reason, who=who, now=now)


def parked_models(session: Session) -> Sequence[ModelRow]:
    """Return the models that are parked, those that are being tried again included."""
    return session.scalars(
        select(ModelRow)
        .where(ModelRow.parked_until.is_not(None))
        .order_by(ModelRow.name, ModelRow.version)
    ).all()


def is_available(now: datetime) -> ColumnElement[bool]:
    """Return the condition that the run's model is not parked, or is to be tried again.

    Of a parked model one run is tried at a time.
    """
    tried = aliased(AnalysisRunRow)
    is_tried = (
        select(tried.id)
        .where(tried.model_id == ModelRow.id, tried.state == RunState.RUNNING)
        .exists()
    )
    closed = ModelRow.parked_until.is_(None)
    return or_(closed, and_(ModelRow.parked_until <= now, ~is_tried))


def may_be_claimed(session: Session, model_id: int, now: datetime) -> bool:
    """Return whether the model is still available, with its row locked if it is parked.

    Two workers may both have found that nobody tries the model.
    """
    model = session.scalars(
        select(ModelRow)
        .where(ModelRow.id == model_id, ModelRow.parked_until.is_not(None))
        .with_for_update(of=ModelRow)
    ).first()
    if model is None:
        return True
    available = select(ModelRow.id).where(ModelRow.id == model_id, is_available(now))
    return session.scalars(available).first() is not None


def _locked(session: Session, model_id: int) -> ModelRow:
    return session.scalars(
        select(ModelRow)
        .where(ModelRow.id == model_id)
        .with_for_update(of=ModelRow)
        .execution_options(populate_existing=True)
    ).one()


def _failed_before(session: Session, failed: FailedStudy) -> bool:
    if failed.attempt > 1:
        return True
    earlier = select(AnalysisRunRow.id).where(
        AnalysisRunRow.study_id == failed.study_id,
        AnalysisRunRow.model_id == failed.model_id,
        AnalysisRunRow.id != failed.run_id,
        AnalysisRunRow.attempts > 0,
        AnalysisRunRow.reason != "",
        AnalysisRunRow.state != RunState.REFUSED,
    )
    return session.scalars(earlier.limit(1)).first() is not None


def _give_up_old_runs(session: Session, model: ModelRow, now: datetime) -> None:
    waited = session.scalars(
        select(AnalysisRunRow)
        .where(
            AnalysisRunRow.model_id == model.id,
            AnalysisRunRow.state == RunState.PENDING,
            AnalysisRunRow.created_at < now - _LONGEST_WAIT,
        )
        .with_for_update(skip_locked=True, of=AnalysisRunRow)
    ).all()
    for run in waited:
        check_transition(run.id, run.state, RunState.FAILED)
        run.state = RunState.FAILED
        run.reason = f"model unavailable, because {model.parked_reason}"
        run.finished_at = now
        text = f"{model.name} {model.version}: {run.reason}"
        note(session, run.study_id, "failed", text, at=now, run_id=run.id)


def _close(session: Session, model: ModelRow, reason: str, *, who: str, now: datetime) -> None:
    if model.parked_until is not None:
        record_event(session, model, "unparked", who=who, at=now, reason=reason)
    model.failures_in_a_row = 0
    model.parked_until = None
    model.parked_reason = ""
