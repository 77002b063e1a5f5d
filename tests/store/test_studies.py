"""From received instances to complete studies, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import select

from tests.store.rows import add_model, manifest, received
from tests.tools import ManualClock
from triage.core.completeness import QuietPeriods
from triage.core.priority import Priority
from triage.core.runs import RunState, StudyState
from triage.store.code_approvals import approve_code, ask_for_approval, runnable_models
from triage.store.contents import load_study
from triage.store.database import Database
from triage.store.model_tables import ModelRow
from triage.store.prioritising import raise_ai_priority
from triage.store.studies import (
    complete_quiet_studies,
    find_study,
    has_quiet_studies,
    hold_open,
    keep_associations_alive,
    record_instance,
    release_association,
    release_receiver,
)
from triage.store.tables import (
    AnalysisRunRow,
    InstanceRow,
    PatientRow,
    PriorityEventRow,
    StudyEventRow,
    StudyRow,
)

QUIET = QuietPeriods(30.0, {"CT": 5.0, "MR": 10.0})


def record(database: Database, clock: ManualClock, **values: Any) -> int:
    """Record one instance and return the id of its study."""
    with database.transaction() as session:
        return record_instance(session, received(clock(), **values)).study_id


def complete(database: Database, clock: ManualClock) -> list[int]:
    """Complete what is due; the cheap question must agree with the outcome."""
    with database.reading() as session:
        is_worthwhile = has_quiet_studies(session, QUIET, clock())
    with database.transaction() as session:
        completed = complete_quiet_studies(session, QUIET, clock())
    assert is_worthwhile or not completed
    return completed


def study(database: Database, uid: str = "1.2.3") -> StudyRow:
    """Return the study `uid`."""
    with database.reading() as session:
        found = find_study(session, uid)
    assert found is not None
    return found


def events(database: Database) -> list[tuple[str, str]]:
    """Return kind and text of all lines of history."""
    with database.reading() as session:
        rows = session.scalars(select(StudyEventRow).order_by(StudyEventRow.id))
        return [(row.kind, row.text) for row in rows]


def runs(database: Database) -> list[AnalysisRunRow]:
    """Return all runs in order."""
    with database.reading() as session:
        return list(session.scalars(select(AnalysisRunRow).order_by(AnalysisRunRow.id)))


def test_first_instance_makes_patient_study_series_and_history(
    database: Database, clock: ManualClock
) -> None:
    record(
        database,
        clock,
        patient_name="Doe^Jane",
        accession_number="A1",
        requested_procedure_priority="HIGH",
        study_description="x" * 300,
    )
    found = study(database)
    assert found.patient.name == "Doe^Jane"
    assert (found.order_priority, found.priority) == (Priority.HIGH, Priority.HIGH)
    assert found.first_instance_at == found.last_instance_at == clock()
    assert len(found.description) == 128
    assert events(database) == [("received", "first image from CT1")]
    with database.reading() as session:
        (event,) = session.scalars(select(PriorityEventRow)).all()
    assert event.reason == "the order says HIGH"


def test_same_instance_again_is_a_duplicate_that_reopens_nothing(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock)
    clock.advance(5)
    complete(database, clock)
    with database.transaction() as session:
        again = record_instance(session, received(clock()))
    assert again.is_duplicate
    assert study(database).state is StudyState.COMPLETE


def test_conflicting_instance_is_kept_but_not_analysed(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock)
    with database.transaction() as session:
        other = record_instance(session, received(clock(), content="other"))
    assert other.is_conflict
    with database.reading() as session:
        (series,) = load_study(session, other.study_id).series
        assert len(session.scalars(select(InstanceRow)).all()) == 2
    assert len(series.instances) == 1
    assert ("conflict", "instance 1.2.3.1.1 came again with other content; both are kept") in (
        events(database)
    )


def test_studies_without_patient_id_are_not_one_patient(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock, study="1.1", patient_id="")
    record(database, clock, study="1.2", patient_id="")
    record(database, clock, study="1.3", patient_id="P")
    record(database, clock, study="1.4", patient_id="P")
    with database.reading() as session:
        assert len(session.scalars(select(PatientRow)).all()) == 3


def test_modalities_of_a_study_add_up(database: Database, clock: ManualClock) -> None:
    record(database, clock)
    record(database, clock, number=2, modality="SR", series_instance_uid="1.2.3.2")
    record(database, clock, number=3, modality="", series_instance_uid="1.2.3.3")
    assert study(database).modalities == "CT\\SR"


def test_study_is_complete_after_its_quiet_period_and_gets_a_run(
    database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        add_model(session, clock())
        add_model(session, clock(), name="shadow-model", stage="shadow")
        add_model(session, clock(), name="old-model", stage="retired")
        add_model(session, clock(), name="chest-model", body_parts=["CHEST"])
    study_id = record(database, clock, requested_procedure_priority="STAT")
    clock.advance(4.9)
    assert complete(database, clock) == []
    clock.advance(0.1)
    assert complete(database, clock) == [study_id]
    assert complete(database, clock) == []
    found = study(database)
    assert (found.state, found.generation) == (StudyState.COMPLETE, 1)
    assert found.completed_at == clock()
    assert [(r.model.name, r.state, r.priority) for r in runs(database)] == [
        ("head-ct", RunState.PENDING, Priority.STAT),
        ("shadow-model", RunState.PENDING, Priority.STAT),
    ]
    assert [e for e in events(database) if e[0] == "not-routed"] == [
        (
            "not-routed",
            "chest-model 1.0.0: series 1.2.3.1: body part HEAD, model accepts CHEST",
        )
    ]


def test_study_with_two_modalities_waits_for_the_longer_quiet_period(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock)
    study_id = record(database, clock, number=2, modality="MR", series_instance_uid="1.2.3.2")
    clock.advance(9.9)
    assert complete(database, clock) == []
    clock.advance(0.1)
    assert complete(database, clock) == [study_id]


def test_open_association_keeps_its_studies_incomplete(
    database: Database, clock: ManualClock
) -> None:
    study_id = record(database, clock)
    with database.transaction() as session:
        for _ in range(2):
            hold_open(session, study_id, association="a", receiver="r", now=clock())
        hold_open(session, study_id, association="b", receiver="r", now=clock())
    clock.advance(60)
    assert complete(database, clock) == []
    with database.transaction() as session:
        release_association(session, "a")
    assert complete(database, clock) == []
    with database.transaction() as session:
        release_association(session, "b")
    assert complete(database, clock) == [study_id]


def test_dead_receiver_does_not_keep_a_study_incomplete_for_ever(
    database: Database, clock: ManualClock
) -> None:
    study_id = record(database, clock)
    with database.transaction() as session:
        hold_open(session, study_id, association="a", receiver="r", now=clock())
    for _ in range(3):
        clock.advance(100)
        with database.transaction() as session:
            keep_associations_alive(session, "r", clock())
        assert complete(database, clock) == []
    clock.advance(121)
    assert complete(database, clock) == [study_id]


def test_restarted_receiver_frees_what_it_held(database: Database, clock: ManualClock) -> None:
    study_id = record(database, clock)
    with database.transaction() as session:
        hold_open(session, study_id, association="a", receiver="r1", now=clock())
        hold_open(session, study_id, association="b", receiver="r2", now=clock())
    clock.advance(10)
    with database.transaction() as session:
        release_receiver(session, "r1")
    assert complete(database, clock) == []
    with database.transaction() as session:
        release_receiver(session, "r2")
    assert complete(database, clock) == [study_id]


def test_late_instance_reopens_the_study_and_supersedes_its_run(
    database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        add_model(session, clock())
    record(database, clock)
    clock.advance(5)
    complete(database, clock)
    clock.advance(5)
    record(database, clock, number=2)
    assert study(database).state is StudyState.RECEIVING
    assert [r.state for r in runs(database)] == [RunState.PENDING]
    clock.advance(5)
    complete(database, clock)
    assert [(r.generation, r.state) for r in runs(database)] == [
        (1, RunState.SUPERSEDED),
        (2, RunState.PENDING),
    ]
    kinds = [kind for kind, _ in events(database)]
    assert kinds == [
        "received",
        "complete",
        "routed",
        "reopened",
        "complete",
        "superseded",
        "routed",
    ]


def test_a_model_that_routing_fails_on_is_a_reason_and_stops_no_other(
    database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        add_model(session, clock(), name="broken-model")
        add_model(session, clock())
    with database.transaction() as session:
        row = session.scalars(
            select(AnalysisRunRow.__mapper__.relationships["model"].mapper.class_)
        ).first()
        assert row is not None
        row.manifest = {**manifest(), "schema_version": 99}
    record(database, clock)
    clock.advance(5)
    assert len(complete(database, clock)) == 1
    assert [r.model.name for r in runs(database)] == ["head-ct"]
    assert ("not-routed", "broken-model 1.0.0: routing failed: ValidationError") in events(database)


def test_model_whose_code_waits_for_approval_is_a_reason_until_it_is_approved(
    database: Database, clock: ManualClock
) -> None:
    digest = "1" * 64
    with database.transaction() as session:
        add_model(session, clock(), name="new-model")
        add_model(session, clock())
        session.flush()
        row = session.scalars(select(ModelRow).where(ModelRow.name == "new-model")).one()
        row.package_sha256 = digest
        ask_for_approval(session, digest, now=clock())
    record(database, clock)
    clock.advance(5)
    assert len(complete(database, clock)) == 1
    assert [r.model.name for r in runs(database)] == ["head-ct"]
    (reason,) = [text for kind, text in events(database) if kind == "not-routed"]
    assert reason.startswith("new-model 1.0.0: the code in its package waits for approval")
    with database.transaction() as session:
        assert approve_code(session, digest, who="A. Grey", reason="read", now=clock())
        assert [m.name for m in runnable_models(session)] == ["new-model", "head-ct"]


def test_instance_that_arrives_while_the_study_becomes_complete_reopens_it(
    postgresql_database: Database, clock: ManualClock
) -> None:
    database = postgresql_database
    record(database, clock)
    clock.advance(5)
    late = threading.Thread(target=record, args=(database, clock), kwargs={"number": 2})
    with database.transaction() as session:
        assert len(complete_quiet_studies(session, QUIET, clock())) == 1
        late.start()
        late.join(0.5)
        assert late.is_alive()  # it waits for the study's lock
    late.join()
    assert study(database).state is StudyState.RECEIVING


def test_study_whose_instance_is_just_being_recorded_is_left_for_later(
    postgresql_database: Database, clock: ManualClock
) -> None:
    database = postgresql_database
    study_id = record(database, clock)
    clock.advance(5)
    with database.transaction() as session:
        record_instance(session, received(clock(), number=2))
        assert complete(database, clock) == []
    assert complete(database, clock) == []
    clock.advance(5)
    assert complete(database, clock) == [study_id]


def test_study_whose_run_is_just_being_written_is_left_for_later(
    postgresql_database: Database, clock: ManualClock
) -> None:
    database = postgresql_database
    with database.transaction() as session:
        add_model(session, clock())
    study_id = record(database, clock)
    clock.advance(5)
    complete(database, clock)
    record(database, clock, number=2)
    clock.advance(5)
    with database.transaction() as session:
        session.scalars(select(AnalysisRunRow).with_for_update(of=AnalysisRunRow)).all()
        assert complete(database, clock) == []
        # The worker goes on to its study, as it does to raise the priority.
        assert raise_ai_priority(session, study_id, Priority.STAT, "found", at=clock())
    assert complete(database, clock) == [study_id]


def test_ai_raises_a_study_and_never_lowers_it(database: Database, clock: ManualClock) -> None:
    study_id = record(database, clock, requested_procedure_priority="HIGH")

    def ask(wanted: Priority) -> bool:
        with database.transaction() as session:
            return raise_ai_priority(session, study_id, wanted, f"because {wanted}", at=clock())

    assert not ask(Priority.LOW)
    assert study(database).priority is Priority.HIGH
    assert ask(Priority.STAT)
    assert study(database).priority is Priority.STAT
    assert not ask(Priority.STAT)
    assert not ask(Priority.ROUTINE)
    found = study(database)
    assert (found.priority, found.ai_priority, found.order_priority) == (
        Priority.STAT,
        Priority.STAT,
        Priority.HIGH,
    )
    with database.reading() as session:
        changes = session.scalars(select(PriorityEventRow).order_by(PriorityEventRow.id)).all()
    assert [(c.source, c.before, c.after) for c in changes][1:] == [
        ("ai", Priority.HIGH, Priority.HIGH),
        ("ai", Priority.HIGH, Priority.STAT),
    ]


@pytest.mark.parametrize("receiving", [200])
def test_finding_quiet_studies_does_not_ask_once_per_receiving_study(
    database: Database, clock: ManualClock, receiving: int
) -> None:
    from sqlalchemy import event

    with database.transaction() as session:
        for n in range(receiving):
            record_instance(session, received(clock(), study=f"1.2.{n}"))
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert complete(database, clock) == []
    assert len(statements) < 10
