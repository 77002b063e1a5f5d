"""Rules about live models: measured, and kept as alerts from when they are broken until mended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from triage.core.proportions import wilson_interval
from triage.core.runs import RunState
from triage.core.stages import RUNNING_STAGES
from triage.settings import WatchRuleSettings, WatchSettings
from triage.store.alerts import Alert, alert_of
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.feedback import agreement_by_finding
from triage.store.leases import take_lease
from triage.store.model_tables import ModelAlertRow, ModelRow
from triage.store.tables import AnalysisRunRow
from triage.store.watch import (
    Scores,
    Window,
    count_outcomes,
    sampled_runs,
    scores_over_time,
    seconds_of,
)
from triage.store.watch_drift import drift_of, reference_scores, reference_window

_APART_LEVEL = 0.99
_TIMED_RUNS = 1000
_LEASE_NAME = "watch"


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a rule comes to for a model. `is_broken` is None where too little is known to say."""

    model_id: int
    rule: str
    is_broken: bool | None
    text: str


def watch_round(
    database: Database, settings: WatchSettings, clock: Clock, *, holder: str
) -> list[Alert]:
    """Look at all rules, unless another worker does; return the alerts that were raised or cleared.

    All is read before anything is written: a writer on SQLite keeps every other one waiting.
    """
    lease = timedelta(seconds=3 * settings.interval_s)
    with database.transaction() as session:
        if not take_lease(session, _LEASE_NAME, holder, lease=lease, now=clock()):
            return []
    with database.reading() as session:
        measured = measure_rules(session, settings, clock())
    with database.transaction() as session:
        return record_alerts(session, measured, clock())


def measure_rules(session: Session, settings: WatchSettings, now: datetime) -> list[Measurement]:
    """Measure every rule for every model version that runs."""
    models = session.scalars(select(ModelRow).where(ModelRow.stage.in_(RUNNING_STAGES))).all()
    return [
        measurement
        for model in models
        for rule in settings.all_rules
        if not rule.models or model.name in rule.models
        for measurement in _Look(session, model, rule, settings, now).measure()
    ]


def record_alerts(session: Session, measured: Sequence[Measurement], now: datetime) -> list[Alert]:
    """Raise and clear alerts by what was measured, and return those that changed.

    An alert stays while too little is known, and goes when its rule or its model no longer is.
    """
    rows = session.scalars(select(ModelAlertRow).where(ModelAlertRow.cleared_at.is_(None))).all()
    is_open = {(row.model_id, row.rule): row for row in rows}
    known = {(one.model_id, one.rule) for one in measured}
    changed = [row for key, row in is_open.items() if key not in known]
    for one in measured:
        row = is_open.get((one.model_id, one.rule))
        if one.is_broken and row is None:
            raised = ModelAlertRow(
                model_id=one.model_id, rule=one.rule, text=one.text, raised_at=now
            )
            session.add(raised)
            changed.append(raised)
        elif one.is_broken is False and row is not None:
            changed.append(row)
    for row in changed:
        if row in rows:
            row.cleared_at = now
    session.flush()
    return [alert_of(row, session.get_one(ModelRow, row.model_id)) for row in changed]


@dataclass(frozen=True, slots=True)
class _Look:
    """One rule's look at one model version."""

    session: Session
    model: ModelRow
    rule: WatchRuleSettings
    settings: WatchSettings
    now: datetime

    def measure(self) -> Iterable[Measurement]:
        """Measure the rule: once, or for each finding."""
        measures: Mapping[str, Callable[[], Iterable[Measurement]]] = {
            "silence-h": self._silence,
            "failure-rate": self._failure_rate,
            "refusal-rate": self._refusal_rate,
            "positive-rate": self._positive_rates,
            "drift": self._drift,
            "median-time-s": self._median_time,
            "median-wait-s": self._median_wait,
            "ppv": self._predictive_values,
        }
        return measures[self.rule.metric]()

    @property
    def _window(self) -> Window:
        since = self.now - timedelta(hours=self.rule.window_h)
        return Window(self.model.id, since, self.now, self.model.stage)

    def _silence(self) -> Iterable[Measurement]:
        last = self.session.scalar(
            select(func.max(AnalysisRunRow.finished_at)).where(
                AnalysisRunRow.model_id == self.model.id,
                AnalysisRunRow.state == RunState.COMPLETED,
            )
        )
        after = max(last or self._window.since, self._window.since)
        of_model = AnalysisRunRow.model_id == self.model.id
        # A run that is to wait for priors, or for its next attempt, could not have a result yet.
        began = func.min(AnalysisRunRow.available_at)
        unanswered, first = self.session.execute(
            select(func.count(), began).where(
                # Each part is a range of the index; a condition on `created_at` alone is none.
                or_(
                    and_(of_model, AnalysisRunRow.finished_at.is_(None)),
                    and_(of_model, AnalysisRunRow.finished_at >= after),
                ),
                AnalysisRunRow.state.in_((RunState.PENDING, RunState.RUNNING, RunState.FAILED)),
                AnalysisRunRow.created_at >= after,
            )
        ).one()
        hours = (self.now - first).total_seconds() / 3600 if first else 0.0
        said = f"no result for {hours:.1f} h while {unanswered} studies came that it accepts"
        if unanswered < self.rule.minimum_count:
            # It is not unknown: nobody waits for a result.
            return [self._said(is_broken=False, text=said)]
        return [self._compared(hours, said)]

    def _failure_rate(self) -> Iterable[Measurement]:
        counts = count_outcomes(self.session, self._window)
        return [self._share(counts.failed, counts.total, "failed")]

    def _refusal_rate(self) -> Iterable[Measurement]:
        counts = count_outcomes(self.session, self._window)
        return [self._share(counts.refused, counts.total, "refused")]

    def _positive_rates(self) -> Iterable[Measurement]:
        scores = _totals(self.session, self._window)
        reference: dict[str, Scores] = {}
        if self.rule.comparison == "outside-reference":
            window = reference_window(self.session, self.model, self.settings)
            if window is None or window.until > self._window.since:
                return [self._said(key, None, "no reference yet") for key in self._wanted(scores)]
            reference = reference_scores(self.session, window)
        return [
            self._positive_rate(key, scores[key], reference.get(key))
            for key in self._wanted(scores)
        ]

    def _positive_rate(self, key: str, now: Scores, before: Scores | None) -> Measurement:
        if before is None:
            return self._share(now.positives, now.runs, f"positive for {key}", key)
        said = (
            f"{_percent(now.positives, now.runs)} positive for {key} over {self._hours}, "
            f"{_percent(before.positives, before.runs)} in the reference"
        )
        here = wilson_interval(now.positives, now.runs, _APART_LEVEL)
        there = wilson_interval(before.positives, before.runs, _APART_LEVEL)
        if here is None or there is None or now.runs < self.rule.minimum_count:
            return self._said(key, None, said)
        return self._said(key, here.is_apart_from(there), said)

    def _drift(self) -> Iterable[Measurement]:
        window = self._window
        report = drift_of(
            self.session, self.model, self.settings, since=window.since, until=window.until
        )
        if report.reason or report.current_runs < self.rule.minimum_count:
            return [self._said(is_broken=None, text=report.reason)]
        drifts = "; ".join(
            f"{test.subject}: {test.reference}, now {test.current}" for test in report.drifts[:5]
        )
        is_broken = len(report.drifts) > self.rule.threshold
        return [self._said(is_broken=is_broken, text=drifts)]

    def _median_time(self) -> Iterable[Measurement]:
        return [self._median("whole", "from start to finish")]

    def _median_wait(self) -> Iterable[Measurement]:
        return [self._median("wait", "in the queue")]

    def _median(self, step: str, words: str) -> Measurement:
        total = count_outcomes(self.session, self._window).completed
        runs = sampled_runs(self.session, self._window, max(1, total // _TIMED_RUNS))
        values = [run.seconds[step] for run in runs if run.is_completed and step in run.seconds]
        if not values or total < self.rule.minimum_count:
            return self._said(is_broken=None, text=f"{total} runs")
        median = seconds_of(values).median
        return self._compared(median, f"median {median:.1f} s {words} over {self._hours}")

    def _predictive_values(self) -> Iterable[Measurement]:
        agreements = agreement_by_finding(
            self.session, self._window, {}, minimum=self.settings.minimum_judged
        )
        return [
            self._share(
                agreements[key].judged.true_positives,
                agreements[key].judged.flagged,
                f"of the judged positives for {key} right",
                key,
            )
            for key in self._wanted(agreements)
        ]

    def _wanted(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if self.rule.finding in ("", key)]

    def _share(self, part: int, whole: int, words: str, key: str = "") -> Measurement:
        said = f"{_percent(part, whole)} {words} over {self._hours}"
        if whole < self.rule.minimum_count:
            return self._said(key, None, said)
        return self._compared(part / whole, said, key)

    def _compared(self, value: float, said: str, key: str = "") -> Measurement:
        limit = self.rule.threshold
        is_broken = value > limit if self.rule.comparison == "above" else value < limit
        return self._said(key, is_broken, f"{said} (limit {limit:g})")

    def _said(self, key: str = "", is_broken: bool | None = None, text: str = "") -> Measurement:
        rule = f"{self.rule.name}: {key}" if key else self.rule.name
        return Measurement(self.model.id, rule[:64], is_broken, text)

    @property
    def _hours(self) -> str:
        hours = self.rule.window_h
        return f"{hours:g} h" if hours < 72 else f"{hours / 24:g} days"


def _totals(session: Session, window: Window) -> dict[str, Scores]:
    return {
        key: sum(scores.values(), Scores())
        for key, scores in scores_over_time(session, window).items()
    }


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % ({part} of {whole})" if whole else "none of 0"
