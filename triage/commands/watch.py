"""`triage models watch`: how a model does in daily use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click
from rich.table import Table

from triage.commands.console import out
from triage.commands.store import opened_store
from triage.core.errors import TriageError
from triage.core.stages import Stage
from triage.settings import load_settings

if TYPE_CHECKING:
    from triage.core.agreement import Agreement, Estimate
    from triage.store.alerts import Alert
    from triage.store.watch import ModelWatch
    from triage.store.watch_drift import DriftReport


class UnknownModelError(TriageError):
    """There is no such model to watch."""


@click.command("watch")
@click.argument("name")
@click.option("--version", default="", help="The version; by default that in production.")
@click.option("--days", type=click.IntRange(1, 366), default=30, show_default=True)
@click.option("--stage", type=click.Choice(["shadow", "canary", "production", "retired"]))
def watch(name: str, *, version: str, days: int, stage: str | None) -> None:
    """Show what the model NAME did: runs, rates, times, drift, agreement and alerts."""
    from triage.store.alerts import alerts_since
    from triage.store.feedback import agreement_by_finding
    from triage.store.watch import Window, watch_model, watched_model
    from triage.store.watch_drift import drift_of

    settings = load_settings()
    now = datetime.now(UTC)
    with opened_store(settings) as store, store.reading() as session:
        model = watched_model(session, name, version)
        if model is None:
            raise UnknownModelError(
                f"no model {' '.join([name, version]).strip()} is registered; "
                "see `triage models list`"
            )
        window = Window(model.id, now - timedelta(days=days), now, Stage(stage) if stage else None)
        seen = watch_model(session, window)
        drift = drift_of(session, model, settings.watch, since=window.since, until=window.until)
        totals = {key: seen.total_scores(key) for key in seen.scores}
        said = agreement_by_finding(session, window, totals, minimum=settings.watch.minimum_judged)
        alerts = alerts_since(session, model, window.since)
    out.print(f"{model.name} {model.version} ({model.stage}), the last {days} days")
    _show_runs(seen)
    _show_findings(seen, said)
    _show_drift(drift)
    _show_alerts(alerts)


def _show_runs(seen: ModelWatch) -> None:
    total = seen.total
    out.print(
        f"{total.completed} completed, {total.refused} refused, {total.failed} failed",
        highlight=False,
    )
    table = Table("step", "median", "95th percentile", "runs")
    for step, seconds in seen.seconds_in_all.items():
        row = (f"{seconds.median:.2f} s", f"{seconds.p95:.2f} s", str(seconds.count))
        table.add_row(step, *row)
    out.print(table)


def _show_findings(seen: ModelWatch, said: dict[str, Agreement]) -> None:
    table = Table(
        "finding", "runs", "positive", "judged", "agreed", "PPV", "sensitivity, corrected"
    )
    for key in seen.scores:
        scores, judged = seen.total_scores(key), said.get(key)
        interval = scores.rate_interval
        rate = "–"
        if scores.rate is not None and interval is not None:
            rate = _percent(scores.rate, interval.low, interval.high)
        table.add_row(
            key,
            str(scores.runs),
            rate,
            str(judged.judged.decided) if judged else "0",
            _estimate(judged.agreement if judged else None),
            _estimate(judged.positive_predictive_value if judged else None),
            _estimate(judged.sensitivity if judged else None),
        )
    out.print(table)


def _show_drift(drift: DriftReport) -> None:
    if drift.reason:
        out.print(f"drift is not tested: {drift.reason}", highlight=False)
        return
    table = Table("what", "drift", "reference", "now", "adjusted p", "stability index")
    for test in drift.tests:
        table.add_row(
            test.subject,
            "[yellow]yes[/]" if test.is_significant(drift.level) else "no",
            test.reference,
            test.current,
            f"{test.adjusted_p_value:.2g}",
            f"{test.stability_index:.2f}, {test.size}",
        )
    out.print(table)


def _show_alerts(alerts: tuple[Alert, ...]) -> None:
    for alert in alerts:
        state = "[green]cleared[/]" if alert.cleared_at else "[yellow]open[/]   "
        out.print(f"{state} {alert.rule}: {alert.text}", highlight=False)


def _estimate(one: Estimate | None) -> str:
    return _percent(one.value, one.interval.low, one.interval.high) if one else "–"


def _percent(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
