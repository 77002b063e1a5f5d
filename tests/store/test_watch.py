"""What a model did over time, and the rules about it, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from tests.store.lived import add_runs, add_watched_model, every
from tests.tools import ManualClock
from triage.core.runs import RunState
from triage.core.stages import Stage
from triage.settings import WatchRuleSettings, WatchSettings
from triage.store.alerts import open_alerts
from triage.store.database import Database
from triage.store.model_tables import ModelAlertRow, ModelEventRow, ModelRow
from triage.store.tables import FindingRow
from triage.store.watch import BINS, Outcomes, Window, watch_model
from triage.store.watch_alerts import measure_rules, watch_round
from triage.store.watch_drift import drift_of

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WATCH = WatchSettings(reference_runs=120, minimum_runs=100)


def refused_every(step: int) -> Any:
    return lambda number: {"state": RunState.REFUSED} if number % step == 0 else {}


def test_runs_are_counted_by_day_in_utc(database: Database, clock: ManualClock) -> None:
    midnight = clock().replace(hour=0, minute=0, second=0, microsecond=0)
    with database.transaction() as session:
        model = add_watched_model(session, midnight - 9 * DAY)
        moments = [midnight - 2 * DAY, midnight - DAY - timedelta(seconds=1), midnight - DAY]
        add_runs(session, model, moments, changes=refused_every(3))
        add_runs(session, model, [midnight], seed=2, changes=lambda _: {"state": "superseded"})
    with database.reading() as session:
        watch = watch_model(session, Window(model.id, midnight - 9 * DAY, midnight + DAY))
    days = {f"{midnight - n * DAY:%Y-%m-%d}": n for n in (1, 2)}
    assert {days[name]: outcomes for name, outcomes in watch.outcomes.items()} == {
        2: Outcomes(completed=1, refused=1),
        1: Outcomes(completed=1),
    }
    assert watch.total == Outcomes(completed=2, refused=1)
    assert len(watch.window.buckets()) == 10


def test_a_short_window_is_counted_by_hour(database: Database, clock: ManualClock) -> None:
    with database.transaction() as session:
        model = add_watched_model(session, clock())
        add_runs(session, model, [clock() - 3 * HOUR, clock() - HOUR])
    with database.reading() as session:
        watch = watch_model(session, Window(model.id, clock() - DAY, clock()))
    names = [f"{clock() - n * HOUR:%Y-%m-%d %H}" for n in (3, 1)]
    assert list(watch.outcomes) == names
    assert set(names) <= set(watch.window.buckets())


def test_scores_rates_and_quantiles_are_those_of_the_rows(
    database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        model = add_watched_model(session, clock() - 9 * DAY)
        add_runs(session, model, every(clock(), 200, HOUR), rate=0.3)
        # The ends of the range are in the first and the last bin.
        edge = add_runs(session, model, [clock() - DAY] * 2, seed=2)
        findings = session.scalars(select(FindingRow).where(FindingRow.run_id.in_(edge))).all()
        findings[0].confidence, findings[1].confidence = 0.0, 1.0
    with database.reading() as session:
        watch = watch_model(session, Window(model.id, clock() - 9 * DAY, clock()))
        rows = session.scalars(select(FindingRow)).all()
    scores = watch.total_scores("hemorrhage")
    values = sorted(row.confidence for row in rows)
    assert scores.runs == len(values) == 202
    assert scores.positives == sum(row.present for row in rows)
    assert scores.bins[0] >= 1
    assert scores.bins[-1] >= 1
    for share in (0.1, 0.5, 0.95):
        assert scores.quantile(share) == pytest.approx(values[int(share * 202)], abs=1.5 / BINS)
    interval = scores.rate_interval
    assert interval is not None
    assert scores.rate is not None
    assert interval.low < scores.rate < interval.high


def test_waits_and_times_are_medians_of_completed_runs(
    database: Database, clock: ManualClock
) -> None:
    def took(number: int) -> dict[str, Any]:
        start = clock() - HOUR
        return {
            "available_at": start,
            "created_at": start - HOUR,  # its priors were fetched meanwhile
            "started_at": start + timedelta(seconds=number),
            "finished_at": start + timedelta(seconds=number + 10 + number),
            "timings_s": {"infer": 1.0 + number, "decode": "broken"},
        }

    with database.transaction() as session:
        model = add_watched_model(session, clock())
        add_runs(session, model, [clock()] * 5, changes=took)
    with database.reading() as session:
        seconds = watch_model(session, Window(model.id, clock() - DAY, clock())).seconds_in_all
    assert seconds["wait"].median == 2
    assert seconds["whole"].median == 12
    assert seconds["infer"].median == 3
    assert "decode" not in seconds


def lived(database: Database, clock: ManualClock, **later: Any) -> ModelRow:
    """Return a model with a reference of 120 runs and 120 later ones that differ by `later`."""
    with database.transaction() as session:
        model = add_watched_model(session, clock() - 20 * DAY)
        add_runs(session, model, every(clock() - 10 * DAY, 120, HOUR))
        add_runs(session, model, every(clock(), 120, HOUR), seed=2, **later)
    return model


def drift_subjects(database: Database, clock: ManualClock, model: ModelRow) -> set[str]:
    with database.reading() as session:
        report = drift_of(session, model, WATCH, since=clock() - 30 * DAY, until=clock())
    assert report.reason == ""
    assert (report.reference_runs, report.current_runs) == (120, 120)
    return {test.subject for test in report.drifts}


def test_a_new_scanner_drifts_against_the_first_runs(
    database: Database, clock: ManualClock
) -> None:
    model = lived(database, clock, scanner="B 256", slice_thickness_mm=1.0)
    assert drift_subjects(database, clock, model) == {"scanner", "slice_thickness_mm"}


def test_the_same_runs_do_not_drift(sqlite_database: Database, clock: ManualClock) -> None:
    assert drift_subjects(sqlite_database, clock, lived(sqlite_database, clock)) == set()


def test_the_reference_begins_anew_with_the_stage(
    sqlite_database: Database, clock: ManualClock
) -> None:
    model = lived(sqlite_database, clock, scanner="B 256")
    with sqlite_database.transaction() as session:
        session.add(
            ModelEventRow(
                model_id=model.id,
                at=clock() - 5 * DAY - timedelta(minutes=30),
                who="tests",
                action="promoted",
                to_stage=Stage.PRODUCTION.value,
            )
        )
    with sqlite_database.reading() as session:
        report = drift_of(session, model, WATCH, since=clock() - 30 * DAY, until=clock())
    assert report.reference_runs == 120
    assert report.reason == "0 runs since the reference; 100 are needed"


def alerts(database: Database, clock: ManualClock, settings: WatchSettings = WATCH) -> set[str]:
    watch_round(database, settings, clock, holder="tests")
    with database.reading() as session:
        return {alert.rule for alert in open_alerts(session)}


def test_failures_raise_an_alert_once_and_it_clears_when_they_end(
    database: Database, clock: ManualClock
) -> None:
    def failing(number: int) -> dict[str, Any]:
        return {"state": RunState.FAILED} if number % 4 == 0 else {}

    with database.transaction() as session:
        model = add_watched_model(session, clock() - 20 * DAY)
        add_runs(session, model, every(clock(), 40, timedelta(minutes=5)), changes=failing)
    assert alerts(database, clock) == {"failures"}
    assert alerts(database, clock) == {"failures"}
    clock.advance(2 * DAY.total_seconds())
    assert alerts(database, clock) == {"failures"}  # nothing ran, so nothing is known to be mended
    with database.transaction() as session:
        add_runs(session, model, every(clock(), 40, timedelta(minutes=5)), seed=2)
    assert alerts(database, clock) == set()
    with database.reading() as session:
        rows = session.scalars(select(ModelAlertRow)).all()
    assert [(row.rule, row.text) for row in rows] == [
        ("failures", "25.0 % (10 of 40) failed over 24 h (limit 0.1)")
    ]
    assert rows[0].cleared_at == clock()


def test_a_positive_rate_beside_the_reference_raises_an_alert(
    database: Database, clock: ManualClock
) -> None:
    lived(database, clock, rate=0.6)
    assert "positive-rate: hemorrhage" in alerts(database, clock)


def test_nothing_is_wrong_with_a_model_that_goes_on_as_before(
    sqlite_database: Database, clock: ManualClock
) -> None:
    lived(sqlite_database, clock)
    assert alerts(sqlite_database, clock) == set()


@pytest.mark.parametrize(
    ("waiting", "hours", "raised"), [(3, 3, True), (2, 3, False), (3, 1, False)]
)
def test_studies_that_wait_without_a_result_raise_an_alert(
    database: Database, clock: ManualClock, waiting: int, hours: int, raised: bool
) -> None:
    def unanswered(_: int) -> dict[str, Any]:
        queued = clock() - hours * HOUR
        return {
            "state": RunState.PENDING,
            "created_at": queued,
            "available_at": queued,
            "started_at": None,
            "finished_at": None,
        }

    with database.transaction() as session:
        model = add_watched_model(session, clock() - 20 * DAY)
        add_runs(session, model, [clock() - 12 * HOUR])  # a quiet night before is no silence
        add_runs(session, model, [clock()] * waiting, seed=2, changes=unanswered)
    assert ("no-results" in alerts(database, clock)) is raised


def test_slow_runs_raise_an_alert(sqlite_database: Database, clock: ManualClock) -> None:
    with sqlite_database.transaction() as session:
        model = add_watched_model(session, clock() - DAY)
        add_runs(session, model, every(clock(), 20, HOUR), whole_s=200)
    assert alerts(sqlite_database, clock) == {"slow"}


def test_rules_of_ones_own_replace_and_join_the_default_ones(
    sqlite_database: Database, clock: ManualClock
) -> None:
    with sqlite_database.transaction() as session:
        model = add_watched_model(session, clock() - DAY)
        add_runs(session, model, every(clock(), 40, timedelta(minutes=5)), changes=refused_every(2))
    rules = (
        WatchRuleSettings(name="slow", metric="median-time-s", threshold=1.0),
        WatchRuleSettings(name="refusals", metric="refusal-rate", threshold=0.2),
        WatchRuleSettings(name="others", metric="refusal-rate", models=("another-model",)),
    )
    settings = WatchSettings(rules=rules)
    assert alerts(sqlite_database, clock, settings) == {"slow", "refusals"}
    assert alerts(sqlite_database, clock, WatchSettings()) == set()


def test_a_retired_model_has_no_alerts(sqlite_database: Database, clock: ManualClock) -> None:
    with sqlite_database.transaction() as session:
        model = add_watched_model(session, clock() - DAY)
        add_runs(session, model, every(clock(), 20, HOUR), whole_s=200)
    assert alerts(sqlite_database, clock) == {"slow"}
    with sqlite_database.transaction() as session:
        session.get_one(ModelRow, model.id).stage = Stage.RETIRED
    assert alerts(sqlite_database, clock) == set()


def test_only_one_worker_looks_at_a_time(sqlite_database: Database, clock: ManualClock) -> None:
    with sqlite_database.transaction() as session:
        model = add_watched_model(session, clock() - DAY)
        add_runs(session, model, every(clock(), 20, HOUR), whole_s=200)
    assert len(watch_round(sqlite_database, WATCH, clock, holder="one")) == 1
    assert watch_round(sqlite_database, WATCH, clock, holder="other") == []


def test_every_metric_can_be_measured_of_a_model_without_runs(
    sqlite_database: Database, clock: ManualClock
) -> None:
    metrics = WatchRuleSettings.model_fields["metric"].annotation.__args__  # type: ignore[union-attr]
    rules = tuple(WatchRuleSettings(name=metric, metric=metric) for metric in metrics)
    with sqlite_database.transaction() as session:
        add_watched_model(session, clock())
        measured = measure_rules(session, WatchSettings(rules=rules), clock())
    assert not any(one.is_broken for one in measured)


def test_a_window_names_its_last_day_and_none_after_it(clock: ManualClock) -> None:
    midnight = datetime(2026, 3, 1, tzinfo=clock().tzinfo)
    assert Window(1, midnight - 3 * DAY, midnight).buckets() == [
        "2026-02-26",
        "2026-02-27",
        "2026-02-28",
    ]
