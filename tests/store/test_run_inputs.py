"""Runs that get several series, and priors, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from tests.store.rows import manifest, received
from tests.tools import ManualClock
from triage.core.completeness import QuietPeriods
from triage.core.priors import Comparable, PriorState, SearchState
from triage.core.runs import RunState, StudyState
from triage.settings import RetentionSettings
from triage.store.database import Database
from triage.store.early_runs import queue_early_runs
from triage.store.model_tables import ModelRow
from triage.store.prior_searches import ask_for_priors, claim_search, finish_search
from triage.store.priors import set_prior_state, want_priors
from triage.store.retention import may_be_purged
from triage.store.runs import ClaimedRun, claim_most_urgent, complete_run, record_findings
from triage.store.studies import complete_quiet_studies, find_study, record_instance
from triage.store.tables import AnalysisRunRow, RunInputRow, StudyEventRow

QUIET = QuietPeriods(30.0, {"CT": 5.0})
BONE = {"modalities": ["CT"], "description_pattern": "bone"}
SOFT = {"modalities": ["CT"], "description_pattern": "soft"}
TWO_SERIES = ({"name": "soft", "accepts": SOFT}, {"name": "bone", "accepts": BONE})
WITH_PRIOR = (
    {"name": "now", "accepts": {"modalities": ["CT"]}},
    {"name": "before", "accepts": {"modalities": ["CT"]}, "from": "prior"},
)


def add_model(database: Database, clock: ManualClock, *inputs: dict[str, Any]) -> None:
    """Register a model with these inputs."""
    content = manifest()
    del content["accepts"]
    with database.transaction() as session:
        session.add(
            ModelRow(
                name="several",
                version="1.0.0",
                manifest=content | {"inputs": list(inputs)},
                package_path="several/1.0.0",
                package_sha256="0" * 64,
                registered_at=clock(),
            )
        )


def record(
    database: Database,
    clock: ManualClock,
    kind: str,
    *numbers: int,
    study: str = "1.2.3",
    **more: Any,
) -> int:
    """Record slices of the series `kind` of a study; return the study's id."""
    with database.transaction() as session:
        for number in numbers:
            one = received(
                clock(),
                study=study,
                number=number,
                sop_instance_uid=f"{study}.{len(kind)}.{number}",
                series_instance_uid=f"{study}.{len(kind)}",
                series_description=kind,
                **more,
            )
            one.headers["SeriesDescription"] = kind
            study_id = record_instance(session, one).study_id
    return study_id


def complete(database: Database, clock: ManualClock) -> list[int]:
    """Let the quiet studies be complete."""
    clock.advance(6)
    with database.transaction() as session:
        return complete_quiet_studies(session, QUIET, clock())


def claim(database: Database, clock: ManualClock) -> ClaimedRun:
    """Claim the most urgent run."""
    with database.transaction() as session:
        run = claim_most_urgent(session, worker="w", lease=timedelta(seconds=60), now=clock())
    assert run is not None
    return run


def finish(database: Database, clock: ManualClock, run: ClaimedRun) -> None:
    """Complete the run."""
    with database.transaction() as session:
        record_findings(session, run, [], input_sha256="0" * 64)
        complete_run(session, run, "nothing found", timings_s={}, now=clock())


def states(database: Database) -> list[RunState]:
    """Return the states of all runs."""
    with database.reading() as session:
        return list(session.scalars(select(AnalysisRunRow.state).order_by(AnalysisRunRow.id)))


def texts(database: Database, kind: str) -> list[str]:
    """Return the lines of one kind of history."""
    with database.reading() as session:
        rows = session.scalars(select(StudyEventRow).order_by(StudyEventRow.id))
        return [row.text for row in rows if row.kind == kind]


def state_of(database: Database, uid: str = "1.2.3") -> StudyState:
    """Return whether the study is complete."""
    with database.reading() as session:
        found = find_study(session, uid)
    assert found is not None
    return found.state


def test_run_gets_all_its_series_and_keeps_why(database: Database, clock: ManualClock) -> None:
    add_model(database, clock, *TWO_SERIES)
    record(database, clock, "soft", 1, 2)
    record(database, clock, "bones", 1, 2, 3)
    complete(database, clock)
    assert texts(database, "routed") == [
        "queued for several 1.0.0: input soft: series soft: score 25 (original +20, "
        "soft kernel +5); not series bones: its description does not match 'soft'; "
        "input bone: series bones: score 20 (original +20)"
    ]
    run = claim(database, clock)
    assert {name: len(s.instances) for name, s in run.inputs.items()} == {"soft": 2, "bone": 3}
    assert list(run.inputs) == ["soft", "bone"]
    assert run.series == run.inputs["soft"]
    with database.reading() as session:
        (kept,) = session.scalars(select(RunInputRow)).all()
    assert kept.name == "bone"


def test_missing_series_is_named(database: Database, clock: ManualClock) -> None:
    add_model(database, clock, *TWO_SERIES)
    record(database, clock, "soft", 1)
    complete(database, clock)
    assert states(database) == []
    assert texts(database, "not-routed") == [
        "several 1.0.0: input bone: every series of the study is another input already"
    ]


@pytest.mark.parametrize(("late", "superseded"), [("bones", True), ("other series", False)])
def test_late_image_of_any_input_supersedes_the_run(
    database: Database, clock: ManualClock, late: str, superseded: bool
) -> None:
    add_model(database, clock, *TWO_SERIES)
    record(database, clock, "soft", 1)
    record(database, clock, "bones", 1)
    complete(database, clock)
    finish(database, clock, claim(database, clock))
    record(database, clock, late, 7)
    complete(database, clock)
    expected = [RunState.SUPERSEDED, RunState.PENDING] if superseded else [RunState.COMPLETED]
    assert states(database) == expected


def test_urgent_series_wait_for_one_another(database: Database, clock: ManualClock) -> None:
    add_model(database, clock, *TWO_SERIES)

    def record_part(kind: str, number: int) -> None:
        stat = {"requested_procedure_priority": "STAT"}
        record(database, clock, kind, number, **stat)

    def queue() -> list[int]:
        with database.transaction() as session:
            return queue_early_runs(session, QUIET, clock())

    record_part("soft", 1)
    clock.advance(6)
    assert queue() == []
    record_part("bones", 1)
    assert queue() == []  # it may still be arriving
    clock.advance(6)
    assert len(queue()) == 1
    assert set(claim(database, clock).inputs) == {"soft", "bone"}
    complete(database, clock)
    assert states(database) == [RunState.RUNNING]


def prior_of(database: Database, clock: ManualClock, study_id: int, uid: str) -> None:
    """Note that the study `uid` is wanted as a prior, and is here."""
    with database.transaction() as session:
        want_priors(session, study_id, [Comparable(uid, "P1")], now=clock())
        set_prior_state(session, study_id, uid, PriorState.HERE, "fetched", now=clock())


def search(database: Database, clock: ManualClock, study_id: int) -> None:
    """Ask for the study's priors."""
    with database.transaction() as session:
        ask_for_priors(session, study_id, remote="pacs", wait_s=60, now=clock())


def end_search(database: Database, clock: ManualClock) -> None:
    """End the search that is under way."""
    with database.transaction() as session:
        due = claim_search(session, claimer="c", lease=timedelta(seconds=60), now=clock())
        assert due is not None
        finish_search(session, due, SearchState.DONE, "searched", now=clock())


def test_prior_that_comes_while_the_run_waits_is_its_input(
    database: Database, clock: ManualClock
) -> None:
    add_model(database, clock, *WITH_PRIOR)
    study_id = record(database, clock, "soft", 1)
    search(database, clock, study_id)
    complete(database, clock)
    assert states(database) == [RunState.PENDING]
    assert "input before: not yet: no prior found" in texts(database, "routed")[0]
    prior_of(database, clock, study_id, "1.2.2")
    record(database, clock, "older", 1, 2, study="1.2.2", is_prior=True)
    end_search(database, clock)
    run = claim(database, clock)
    assert run.refusal == ""
    assert {name: len(s.instances) for name, s in run.inputs.items()} == {"now": 1, "before": 2}


def test_required_prior_that_does_not_come_is_stated(
    database: Database, clock: ManualClock
) -> None:
    add_model(database, clock, *WITH_PRIOR)
    study_id = record(database, clock, "soft", 1)
    search(database, clock, study_id)
    complete(database, clock)
    end_search(database, clock)
    run = claim(database, clock)
    assert run.refusal == "input before: no prior found"
    assert list(run.inputs) == ["now"]


def test_without_a_search_the_missing_prior_is_said_at_once(
    database: Database, clock: ManualClock
) -> None:
    add_model(database, clock, *WITH_PRIOR)
    record(database, clock, "soft", 1)
    complete(database, clock)
    assert texts(database, "not-routed") == ["several 1.0.0: input before: no prior found"]


def analysed_with_prior(database: Database, clock: ManualClock) -> int:
    """Analyse the study 1.2.3 with its prior 1.2.2; return the id of the prior."""
    study_id = record(database, clock, "soft", 1)
    prior_of(database, clock, study_id, "1.2.2")
    prior_id = record(database, clock, "older", 1, study="1.2.2", is_prior=True)
    complete(database, clock)
    return prior_id


def test_late_images_of_a_prior_let_the_study_be_analysed_again(
    database: Database, clock: ManualClock
) -> None:
    add_model(database, clock, *WITH_PRIOR)
    analysed_with_prior(database, clock)
    finish(database, clock, claim(database, clock))
    record(database, clock, "older", 2, study="1.2.2", is_prior=True)
    complete(database, clock)
    assert "more images of a prior arrived" in texts(database, "reopened")
    complete(database, clock)
    assert state_of(database) is StudyState.COMPLETE
    assert states(database) == [RunState.SUPERSEDED, RunState.PENDING]
    assert len(claim(database, clock).inputs["before"].instances) == 2


def test_a_prior_that_becomes_complete_unchanged_reopens_nothing(
    database: Database, clock: ManualClock
) -> None:
    add_model(database, clock, *WITH_PRIOR)
    analysed_with_prior(database, clock)
    finish(database, clock, claim(database, clock))
    record(database, clock, "a scout", 9, study="1.2.2", is_prior=True)
    complete(database, clock)
    assert state_of(database) is StudyState.COMPLETE
    assert states(database) == [RunState.COMPLETED]


def test_images_of_a_prior_stay_while_a_run_needs_them(
    database: Database, clock: ManualClock
) -> None:
    add_model(database, clock, *WITH_PRIOR)
    prior_id = analysed_with_prior(database, clock)
    run = claim(database, clock)

    def may_go() -> bool:
        with database.reading() as session:
            return may_be_purged(session, prior_id, RetentionSettings())

    assert not may_go()
    finish(database, clock, run)
    assert may_go()
