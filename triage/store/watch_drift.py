"""The reference window of a model version, and how the newest runs differ from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from triage.core.drift import DriftTest, Sample, compare_samples
from triage.core.input_characteristics import as_categories, as_numbers
from triage.core.runs import RunState
from triage.settings import WatchSettings
from triage.store.model_tables import ModelEventRow, ModelRow
from triage.store.tables import AnalysisRunRow, FindingRow
from triage.store.watch import Scores, Window, scores_over_time


@dataclass(frozen=True)
class DriftReport:
    """The comparison of now with the reference, or in `reason` why there is none yet.

    Attributes:
        level: the false discovery rate at which a test is a drift.
        reference: the runs that all is compared with; None while they are too few.
        reference_scores: for each finding, what was said in them.
    """

    level: float
    reference: Window | None = None
    reference_runs: int = 0
    current_runs: int = 0
    reference_scores: dict[str, Scores] | None = None
    tests: tuple[DriftTest, ...] = ()
    reason: str = ""

    @property
    def drifts(self) -> tuple[DriftTest, ...]:
        """The tests that are significant."""
        return tuple(test for test in self.tests if test.is_significant(self.level))


@dataclass(frozen=True, slots=True)
class _Run:
    id: int
    finished_at: datetime
    characteristics: dict[str, object]


def drift_of(
    session: Session, model: ModelRow, settings: WatchSettings, *, since: datetime, until: datetime
) -> DriftReport:
    """Compare the newest runs of [since, until) with the first ones in the model's present stage.

    The reference are the first `settings.reference_runs` completed runs since the version came
    into its stage. The newest runs, as many at most, must all be later.
    """
    first = _reference_runs(session, model, settings)
    if len(first) < settings.minimum_runs:
        reason = (
            f"{len(first)} runs in {model.stage} so far; the reference needs "
            f"{settings.minimum_runs}"
        )
        return DriftReport(settings.drift_level, reason=reason)
    reference = _window_of(model, first)
    newest = _runs(
        session,
        model,
        settings.reference_runs,
        AnalysisRunRow.finished_at >= max(reference.until, since),
        AnalysisRunRow.finished_at < until,
        newest_first=True,
    )
    report = DriftReport(
        level=settings.drift_level,
        reference=reference,
        reference_runs=len(first),
        current_runs=len(newest),
        reference_scores=reference_scores(session, reference),
    )
    if len(newest) < settings.minimum_runs:
        reason = f"{len(newest)} runs since the reference; {settings.minimum_runs} are needed"
        return replace(report, reason=reason)
    samples = (_sample(session, first), _sample(session, newest))
    return replace(report, tests=compare_samples(*samples, minimum=settings.minimum_runs))


def reference_window(session: Session, model: ModelRow, settings: WatchSettings) -> Window | None:
    """Return the window of the reference's runs, or None while they are too few."""
    first = _reference_runs(session, model, settings)
    return _window_of(model, first) if len(first) >= settings.minimum_runs else None


def _reference_runs(session: Session, model: ModelRow, settings: WatchSettings) -> list[_Run]:
    began = entered_stage_at(session, model)
    return _runs(session, model, settings.reference_runs, AnalysisRunRow.finished_at >= began)


def _window_of(model: ModelRow, runs: Sequence[_Run]) -> Window:
    until = runs[-1].finished_at + timedelta(microseconds=1)
    return Window(model.id, runs[0].finished_at, until, model.stage)


def reference_scores(session: Session, reference: Window) -> dict[str, Scores]:
    """Return for each finding what was said in the reference window."""
    return {
        key: sum(scores.values(), Scores())
        for key, scores in scores_over_time(session, reference).items()
    }


def entered_stage_at(session: Session, model: ModelRow) -> datetime:
    """Return when the version came into its present stage, or was registered."""
    at = session.scalar(
        select(func.max(ModelEventRow.at)).where(
            ModelEventRow.model_id == model.id, ModelEventRow.to_stage == model.stage.value
        )
    )
    return at or model.registered_at


def _runs(
    session: Session,
    model: ModelRow,
    most: int,
    *conditions: ColumnElement[bool],
    newest_first: bool = False,
) -> list[_Run]:
    order = AnalysisRunRow.finished_at
    rows = session.execute(
        select(AnalysisRunRow.id, AnalysisRunRow.finished_at, AnalysisRunRow.input_characteristics)
        .where(
            AnalysisRunRow.model_id == model.id,
            AnalysisRunRow.stage == model.stage,
            AnalysisRunRow.state == RunState.COMPLETED,
            *conditions,
        )
        .order_by(order.desc() if newest_first else order)
        .limit(most)
    )
    return [_Run(run_id, at, dict(said or {})) for run_id, at, said in rows if at is not None]


def _sample(session: Session, runs: Sequence[_Run]) -> Sample:
    numbers: dict[str, list[float]] = defaultdict(list)
    categories: dict[str, list[str]] = defaultdict(list)
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for run in runs:
        if not run.characteristics:
            continue  # from before they were recorded
        for name, value in as_numbers(run.characteristics).items():
            numbers[name].append(value)
        for name, said in as_categories(run.characteristics).items():
            categories[name].append(said)
    said_of = select(FindingRow.key, FindingRow.confidence, FindingRow.present).where(
        FindingRow.run_id.in_([run.id for run in runs])
    )
    for key, confidence, present in session.execute(said_of):
        numbers[f"{key}: score"].append(confidence)
        outcomes[f"{key}: positive rate"].append(present)
    return Sample(numbers, categories, outcomes)
