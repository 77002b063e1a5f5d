"""Workstations work the reading worklist over DICOM (DICOM PS3.4 annex CC)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from sqlalchemy import select

from tests.datasets import ct_slice
from tests.receiver.conftest import StartReceiver, receiver_settings, send
from tests.receiver.ups.workstation import (
    EVERYTHING,
    WHAT_MATCHES,
    Workstation,
    code,
    creation,
    item,
    performed,
)
from tests.tools import wait_until
from triage.core.priority import Priority
from triage.core.runs import StudyState
from triage.receiver import Receiver
from triage.receiver.ups.events import UpsEvents
from triage.store.clock import system_clock
from triage.store.database import Database
from triage.store.prioritising import raise_ai_priority
from triage.store.tables import StudyRow
from triage.store.workitem_tables import EventState, WorkitemEventRow

CLAIM = "1.2.3.4.5"


@pytest.fixture
def workstation() -> Iterator[Workstation]:
    one = Workstation()
    yield one
    one.stop()


@pytest.fixture
def receiver(
    start_receiver: StartReceiver, sqlite_database: Database, workstation: Workstation
) -> Receiver:
    return start_receiver(sqlite_database, remotes=(workstation.as_remote(),))


@pytest.fixture
def start_events(
    sqlite_database: Database, workstation: Workstation, tmp_path: Any
) -> Iterator[Callable[..., UpsEvents]]:
    started: list[UpsEvents] = []

    def start(**ups: Any) -> UpsEvents:
        settings = receiver_settings(
            tmp_path / "data", remotes=(workstation.as_remote(),), sections={"ups": ups}
        )
        started.append(UpsEvents(settings, sqlite_database, system_clock, "TRIAGE@here"))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()


def complete_study(receiver: Receiver, database: Database, *images: Dataset) -> None:
    """Send images and wait until their study is complete."""
    assert [status.Status for status in send(receiver, *images)] == [0] * len(images)

    def is_complete() -> bool:
        with database.reading() as session:
            return session.scalars(select(StudyRow.state)).all() == [StudyState.COMPLETE]

    wait_until(is_complete, "the study is complete")


def test_a_study_is_found_claimed_read_and_completed(
    receiver: Receiver, sqlite_database: Database, workstation: Workstation
) -> None:
    images = [ct_slice("1.2.3.4", number=n) for n in (1, 2)]
    for image in images:
        image.SpecificCharacterSet = "ISO_IR 100"
        image.PatientName = "Müller^Änne"
    complete_study(receiver, sqlite_database, *images)
    with workstation.at(receiver) as ups:
        (found,) = ups.find(
            ProcedureStepState="SCHEDULED",
            PatientName="müll*",
            ScheduledWorkitemCodeSequence=[item(CodeValue="110005", CodingSchemeDesignator=None)],
            ScheduledProcedureStepPriority=None,
            ProcedureStepLabel=None,
            ReferencedRequestSequence=[],
            ScheduledStationNameCodeSequence=[],
        )
        uid = found.SOPInstanceUID
        assert found.ScheduledProcedureStepPriority == "MEDIUM"
        assert str(found.PatientName) == "Müller^Änne"
        assert "TransactionUID" not in found
        assert ups.change_state(uid, "IN PROGRESS", CLAIM) == 0x0000
        shown = ups.get(uid)
        (series,) = shown.InputInformationSequence
        assert len(series.ReferencedSOPSequence) == 2
        assert series.DICOMRetrievalSequence[0].RetrieveAETitle == "TRIAGE"
        assert shown.ReferencedRequestSequence[0].StudyInstanceUID == images[0].StudyInstanceUID
        assert "TransactionUID" not in shown
        assert ups.change_state(uid, "COMPLETED", CLAIM) == 0xC304
        assert ups.set(uid, performed(CLAIM)) == 0x0000
        assert ups.change_state(uid, "COMPLETED", CLAIM) == 0x0000
        only = ups.get(uid, Tag("ProcedureStepState"))
        assert [element.keyword for element in only] == ["ProcedureStepState"]
        assert only.ProcedureStepState == "COMPLETED"
    with sqlite_database.reading() as session:
        assert session.scalars(select(StudyRow.read_at)).one() is not None


def test_statuses_of_the_state_machine(
    receiver: Receiver, sqlite_database: Database, workstation: Workstation
) -> None:
    with workstation.at(receiver) as ups:
        status, uid = ups.create(creation())
        assert status == 0xB300
        assert ups.create(creation(), uid)[0] == 0x0111
        assert ups.create(creation(ProcedureStepState="COMPLETED"))[0] == 0xC309
        assert ups.create(creation(ProcedureStepLabel=None))[0] == 0x0121
        without_priority = creation()
        del without_priority.ScheduledProcedureStepPriority
        assert ups.create(without_priority)[0] == 0x0120
        assert ups.change_state("1.2.3", "IN PROGRESS", CLAIM) == 0xC307
        assert ups.get("1.2.3").Status == 0xC307
        assert ups.change_state(uid, "SCHEDULED", CLAIM) == 0xC303
        assert ups.change_state(uid, "COMPLETED", CLAIM) == 0xC310
        assert ups.set(uid, item(TransactionUID=CLAIM, ProcedureStepLabel="x")) == 0xC310
        assert ups.change_state(uid, "IN PROGRESS", "") == 0xC301
        assert ups.change_state(uid, "IN PROGRESS", CLAIM) == 0x0000
        assert ups.change_state(uid, "IN PROGRESS", CLAIM) == 0xC302
        assert ups.change_state(uid, "IN PROGRESS", "1.9") == 0xC301
        assert ups.set(uid, item(ProcedureStepLabel="x")) == 0xC301
        assert ups.set(uid, item(TransactionUID=CLAIM, ProcedureStepState="COMPLETED")) == 0x0106
        assert ups.act(uid, 2, item(ReasonForCancellation="twice")) == 0xC312
        assert ups.change_state(uid, "CANCELED", CLAIM) == 0x0000
        assert ups.change_state(uid, "CANCELED", CLAIM) == 0xB304
        assert ups.set(uid, item(TransactionUID=CLAIM, ProcedureStepLabel="x")) == 0xC300
        assert ups.act(uid, 2, item(ReasonForCancellation="twice")) == 0xB304
        assert ups.act(uid, 9, item(ReasonForCancellation="twice")) == 0x0123
        assert ups.subscribe(uid, "STRANGER") == 0xC308
        assert ups.act(uid, 5, item(ReceivingAE="READER")) == 0xC314
        assert ups.act(EVERYTHING, 3, item(ReceivingAE="READER")) == 0x0115


def test_of_workstations_that_claim_at_once_one_wins(
    receiver: Receiver, sqlite_database: Database, workstation: Workstation
) -> None:
    with workstation.at(receiver) as ups:
        _, uid = ups.create(creation())

    def claim(number: int) -> int:
        with Workstation(ae_title=f"READER{number}").at(receiver) as ups:
            return ups.change_state(uid, "IN PROGRESS", f"1.9.{number}")

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(claim, range(4))) == [0x0000, 0xC301, 0xC301, 0xC301]


def test_raised_priority_reaches_a_subscriber_as_an_event(
    receiver: Receiver,
    sqlite_database: Database,
    workstation: Workstation,
    start_events: Callable[..., UpsEvents],
) -> None:
    workstation.listen()
    with workstation.at(receiver) as ups:
        assert ups.subscribe(EVERYTHING) == 0x0000
    start_events()
    complete_study(receiver, sqlite_database, ct_slice())
    with sqlite_database.transaction() as session:
        study_id = session.scalars(select(StudyRow.id)).one()
        raise_ai_priority(session, study_id, Priority.STAT, "Hemorrhage", at=system_clock())
    wait_until(lambda: len(workstation.told) == 3, "the workstation was told")
    restart, scheduled, raised = workstation.told
    assert (restart[0], restart[1], restart[2].SCPStatus) == (4, EVERYTHING, "RESTARTED")
    assert scheduled[0] == raised[0] == 1
    assert scheduled[2].ScheduledProcedureStepPriority == "MEDIUM"
    assert raised[2].ScheduledProcedureStepPriority == "HIGH"
    assert raised[2].ProcedureStepState == "SCHEDULED"
    assert raised[2].InputReadinessState == "READY"
    with workstation.at(receiver) as ups:
        assert ups.get(raised[1]).CommentsOnTheScheduledProcedureStep == "STAT: Hemorrhage"


def test_subscriber_that_is_away_is_told_when_it_is_back(
    receiver: Receiver,
    sqlite_database: Database,
    workstation: Workstation,
    start_events: Callable[..., UpsEvents],
) -> None:
    start_events(first_retry_s=0.1, longest_retry_s=0.1, maximum_attempts=1000)
    with workstation.at(receiver) as ups:
        _, uid = ups.create(creation())
        assert ups.subscribe(uid) == 0x0000

        def was_tried() -> bool:
            with sqlite_database.reading() as session:
                return bool(session.scalars(select(WorkitemEventRow.last_error)).one())

        wait_until(was_tried, "the workstation was called in vain")
        assert ups.change_state(uid, "IN PROGRESS", CLAIM) == 0x0000
        progress = item(ProcedureStepProgress="50")
        changes = item(
            TransactionUID=CLAIM,
            ProcedureStepProgressInformationSequence=[progress],
            ScheduledStationNameCodeSequence=[code("WS1", "99HOSP", "Workstation 1")],
        )
        assert ups.set(uid, changes) == 0x0000
        assert ups.act(uid, 2, item(ReasonForCancellation="ordered twice")) == 0x0000
    workstation.listen()
    wait_until(lambda: len(workstation.told) == 5, "the workstation was told everything")
    assert [told[0] for told in workstation.told] == [1, 1, 3, 5, 2]
    assert [told[2].get("ProcedureStepState") for told in workstation.told[:2]] == [
        "SCHEDULED",
        "IN PROGRESS",
    ]
    assert workstation.told[4][2].RequestingAE == "READER"
    assert workstation.told[4][2].ReasonForCancellation == "ordered twice"


def test_subscriber_that_never_comes_back_is_given_up(
    receiver: Receiver,
    sqlite_database: Database,
    workstation: Workstation,
    start_events: Callable[..., UpsEvents],
) -> None:
    start_events(first_retry_s=0.05, longest_retry_s=0.05, maximum_attempts=2)
    with workstation.at(receiver) as ups:
        _, uid = ups.create(creation())
        assert ups.subscribe(uid) == 0x0000

    def is_given_up() -> bool:
        with sqlite_database.reading() as session:
            return session.scalars(select(WorkitemEventRow.state)).one() is EventState.DEAD

    wait_until(is_given_up, "the event is given up")


def test_filtered_subscription_is_only_told_of_what_matches(
    receiver: Receiver,
    sqlite_database: Database,
    workstation: Workstation,
    start_events: Callable[..., UpsEvents],
) -> None:
    workstation.listen()
    start_events()
    with workstation.at(receiver) as ups:
        filtered = {"ScheduledProcedureStepPriority": "HIGH"}
        assert ups.subscribe(WHAT_MATCHES, lock="TRUE", **filtered) == 0x0000
        ups.create(creation())
        _, urgent = ups.create(creation(ScheduledProcedureStepPriority="HIGH"))
        wait_until(lambda: len(workstation.told) == 1, "the workstation was told")
        assert workstation.told[0][1] == urgent
        wrong = {"ScheduledProcedureStepStartDateTime": "yesterday"}
        assert ups.subscribe(WHAT_MATCHES, **wrong) == 0x0115
        assert ups.act(EVERYTHING, 4, item(ReceivingAE="READER")) == 0x0000


def test_stranger_may_neither_search_nor_claim(
    start_receiver: StartReceiver, sqlite_database: Database, workstation: Workstation
) -> None:
    receiver = start_receiver(
        sqlite_database, settings={"ups": {"allowed_calling_ae_titles": ("OTHER",)}}
    )
    with workstation.at(receiver) as ups:
        assert ups.create(creation())[0] == 0x0124
        assert ups.change_state("1.2.3", "IN PROGRESS", CLAIM) == 0x0124
        responses = list(
            ups.association.send_c_find(item(ProcedureStepState=None), "1.2.840.10008.5.1.4.34.6.5")
        )
        assert [status.Status for status, _ in responses] == [0x0124]
