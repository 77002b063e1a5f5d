"""How a model does in daily use: the block of its page, and a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from triage.core.agreement import Agreement, Judged
from triage.core.input_characteristics import NUMBERS
from triage.core.permissions import Permission
from triage.core.proportions import wilson_interval
from triage.core.stages import Stage
from triage.settings import WatchSettings
from triage.store.alerts import Alert, alerts_since
from triage.store.feedback import agreement_by_finding, agreement_by_week
from triage.store.model_tables import ModelRow
from triage.store.watch import (
    BINS,
    ModelWatch,
    Scores,
    Window,
    model_versions,
    watch_model,
    watched_model,
)
from triage.store.watch_drift import DriftReport, drift_of
from triage.web.access import may
from triage.web.charts import Band, Bars, Chart, Line, chart, labels_of
from triage.web.context import Context
from triage.web.rendering import templates

router = APIRouter(include_in_schema=False, dependencies=[Depends(may(Permission.SEE_MODELS))])
ModelName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)]

_MOST_NAMES = 6


class Shown(BaseModel):
    """What of a model is to be shown; without a version that in production, or else the newest."""

    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z.+-]*$", max_length=32)] = ""
    days: Annotated[int, Field(ge=1, le=366)] = 30
    stage: Stage | None = None


@dataclass(frozen=True)
class ModelWatchBlock:
    """All that `_model_watch.html` shows of a model version over some days.

    Attributes:
        charts: for each heading its plots.
        inputs: for each characteristic that is a name how many runs had which, the most first.
    """

    model: ModelRow
    versions: Sequence[ModelRow]
    days: int
    watch: ModelWatch
    drift: DriftReport
    agreement: dict[str, Agreement]
    alerts: tuple[Alert, ...]
    charts: dict[str, list[Chart]]
    inputs: dict[str, list[tuple[str, int]]]


@router.get("/models/{name}/watch")
def model_watch(
    request: Request, name: ModelName, context: Context, shown: Annotated[Shown, Query()]
) -> Response:
    """Show what a model did in the last days."""
    with context.database.reading() as session:
        model = watched_model(session, name, shown.version)
        if model is None:
            raise HTTPException(404, "No such model is registered.")
        block = model_watch_block(
            session,
            model,
            context.settings.watch,
            shown.days,
            context.now(),
            stage=shown.stage,
        )
    return templates.TemplateResponse(
        request, "model_watch.html", {"block": block, "now": context.now()}
    )


def model_watch_block(
    session: Session,
    model: ModelRow,
    settings: WatchSettings,
    days: int,
    now: datetime,
    *,
    stage: Stage | None = None,
) -> ModelWatchBlock:
    """Return what the block shows of the last `days` days, of one stage or of all."""
    window = Window(model.id, now - timedelta(days=days), now, stage)
    watch = watch_model(session, window)
    drift = drift_of(session, model, settings, since=window.since, until=window.until)
    totals = {key: watch.total_scores(key) for key in watch.scores}
    by_week = agreement_by_week(session, window)
    return ModelWatchBlock(
        model=model,
        versions=model_versions(session, model.name),
        days=days,
        watch=watch,
        drift=drift,
        agreement=agreement_by_finding(session, window, totals, minimum=settings.minimum_judged),
        alerts=alerts_since(session, model, window.since),
        charts=_charts(watch, drift, by_week),
        inputs={
            name: sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:_MOST_NAMES]
            for name, counts in watch.categories.items()
            if counts.keys() - {"not stated"}
        },
    )


def _charts(
    watch: ModelWatch, drift: DriftReport, by_week: dict[str, dict[str, Judged]]
) -> dict[str, list[Chart]]:
    plot = _Plots(watch)
    reference = drift.reference_scores or {}
    sections = {"Runs": [plot.volumes(), plot.problems(), plot.times(), plot.waits()]}
    for key in watch.scores:
        sections[f"Finding: {key}"] = [
            plot.positive_rate(key, reference.get(key)),
            plot.score_quantiles(key),
            plot.score_histogram(key, reference.get(key)),
            *([_agreement_chart(key, by_week[key])] if by_week.get(key) else []),
        ]
    sections["Inputs"] = [plot.characteristic(name) for name in NUMBERS if plot.varies(name)]
    return {title: charts for title, charts in sections.items() if charts}


class _Plots:
    """The plots over the days or hours of a watch."""

    def __init__(self, watch: ModelWatch) -> None:
        self._watch = watch
        self._names = watch.window.buckets()
        self._each = "hour" if watch.window.bucket == len("2026-11-28 18") else "day"
        self._x = {
            "places": len(self._names),
            "x_labels": labels_of(self._names),
            "x_title": f"{self._each} (UTC)",
        }

    def _plot(self, title: str, layers: Sequence[Bars | Line | Band], **said: object) -> Chart:
        return chart(title, layers, **self._x, **said)  # type: ignore[arg-type]

    def volumes(self) -> Chart:
        """Runs by outcome."""
        total = self._watch.total
        outcomes = [self._watch.outcomes.get(name) for name in self._names]
        layers = [
            Bars(word, tone, [getattr(o, word) if o else 0 for o in outcomes])
            for word, tone in (("completed", "good"), ("refused", "warn"), ("failed", "flag"))
        ]
        return self._plot(
            f"Runs per {self._each}",
            layers,
            y_title="runs",
            summary=f"{total.completed} completed, {total.refused} refused, {total.failed} failed.",
        )

    def problems(self) -> Chart:
        """Shares of runs that were refused and that failed."""
        outcomes = [self._watch.outcomes.get(name) for name in self._names]
        layers = [
            Line(
                word,
                tone,
                [getattr(o, word) / o.total if o and o.total else None for o in outcomes],
            )
            for word, tone in (("refused", "warn"), ("failed", "flag"))
        ]
        total = self._watch.total
        shares = (
            f"{_share(total.refused, total.total)} refused, {_share(total.failed, total.total)}"
        )
        return self._plot(
            "Refused and failed",
            layers,
            y_title="share of runs",
            summary=f"{shares} failed.",
            percent=True,
        )

    def times(self) -> Chart:
        """From start to finish."""
        return self._seconds("whole", "From start to finish")

    def waits(self) -> Chart:
        """In the queue."""
        return self._seconds("wait", "Wait in the queue")

    def _seconds(self, step: str, title: str) -> Chart:
        found = self._watch.seconds.get(step, {})
        seconds = [found.get(name) for name in self._names]
        whole = self._watch.seconds_in_all.get(step)
        return self._plot(
            title,
            [
                Line("95th percentile", "dim", [s.p95 if s else None for s in seconds]),
                Line("median", "accent", [s.median if s else None for s in seconds]),
            ],
            y_title="seconds",
            summary=f"Median {whole.median:.2f} s, 95th percentile {whole.p95:.2f} s."
            if whole
            else "No run.",
        )

    def positive_rate(self, key: str, reference: Scores | None) -> Chart:
        """The share of positives with its interval, and that of the reference."""
        scores = [self._watch.scores[key].get(name, Scores()) for name in self._names]
        intervals = [one.rate_interval for one in scores]
        layers: list[Bars | Line | Band] = [
            Band(
                "95 % interval",
                "accent",
                [i.low if i else None for i in intervals],
                [i.high if i else None for i in intervals],
            ),
            Line("positive", "accent", [one.rate for one in scores]),
        ]
        usual = ""
        if reference and reference.rate is not None:
            layers.append(Line("reference", "warn", [reference.rate] * len(scores)))
            usual = f"; {100 * reference.rate:.1f} % in the reference"
        total = self._watch.total_scores(key)
        return self._plot(
            "Positive rate",
            layers,
            y_title="share positive",
            summary=f"{_share(total.positives, total.runs)} positive{usual}.",
            percent=True,
        )

    def score_quantiles(self, key: str) -> Chart:
        """Median and outer percentiles of the scores."""
        scores = [self._watch.scores[key].get(name, Scores()) for name in self._names]
        total = self._watch.total_scores(key)
        quantiles = [total.quantile(share) or 0.0 for share in (0.05, 0.5, 0.95)]
        low, middle, high = (f"{value:.2f}" for value in quantiles)
        return self._plot(
            "Scores over time",
            [
                Band(
                    "5th to 95th percentile",
                    "accent",
                    [one.quantile(0.05) for one in scores],
                    [one.quantile(0.95) for one in scores],
                ),
                Line("median", "accent", [one.quantile(0.5) for one in scores]),
            ],
            y_title="score",
            summary=f"Median {middle}, 5th percentile {low}, 95th percentile {high}.",
        )

    def score_histogram(self, key: str, reference: Scores | None) -> Chart:
        """How the scores are spread, now and in the reference."""
        total = self._watch.total_scores(key)
        layers: list[Bars | Line | Band] = [
            Bars("now", "accent", [count / max(total.runs, 1) for count in total.bins])
        ]
        if reference and reference.runs:
            shares = [count / reference.runs for count in reference.bins]
            layers.append(Line("reference", "warn", shares))
        return chart(
            "Distribution of scores",
            layers,
            y_title="share of runs",
            x_title="score",
            places=BINS,
            x_labels={fifth * BINS / 5 - 0.5: f"{fifth / 5:.1f}" for fifth in range(6)},
            summary=f"{total.runs} scores in {BINS} equal parts from 0 to 1.",
            percent=True,
        )

    def varies(self, name: str) -> bool:
        """Return whether a characteristic is ever different."""
        values = self._watch.numbers.get(name, {}).values()
        return len({value for some in values for value in some}) > 1

    def characteristic(self, name: str) -> Chart:
        """Median and outer percentiles of an input's characteristic."""
        found = [self._watch.numbers[name].get(bucket, []) for bucket in self._names]
        everything = [value for some in found for value in some]
        title, unit = _in_words(name)
        return self._plot(
            title,
            [
                Band("5th to 95th percentile", "dim", _of(found, 5), _of(found, 95)),
                Line("median", "accent", _of(found, 50)),
            ],
            y_title=unit or "value",
            summary=f"Median {median(everything):.4g} {unit}".rstrip() + ".",
        )


def _of(found: Sequence[Sequence[float]], percent: int) -> list[float | None]:
    return [float(np.percentile(values, percent)) if values else None for values in found]


def _agreement_chart(key: str, weeks: dict[str, Judged]) -> Chart:
    names = list(weeks)
    intervals = [wilson_interval(weeks[name].right, weeks[name].decided) for name in names]
    right = sum(one.right for one in weeks.values())
    decided = sum(one.decided for one in weeks.values())
    return chart(
        "Agreement of radiologists",
        [
            Band(
                "95 % interval",
                "good",
                [i.low if i else None for i in intervals],
                [i.high if i else None for i in intervals],
            ),
            Line(
                "agreed",
                "good",
                [one.right / one.decided if one.decided else None for one in weeks.values()],
            ),
        ],
        y_title="share of judged",
        x_title="week from",
        places=len(names),
        x_labels=labels_of(names),
        summary=f"{key}: {right} of {decided} judged statements were right.",
        percent=True,
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"


def _in_words(name: str) -> tuple[str, str]:
    """Return the title and the unit of a characteristic.

    >>> _in_words("slice_thickness_mm"), _in_words("values_p95")
    (('Slice thickness', 'mm'), ('Input values, 95th percentile', ''))
    """
    if name.startswith("values_"):
        which = name.removeprefix("values_")
        words = {"mean": "mean", "p05": "5th percentile", "p50": "median", "p95": "95th percentile"}
        return f"Input values, {words[which]}", ""
    if name.endswith("_mm"):
        return name.removesuffix("_mm").replace("_", " ").capitalize(), "mm"
    return name.capitalize(), name
