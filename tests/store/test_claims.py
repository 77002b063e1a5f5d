"""Who reads what: claims that are made, renewed, run out, taken over and ended."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from tests.tools import ManualClock
from tests.web.hospital import Hospital
from triage.core.workitems import StepState, UpsStatus
from triage.store.claims import (
    AlreadyReadError,
    Claim,
    ClaimedByAnotherError,
    ClaimError,
    claim_study,
    claims_on,
    release_study,
    renew_claim,
)
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.study_workitems import schedule_reading
from triage.store.tables import StudyEventRow, StudyRow
from triage.store.workitem_tables import WorkitemRow
from triage.store.workitems import change_state
from triage.worklist.reading import locked_study, mark_as_read

LEASE = timedelta(minutes=15)


@pytest.fixture
def hospital(database: Database, files: InstanceFiles, clock: ManualClock) -> Hospital:
    """A hospital without studies, on SQLite and on PostgreSQL in turn."""
    return Hospital(database, files, clock)


def study_to_read(hospital: Hospital) -> int:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    hospital.complete(uid)
    with hospital.database.reading() as session:
        return session.scalars(select(StudyRow.id).where(StudyRow.study_instance_uid == uid)).one()


def locked(session: Session, study_id: int) -> StudyRow:
    return locked_study(session, session.get_one(StudyRow, study_id).study_instance_uid)


def claim(hospital: Hospital, study_id: int, who: str, because: str = "") -> Claim:
    with hospital.database.transaction() as session:
        return claim_study(
            session,
            locked(session, study_id),
            who,
            now=hospital.clock(),
            lease=LEASE,
            take_over_because=because,
        )


def reader(hospital: Hospital, study_id: int) -> str:
    with hospital.database.reading() as session:
        held = claims_on(session, [study_id], hospital.clock()).get(study_id)
    return held.who if held else ""


def history(hospital: Hospital, study_id: int) -> list[tuple[str, str]]:
    with hospital.database.reading() as session:
        rows = session.execute(
            select(StudyEventRow.kind, StudyEventRow.text)
            .where(StudyEventRow.study_id == study_id)
            .where(StudyEventRow.kind.in_(["claimed", "released", "read"]))
            .order_by(StudyEventRow.id)
        )
        return [(kind, text) for kind, text in rows]


def test_claim_holds_until_it_runs_out(hospital: Hospital) -> None:
    study_id = study_to_read(hospital)
    claim(hospital, study_id, "ada")
    hospital.clock.advance(899)
    assert reader(hospital, study_id) == "ada"
    hospital.clock.advance(2)
    assert reader(hospital, study_id) == ""
    claim(hospital, study_id, "grace")  # free for anybody, without a word
    assert reader(hospital, study_id) == "grace"


def test_claim_is_renewed_by_its_holder_alone_and_is_no_event(hospital: Hospital) -> None:
    study_id = study_to_read(hospital)
    claim(hospital, study_id, "ada")
    hospital.clock.advance(600)
    with hospital.database.transaction() as session:
        now = hospital.clock()
        assert renew_claim(session, study_id, "grace", now=now, lease=LEASE) is None
        held = renew_claim(session, study_id, "ada", now=now, lease=LEASE)
    assert held is not None
    assert held.until == now + LEASE
    assert history(hospital, study_id) == [("claimed", "ada is reading it")]


def test_claim_of_another_is_taken_over_only_with_a_word(hospital: Hospital) -> None:
    study_id = study_to_read(hospital)
    claim(hospital, study_id, "ada")
    with pytest.raises(ClaimedByAnotherError, match="ada is reading this study since"):
        claim(hospital, study_id, "grace", " ")
    assert reader(hospital, study_id) == "ada"
    claim(hospital, study_id, "grace", "ada went home")
    assert reader(hospital, study_id) == "grace"
    assert history(hospital, study_id)[-1] == (
        "claimed",
        "grace is reading it, taken over from ada: ada went home",
    )


def test_reading_ends_the_claim_and_a_read_study_cannot_be_claimed(hospital: Hospital) -> None:
    study_id = study_to_read(hospital)
    claim(hospital, study_id, "ada")
    with hospital.database.transaction() as session:
        mark_as_read(
            session,
            session.get_one(StudyRow, study_id).study_instance_uid,
            now=hospital.clock(),
        )
    assert reader(hospital, study_id) == ""
    with pytest.raises(AlreadyReadError, match="put it back"):
        claim(hospital, study_id, "ada")


def test_release_is_for_the_holder(hospital: Hospital) -> None:
    study_id = study_to_read(hospital)
    claim(hospital, study_id, "ada")
    with hospital.database.transaction() as session:
        assert not release_study(session, study_id, "grace", hospital.clock())
        assert release_study(session, study_id, "ada", hospital.clock())
        assert not release_study(session, study_id, "ada", hospital.clock())
    assert reader(hospital, study_id) == ""


def change(hospital: Hospital, study_id: int, state: StepState) -> UpsStatus:
    with hospital.database.transaction() as session:
        uid = session.scalars(
            select(WorkitemRow.sop_instance_uid).where(WorkitemRow.study_id == study_id)
        ).one()
        return change_state(
            session,
            uid,
            state,
            transaction_uid="1.2.3",
            requester="WORKSTATION",
            now=hospital.clock(),
        )


def test_performer_of_the_workitem_is_the_reader_for_as_long_as_it_lasts(
    hospital: Hospital,
) -> None:
    study_id = study_to_read(hospital)
    claim(hospital, study_id, "ada")
    change(hospital, study_id, StepState.IN_PROGRESS)
    hospital.clock.advance(86400)
    assert reader(hospital, study_id) == "WORKSTATION"
    with hospital.database.transaction() as session, pytest.raises(ClaimError, match="workitem"):
        release_study(session, study_id, "WORKSTATION", hospital.clock())
    change(hospital, study_id, StepState.CANCELED)
    assert reader(hospital, study_id) == ""
    assert [text for _, text in history(hospital, study_id)] == [
        "ada is reading it",
        "WORKSTATION claimed its workitem, taken over from ada",
        "WORKSTATION ended its workitem",
    ]


def test_whoever_took_the_study_over_keeps_it_when_the_workitem_ends(hospital: Hospital) -> None:
    study_id = study_to_read(hospital)
    change(hospital, study_id, StepState.IN_PROGRESS)
    claim(hospital, study_id, "ada", "the workstation crashed")
    change(hospital, study_id, StepState.CANCELED)
    assert reader(hospital, study_id) == "ada"
    with hospital.database.transaction() as session:  # the next workitem does not change that
        study = locked(session, study_id)
        assert schedule_reading(session, study, hospital.clock())
    assert reader(hospital, study_id) == "ada"
