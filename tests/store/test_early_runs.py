"""Urgent studies whose series are analysed before the study is complete."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import select

from tests.store.rows import add_model, received
from tests.tools import ManualClock
from triage.core.completeness import Bounds, QuietPeriods
from triage.core.priority import Priority
from triage.core.runs import RunState, StudyState
from triage.store.database import Database
from triage.store.early_runs import queue_early_runs, studies_with_enough
from triage.store.prioritising import raise_ai_priority
from triage.store.runs import claim_most_urgent, complete_run, fail_attempt, record_findings
from triage.store.studies import (
    complete_quiet_studies,
    find_study,
    hold_open,
    record_instance,
    release_association,
)
from triage.store.tables import AnalysisRunRow, StudyEventRow, StudyRow

QUIET = QuietPeriods(30.0, {"CT": 5.0})
BOUNDS = Bounds(expected_wait_s=60, maximum_age_s=600)


def record(database: Database, clock: ManualClock, *numbers: int, series: int = 1) -> int:
    """Record slices of an urgent study whose association stays open; return the study's id."""
    with database.transaction() as session:
        for number in numbers:
            one = received(
                clock(),
                number=number,
                sop_instance_uid=f"1.2.3.{series}.{number}",
                series_instance_uid=f"1.2.3.{series}",
                requested_procedure_priority="STAT",
            )
            study_id = record_instance(session, one).study_id
        hold_open(session, study_id, association="a", receiver="r", now=clock())
    return study_id


def queue_early(database: Database, clock: ManualClock) -> list[int]:
    """Queue what is enough; the question without a lock must agree with the outcome."""
    with database.reading() as session:
        is_worthwhile = bool(studies_with_enough(session, QUIET, clock(), BOUNDS))
    with database.transaction() as session:
        queued = queue_early_runs(session, QUIET, clock(), BOUNDS)
    assert is_worthwhile or not queued
    return queued


def complete(database: Database, clock: ManualClock) -> list[int]:
    """Release the association and let the study be complete."""
    with database.transaction() as session:
        release_association(session, "a")
    clock.advance(5)
    with database.transaction() as session:
        return complete_quiet_studies(session, QUIET, clock(), BOUNDS)


def analyse(database: Database, clock: ManualClock) -> int:
    """Carry the most urgent run out and return its id."""
    with database.transaction() as session:
        run = claim_most_urgent(session, worker="w", lease=timedelta(seconds=60), now=clock())
        assert run is not None
    with database.transaction() as session:
        record_findings(session, run, [], input_sha256="0" * 64)
        raise_ai_priority(session, run.study_id, Priority.STAT, "found", at=clock())
        complete_run(session, run, "found", timings_s={}, now=clock())
    return run.run_id


def runs(database: Database) -> list[tuple[str, int, str]]:
    """Return model, generation and state of all runs."""
    with database.reading() as session:
        rows = session.scalars(select(AnalysisRunRow).order_by(AnalysisRunRow.id)).all()
    return [(row.model.name, row.generation, row.state.value) for row in rows]


def texts(database: Database, kind: str) -> list[str]:
    """Return the lines of one kind of history."""
    with database.reading() as session:
        rows = session.scalars(select(StudyEventRow).order_by(StudyEventRow.id))
        return [row.text for row in rows if row.kind == kind]


def study(database: Database) -> StudyRow:
    """Return the study."""
    with database.reading() as session:
        found = find_study(session, "1.2.3")
    assert found is not None
    return found


def registered(database: Database, clock: ManualClock, **more: Any) -> None:
    """Register a model for head CT."""
    with database.transaction() as session:
        add_model(session, clock(), **more)


def test_series_that_is_enough_is_analysed_before_its_study_is_complete(
    database: Database, clock: ManualClock
) -> None:
    registered(database, clock)
    study_id = record(database, clock, 1, 2)
    clock.advance(4.9)
    assert queue_early(database, clock) == []
    clock.advance(0.1)
    assert queue_early(database, clock) == [study_id]
    assert queue_early(database, clock) == []
    assert study(database).state is StudyState.RECEIVING
    assert runs(database) == [("head-ct", 1, "pending")]
    assert texts(database, "routed") == [
        "queued for head-ct 1.0.0 before the study is complete: no image of the series for 5 s; "
        "series 1.2.3.1: score 30 (original +20, body part stated +10)"
    ]


def test_early_run_stands_when_the_complete_study_gives_the_model_the_same_images(
    database: Database, clock: ManualClock
) -> None:
    registered(database, clock)
    record(database, clock, 1, 2)
    clock.advance(5)
    queue_early(database, clock)
    analyse(database, clock)
    assert complete(database, clock)
    found = study(database)
    assert found.state is StudyState.COMPLETE
    assert runs(database) == [("head-ct", found.generation, "completed")]
    assert texts(database, "superseded") == []
    assert texts(database, "routed")[-1] == "head-ct 1.0.0: its analysis of the same images stands"


def test_early_run_that_is_still_waiting_or_running_stands_too(
    database: Database, clock: ManualClock
) -> None:
    registered(database, clock)
    registered(database, clock, name="second")
    record(database, clock, 1, 2)
    clock.advance(5)
    queue_early(database, clock)
    with database.transaction() as session:
        run = claim_most_urgent(session, worker="w", lease=timedelta(seconds=60), now=clock())
        assert run is not None
    complete(database, clock)
    generation = study(database).generation
    assert runs(database) == [("head-ct", generation, "running"), ("second", generation, "pending")]
    with database.transaction() as session:
        record_findings(session, run, [], input_sha256="0" * 64)
        complete_run(session, run, "nothing found", timings_s={}, now=clock())
    assert runs(database)[0] == ("head-ct", generation, "completed")


def test_more_images_of_the_series_supersede_its_early_run_and_keep_the_raised_priority(
    database: Database, clock: ManualClock
) -> None:
    registered(database, clock)
    record(database, clock, 1, 2)
    clock.advance(5)
    queue_early(database, clock)
    analyse(database, clock)
    record(database, clock, 3)
    assert complete(database, clock)
    generation = study(database).generation
    assert runs(database) == [("head-ct", 1, "superseded"), ("head-ct", generation, "pending")]
    found = study(database)
    assert (found.priority, found.ai_priority) == (Priority.STAT, Priority.STAT)


def test_series_that_fits_better_supersedes_the_early_run_of_another(
    database: Database, clock: ManualClock
) -> None:
    registered(database, clock)
    record(database, clock, 1, 2)
    clock.advance(5)
    queue_early(database, clock)
    record(database, clock, 1, 2, 3, 4, series=2)
    assert complete(database, clock)
    assert [state for _, _, state in runs(database)] == ["superseded", "pending"]
    assert texts(database, "superseded") == ["another series fits the model better"]


def test_images_that_come_between_queue_and_claim_are_analysed_and_the_run_stands(
    database: Database, clock: ManualClock
) -> None:
    registered(database, clock)
    record(database, clock, 1, 2)
    clock.advance(5)
    queue_early(database, clock)
    record(database, clock, 3)
    analyse(database, clock)  # it takes what the series has now
    assert complete(database, clock)
    assert [state for _, _, state in runs(database)] == ["completed"]


def test_failed_early_run_is_tried_again_with_the_complete_study(
    database: Database, clock: ManualClock
) -> None:
    registered(database, clock)
    record(database, clock, 1, 2)
    clock.advance(5)
    queue_early(database, clock)
    with database.transaction() as session:
        run = claim_most_urgent(session, worker="w", lease=timedelta(seconds=60), now=clock())
        assert run is not None
        fail_attempt(
            session,
            run,
            "out of memory",
            maximum_attempts=1,
            retry_after=timedelta(0),
            now=clock(),
        )
    assert queue_early(database, clock) == []
    complete(database, clock)
    assert [state for _, _, state in runs(database)] == ["superseded", "pending"]


def test_routine_study_is_analysed_only_when_it_is_complete(
    database: Database, clock: ManualClock
) -> None:
    registered(database, clock)
    with database.transaction() as session:
        study_id = record_instance(session, received(clock())).study_id
        hold_open(session, study_id, association="a", receiver="r", now=clock())
    clock.advance(60)
    assert queue_early(database, clock) == []
    assert runs(database) == []


def test_early_run_of_a_reopened_study_keeps_what_other_models_have_said(
    database: Database, clock: ManualClock
) -> None:
    registered(database, clock)
    registered(database, clock, name="chest", body_parts=["CHEST"])
    record(database, clock, 1, 2)
    with database.transaction() as session:
        one = received(
            clock(),
            sop_instance_uid="1.2.3.7.1",
            series_instance_uid="1.2.3.7",
            headers={"BodyPartExamined": "CHEST", "Rows": 512},
        )
        record_instance(session, one)
    complete(database, clock)
    analyse(database, clock)
    analyse(database, clock)
    record(database, clock, 3)
    clock.advance(5)
    assert queue_early(database, clock)
    generation = study(database).generation
    assert runs(database) == [
        ("head-ct", 1, "superseded"),
        ("chest", generation, "completed"),
        ("head-ct", generation, "pending"),
    ]


def test_late_image_of_another_series_leaves_the_analysis_as_it_is(
    database: Database, clock: ManualClock
) -> None:
    registered(database, clock)
    record(database, clock, 1, 2)
    complete(database, clock)
    analyse(database, clock)
    with database.transaction() as session:
        report = received(
            clock(),
            sop_instance_uid="1.2.3.9.1",
            series_instance_uid="1.2.3.9",
            modality="SR",
            headers={},
        )
        record_instance(session, report)
    assert study(database).state is StudyState.RECEIVING
    clock.advance(25)
    complete(database, clock)
    assert runs(database) == [("head-ct", 2, "completed")]
    assert RunState.SUPERSEDED.value not in {state for _, _, state in runs(database)}
