"""A canary answers for its share of the studies, and never instead of an answer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.tools import ManualClock
from tests.web.hospital import Hospital, hemorrhage
from triage.core.stages import Stage, is_in_share
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.model_tables import ModelRow
from triage.store.runs import fail_attempt, recover_expired_leases, refuse_run
from triage.store.tables import AnalysisRunRow

NAME = "head-ct-hemorrhage"
SHARE = 0.5


@pytest.fixture
def hospital(sqlite_database: Database, files: InstanceFiles, clock: ManualClock) -> Hospital:
    """1.0.0 is in production, 1.1.0 the canary of half of the studies."""
    hospital = Hospital(sqlite_database, files, clock)
    hospital.register_model()
    canary = hospital.register_model("canary", version="1.1.0")
    with sqlite_database.transaction() as session:
        session.get_one(ModelRow, canary).share = SHARE
    return hospital


def complete_one(hospital: Hospital, *, is_of_canary: bool) -> str:
    """Receive and complete a study on the wanted side of the share."""
    while True:
        images = hospital.head_ct()
        if is_in_share(NAME, str(images[0].StudyInstanceUID), SHARE) is is_of_canary:
            uid = hospital.receive(*images)
            hospital.complete(uid)
            return uid


def asked(hospital: Hospital) -> list[tuple[str, str, str]]:
    """Return version, stage and state of each run that is not superseded."""
    with hospital.database.reading() as session:
        rows = session.query(AnalysisRunRow).order_by(AnalysisRunRow.id)
        return [
            (run.model.version, run.stage.value, run.state.value)
            for run in rows
            if run.state != "superseded"
        ]


def test_canary_answers_alone_for_its_share_and_counts(hospital: Hospital) -> None:
    complete_one(hospital, is_of_canary=True)
    assert asked(hospital) == [("1.1.0", "canary", "pending")]
    run = hospital.claim()
    assert run.counts
    hospital.finish(run, hemorrhage())
    assert asked(hospital) == [("1.1.0", "canary", "completed")]


def test_production_answers_for_the_others(hospital: Hospital) -> None:
    complete_one(hospital, is_of_canary=False)
    assert asked(hospital) == [("1.0.0", "production", "pending")]


def test_production_is_asked_when_the_canary_refuses(hospital: Hospital) -> None:
    uid = complete_one(hospital, is_of_canary=True)
    run = hospital.claim()
    with hospital.database.transaction() as session:
        refuse_run(session, run, "a slice is missing", now=hospital.clock())
    expected = [("1.1.0", "canary", "refused"), ("1.0.0", "production", "pending")]
    assert asked(hospital) == expected
    hospital.receive(*hospital.head_ct(slices=1, StudyInstanceUID=uid))
    hospital.complete(uid)
    assert ("1.0.0", "production", "pending") in asked(hospital)


def test_production_is_asked_at_the_first_failure_of_the_canary(hospital: Hospital) -> None:
    complete_one(hospital, is_of_canary=True)
    for _ in range(2):
        run = hospital.claim()
        if run.manifest.version == "1.0.0":
            break
        with hospital.database.transaction() as session:
            fail_attempt(
                session,
                run,
                "out of memory",
                maximum_attempts=2,
                retry_after=timedelta(seconds=2),
                now=hospital.clock(),
            )
    assert asked(hospital) == [
        ("1.1.0", "canary", "pending"),
        ("1.0.0", "production", "running"),
    ]


@pytest.mark.parametrize("trouble", ["parked", "does not accept"])
def test_production_is_asked_where_the_canary_cannot_answer(
    hospital: Hospital, trouble: str
) -> None:
    with hospital.database.transaction() as session:
        canary = session.query(ModelRow).filter_by(version="1.1.0").one()
        if trouble == "parked":
            canary.parked_until = hospital.clock() + timedelta(minutes=5)
        else:
            canary.manifest = {**canary.manifest, "accepts": {"modalities": ["MR"]}}
    complete_one(hospital, is_of_canary=True)
    assert ("1.0.0", "production", "pending") in asked(hospital)


def test_study_does_not_wait_for_a_canary_that_is_parked_later(hospital: Hospital) -> None:
    complete_one(hospital, is_of_canary=True)
    with hospital.database.transaction() as session:
        canary = session.query(ModelRow).filter_by(version="1.1.0").one()
        canary.parked_until = hospital.clock() + timedelta(minutes=5)
    for _ in range(2):  # once is enough
        with hospital.database.transaction() as session:
            recover_expired_leases(session, maximum_attempts=2, now=hospital.clock())
    assert asked(hospital) == [
        ("1.1.0", "canary", "pending"),
        ("1.0.0", "production", "pending"),
    ]


def test_run_keeps_its_stage_when_the_model_moves_on(hospital: Hospital) -> None:
    complete_one(hospital, is_of_canary=True)
    with hospital.database.transaction() as session:
        session.query(ModelRow).filter_by(version="1.1.0").one().stage = Stage.SHADOW
    assert hospital.claim().counts


def test_shadow_runs_come_after_all_that_count(hospital: Hospital) -> None:
    hospital.register_model("shadow", version="2.0.0")
    complete_one(hospital, is_of_canary=False)
    hospital.clock.advance(60)
    complete_one(hospital, is_of_canary=False)
    versions = [hospital.claim().manifest.version for _ in range(4)]
    assert versions == ["1.0.0", "1.0.0", "2.0.0", "2.0.0"]
