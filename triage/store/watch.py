"""What a model version did over time: counts, rates, scores, times and inputs of its runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import quantiles

from sqlalchemy import ColumnElement, case, func, literal_column, select
from sqlalchemy.orm import Session

from triage.core.input_characteristics import CATEGORIES, as_categories, as_numbers
from triage.core.proportions import Interval, wilson_interval
from triage.core.runs import FINAL_STATES, RunState
from triage.core.stages import Stage
from triage.store.buckets import Bucket, bin_of, bucket_of
from triage.store.model_tables import ModelRow
from triage.store.tables import AnalysisRunRow, FindingRow

BINS = 50
"""Bins of the scores' histograms; quantiles over time are exact to half a bin."""
STEPS = ("wait", "decode", "infer", "interpret", "results", "whole")
"""What takes time in a run: the queue, the steps of the analysis, and from start to finish."""

_SAMPLE = 5000
_HOURLY_UP_TO = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Window:
    """The runs of a model version that were over in [since, until), in one stage or in all."""

    model_id: int
    since: datetime
    until: datetime
    stage: Stage | None = None

    def holds(self) -> list[ColumnElement[bool]]:
        """Return the conditions on AnalysisRunRow."""
        conditions = [
            AnalysisRunRow.model_id == self.model_id,
            AnalysisRunRow.finished_at >= self.since,
            AnalysisRunRow.finished_at < self.until,
        ]
        if self.stage is not None:
            conditions.append(AnalysisRunRow.stage == self.stage)
        return conditions

    @property
    def bucket(self) -> Bucket:
        """Hours for up to two days, else days."""
        return Bucket.HOUR if self.until - self.since <= _HOURLY_UP_TO else Bucket.DAY

    def buckets(self) -> list[str]:
        """Return the names of all days or hours in it, those without a run too."""
        step = timedelta(hours=1) if self.bucket is Bucket.HOUR else timedelta(days=1)
        last = self.until - timedelta(microseconds=1)
        moment, names = self.since, []
        while moment < last + step:
            name = f"{moment:%Y-%m-%d %H}"[: self.bucket]
            if name <= f"{last:%Y-%m-%d %H}":
                names.append(name)
            moment += step
        return list(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many runs ended how. Runs that were superseded since count nowhere."""

    completed: int = 0
    refused: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.completed + self.refused + self.failed

    def __add__(self, other: Outcomes) -> Outcomes:
        return Outcomes(
            self.completed + other.completed,
            self.refused + other.refused,
            self.failed + other.failed,
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model said of one finding in a number of runs; `bins` counts scores, BINS of them."""

    runs: int = 0
    positives: int = 0
    bins: tuple[int, ...] = (0,) * BINS

    @property
    def rate(self) -> float | None:
        """The share of positives."""
        return self.positives / self.runs if self.runs else None

    @property
    def rate_interval(self) -> Interval | None:
        """The 95 % Wilson interval of the rate."""
        return wilson_interval(self.positives, self.runs)

    def quantile(self, share: float) -> float | None:
        """Return the score below which a `share` of all lies, read from the histogram."""
        wanted, seen = share * self.runs, 0
        for number, count in enumerate(self.bins):
            if count and seen + count >= wanted:
                return (number + (wanted - seen) / count) / BINS
            seen += count
        return None

    def __add__(self, other: Scores) -> Scores:
        return Scores(
            self.runs + other.runs,
            self.positives + other.positives,
            tuple(a + b for a, b in zip(self.bins, other.bins, strict=True)),
        )


@dataclass(frozen=True, slots=True)
class Seconds:
    """Median and 95th percentile of how long a step took."""

    count: int
    median: float
    p95: float


@dataclass(frozen=True)
class ModelWatch:
    """All series of a window, by day or hour.

    Attributes:
        outcomes: for each bucket with a run.
        scores: for each finding, for each bucket with a completed run.
        seconds: for each of STEPS, for each bucket.
        seconds_in_all: the same over the window.
        numbers: continuous characteristics of the inputs, for each bucket.
        categories: names among the characteristics, for each how many runs had it.
        sampled: of how many runs one was looked at for times and characteristics.
    """

    window: Window
    outcomes: dict[str, Outcomes] = field(default_factory=dict)
    scores: dict[str, dict[str, Scores]] = field(default_factory=dict)
    seconds: dict[str, dict[str, Seconds]] = field(default_factory=dict)
    seconds_in_all: dict[str, Seconds] = field(default_factory=dict)
    numbers: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    categories: dict[str, dict[str, int]] = field(default_factory=dict)
    sampled: int = 1

    @property
    def total(self) -> Outcomes:
        """The outcomes of the whole window."""
        return sum(self.outcomes.values(), Outcomes())

    def total_scores(self, finding: str) -> Scores:
        """Return the scores of a finding over the whole window."""
        return sum(self.scores.get(finding, {}).values(), Scores())


def watch_model(session: Session, window: Window) -> ModelWatch:
    """Return what the model did in the window."""
    outcomes = outcomes_over_time(session, window)
    total = sum(outcomes.values(), Outcomes()).total
    step = max(1, -(-total // _SAMPLE))
    runs = sampled_runs(session, window, step)
    seconds = _seconds_over_time(runs)
    numbers: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    categories: dict[str, dict[str, int]] = {name: defaultdict(int) for name in CATEGORIES}
    for run in runs:
        if run.characteristics:
            for name, value in as_numbers(run.characteristics).items():
                numbers[name][run.bucket].append(value)
            for name, said in as_categories(run.characteristics).items():
                categories[name][said] += 1
    return ModelWatch(
        window=window,
        outcomes=outcomes,
        scores=scores_over_time(session, window),
        seconds=seconds,
        seconds_in_all=_seconds_in_all(runs),
        numbers={name: dict(values) for name, values in numbers.items()},
        categories={name: dict(counts) for name, counts in categories.items()},
        sampled=step,
    )


def outcomes_over_time(session: Session, window: Window) -> dict[str, Outcomes]:
    """Return how many runs ended how, for each day or hour with any."""
    bucket = _bucket(window)
    rows = session.execute(
        select(bucket, *(_count(state) for state in _OUTCOMES))
        .where(*window.holds(), AnalysisRunRow.state.in_(_OUTCOMES))
        .group_by(bucket)
        .order_by(bucket)
    )
    return {name: Outcomes(*counts) for name, *counts in rows}


def count_outcomes(session: Session, window: Window) -> Outcomes:
    """Return how many runs of the window ended how."""
    row = session.execute(
        select(*(_count(state) for state in _OUTCOMES)).where(
            *window.holds(), AnalysisRunRow.state.in_(_OUTCOMES)
        )
    ).one()
    return Outcomes(*(count or 0 for count in row))


_OUTCOMES = (RunState.COMPLETED, RunState.REFUSED, RunState.FAILED)


def _count(state: RunState) -> ColumnElement[int]:
    return func.sum(case((AnalysisRunRow.state == state, 1), else_=0))


def _bucket(window: Window) -> ColumnElement[str]:
    # Not bound: PostgreSQL would take two parameters for two expressions, and refuse to group.
    length: ColumnElement[int] = literal_column(str(int(window.bucket)))
    return bucket_of(AnalysisRunRow.finished_at, length).label("bucket")


def scores_over_time(session: Session, window: Window) -> dict[str, dict[str, Scores]]:
    """Return for each finding the scores of completed runs, for each day or hour with any."""
    bucket = _bucket(window)
    number = bin_of(FindingRow.confidence, literal_column(str(BINS))).label("bin")
    rows = session.execute(
        select(FindingRow.key, bucket, number, FindingRow.present, func.count())
        .select_from(AnalysisRunRow)
        .join(FindingRow, FindingRow.run_id == AnalysisRunRow.id)
        .where(*window.holds(), AnalysisRunRow.state == RunState.COMPLETED)
        .group_by(FindingRow.key, bucket, number, FindingRow.present)
        .order_by(FindingRow.key, bucket)
    )
    found: dict[str, dict[str, Scores]] = defaultdict(dict)
    for key, name, place, present, count in rows:
        bins = tuple(count if n == place else 0 for n in range(BINS))
        added = Scores(count, count if present else 0, bins)
        found[key][name] = found[key].get(name, Scores()) + added
    return dict(found)


@dataclass(frozen=True, slots=True)
class SampledRun:
    """A run that was looked at by itself: when it was over, what took how long, what went in."""

    bucket: str
    is_completed: bool
    seconds: dict[str, float]
    characteristics: dict[str, object]


def sampled_runs(session: Session, window: Window, step: int = 1) -> list[SampledRun]:
    """Return every run of the window, or with a `step` one of so many, evenly."""
    rows = session.execute(
        select(
            AnalysisRunRow.state,
            AnalysisRunRow.created_at,
            AnalysisRunRow.available_at,
            AnalysisRunRow.started_at,
            AnalysisRunRow.finished_at,
            AnalysisRunRow.timings_s,
            AnalysisRunRow.input_characteristics,
        ).where(
            *window.holds(), AnalysisRunRow.state.in_(FINAL_STATES), AnalysisRunRow.id % step == 0
        )
    )
    sampled = []
    for state, created, available, started, finished, timings, characteristics in rows:
        seconds = {
            name: float(value) for name, value in timings.items() if isinstance(value, (int, float))
        }
        if started is not None:
            # From when a worker could have taken it: a wait for priors is no queue.
            seconds["wait"] = max(0.0, (started - max(created, available)).total_seconds())
            seconds["whole"] = (finished - started).total_seconds()
        name = f"{finished:%Y-%m-%d %H}"[: window.bucket]
        is_completed = state is RunState.COMPLETED
        sampled.append(SampledRun(name, is_completed, seconds, dict(characteristics or {})))
    return sampled


def _seconds_over_time(runs: Iterable[SampledRun]) -> dict[str, dict[str, Seconds]]:
    by_bucket: dict[str, list[SampledRun]] = defaultdict(list)
    for run in runs:
        by_bucket[run.bucket].append(run)
    found: dict[str, dict[str, Seconds]] = defaultdict(dict)
    for name in sorted(by_bucket):
        for step, seconds in _seconds_in_all(by_bucket[name]).items():
            found[step][name] = seconds
    return dict(found)


def _seconds_in_all(runs: Iterable[SampledRun]) -> dict[str, Seconds]:
    values: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for step in STEPS:
            if run.is_completed and step in run.seconds:
                values[step].append(run.seconds[step])
    return {step: seconds_of(values[step]) for step in STEPS if values[step]}


def seconds_of(values: Sequence[float]) -> Seconds:
    """Return median and 95th percentile of at least one value."""
    if len(values) == 1:
        return Seconds(1, values[0], values[0])
    cuts = quantiles(values, n=20, method="inclusive")
    return Seconds(len(values), cuts[9], cuts[18])


def watched_model(session: Session, name: str, version: str = "") -> ModelRow | None:
    """Return a version of a model; without one that in production, or else the newest."""
    rows = model_versions(session, name)
    if version:
        return next((row for row in rows if row.version == version), None)
    order = (Stage.PRODUCTION, Stage.CANARY, Stage.SHADOW, Stage.RETIRED)
    return min(rows, key=lambda row: order.index(row.stage), default=None)


def model_versions(session: Session, name: str) -> Sequence[ModelRow]:
    """Return the registered versions of a model, the newest first."""
    return session.scalars(
        select(ModelRow)
        .where(ModelRow.name == name)
        .order_by(ModelRow.registered_at.desc(), ModelRow.id.desc())
    ).all()
