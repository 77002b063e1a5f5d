"""Modalities and archives announce images: MPPS and Instance Availability Notification, as SCUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from sqlalchemy import select

from tests.datasets import ct_slice
from tests.receiver.conftest import StartReceiver, associate, port_of, send
from tests.tools import wait_until
from triage.core.runs import StudyState
from triage.receiver import Receiver
from triage.store.database import Database
from triage.store.tables import ArrivalSignalRow, ExpectedInstanceRow, StudyEventRow, StudyRow

MPPS = "1.2.840.10008.3.1.2.3.3"
NOTIFICATION = "1.2.840.10008.5.1.4.33"
NEVER_QUIET = {"quiet_period_s": 600, "quiet_period_by_modality_s": {}}


@contextmanager
def announcing(receiver: Receiver) -> Iterator[Association]:
    """Give an association of a modality or an archive."""
    entity = AE(ae_title="CT1")
    entity.add_requested_context(MPPS)
    entity.add_requested_context(NOTIFICATION)
    association = entity.associate("127.0.0.1", port_of(receiver), ae_title="TRIAGE")
    assert association.is_established
    assert len(association.accepted_contexts) == 2
    yield association
    association.release()


def item(**attributes: object) -> Dataset:
    """Return a data set with these attributes; None is an empty value."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def beginning(*studies: str, status: str = "IN PROGRESS") -> Dataset:
    """Return a step as modalities create it, the patient's data included (PS3.4 table F.7.2-1)."""
    steps = [
        item(
            StudyInstanceUID=study,
            ReferencedStudySequence=[],
            AccessionNumber="A1",
            RequestedProcedureID="RP1",
        )
        for study in studies
    ]
    return item(
        ScheduledStepAttributesSequence=steps,
        PatientName="Doe^Jane",
        PatientID="P1",
        PatientBirthDate="19700101",
        PerformedProcedureStepID="PPS1",
        PerformedStationAETitle="CT1",
        PerformedProcedureStepStartDate="20260301",
        PerformedProcedureStepStartTime="120000",
        PerformedProcedureStepStatus=status,
        Modality="CT",
        PerformedSeriesSequence=[],
    )


def ending(*images: Dataset, status: str = "COMPLETED") -> Dataset:
    """Return the modifications that end a step which has made `images`."""
    series = {image.SeriesInstanceUID for image in images}
    return item(
        PerformedProcedureStepStatus=status,
        PerformedProcedureStepEndDate="20260301",
        PerformedProcedureStepEndTime="121000",
        PerformedSeriesSequence=[
            item(
                SeriesInstanceUID=uid,
                PerformingPhysicianName=None,
                ProtocolName="Head",
                RetrieveAETitle="PACS",
                ReferencedImageSequence=[
                    item(
                        ReferencedSOPClassUID=image.SOPClassUID,
                        ReferencedSOPInstanceUID=image.SOPInstanceUID,
                    )
                    for image in images
                    if image.SeriesInstanceUID == uid
                ],
                ReferencedNonImageCompositeSOPInstanceSequence=[],
            )
            for uid in sorted(series)
        ],
    )


def notification(*images: Dataset, availability: str = "ONLINE") -> Dataset:
    """Return a notification that these images can be fetched (PS3.3 table C.4-23)."""
    return item(
        ReferencedPerformedProcedureStepSequence=[],
        StudyInstanceUID=images[0].StudyInstanceUID,
        ReferencedSeriesSequence=[
            item(
                SeriesInstanceUID=images[0].SeriesInstanceUID,
                ReferencedSOPSequence=[
                    item(
                        ReferencedSOPClassUID=image.SOPClassUID,
                        ReferencedSOPInstanceUID=image.SOPInstanceUID,
                        InstanceAvailability=availability,
                        RetrieveAETitle="PACS",
                    )
                    for image in images
                ],
            )
        ],
    )


def the_study(database: Database) -> StudyRow | None:
    """Return the one study, if it is there."""
    with database.reading() as session:
        return session.scalars(select(StudyRow)).one_or_none()


def is_complete(database: Database) -> bool:
    """Return whether the one study is complete."""
    found = the_study(database)
    return found is not None and found.state is StudyState.COMPLETE


def expected(database: Database) -> int:
    """Return how many instances are announced."""
    with database.reading() as session:
        return len(session.scalars(select(ExpectedInstanceRow.id)).all())


def test_completed_step_completes_the_study_though_its_association_stays_open(
    database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(database, **NEVER_QUIET)
    study, step = generate_uid(), generate_uid()
    slices = [ct_slice(study, number=n) for n in range(1, 4)]
    with announcing(receiver) as modality:
        status, _ = modality.send_n_create(beginning(study), MPPS, step)
        assert status.Status == 0x0000
        storing = associate(receiver, *slices)
        assert {storing.send_c_store(one).Status for one in slices} == {0x0000}
        status, _ = modality.send_n_set(ending(*slices), MPPS, step)
        assert status.Status == 0x0000
    wait_until(lambda: is_complete(database), "the study is complete")
    found = the_study(database)
    assert found is not None
    assert found.completion_reason == "all 3 images are here (MPPS)"
    storing.release()
    with database.reading() as session:
        kinds = list(session.scalars(select(StudyEventRow.kind).order_by(StudyEventRow.id)))
    assert kinds == ["received", "announced", "complete"]


def test_step_that_ends_before_its_images_come_completes_the_study_with_the_last(
    database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(database, **NEVER_QUIET)
    study, step = generate_uid(), generate_uid()
    slices = [ct_slice(study, number=n) for n in range(1, 4)]
    with announcing(receiver) as modality:
        assert modality.send_n_create(beginning(study), MPPS, step)[0].Status == 0x0000
        assert modality.send_n_set(ending(*slices), MPPS, step)[0].Status == 0x0000
    send(receiver, *slices[:2])
    assert not is_complete(database)
    send(receiver, slices[2])
    wait_until(lambda: is_complete(database), "the study is complete")


def test_late_image_reopens_a_study_that_its_step_had_completed(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database)
    study, step = generate_uid(), generate_uid()
    first, late = ct_slice(study), ct_slice(study, number=2)
    with announcing(receiver) as modality:
        modality.send_n_create(beginning(study), MPPS, step)
        modality.send_n_set(ending(first), MPPS, step)
    send(receiver, first)
    wait_until(lambda: is_complete(sqlite_database), "the study is complete")
    send(receiver, late)

    def generation() -> int:
        found = the_study(sqlite_database)
        return 0 if found is None or not is_complete(sqlite_database) else found.generation

    wait_until(lambda: generation() == 2, "the study is complete again")


def test_state_of_a_step_is_kept_by_the_rules_of_the_standard(
    database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(database)
    step = generate_uid()
    with announcing(receiver) as modality:
        unknown, _ = modality.send_n_set(ending(), MPPS, step)
        assert unknown.Status == 0x0112
        premature, _ = modality.send_n_create(beginning("1.2", status="COMPLETED"), MPPS, step)
        assert premature.Status == 0x0106
        assert modality.send_n_create(beginning("1.2"), MPPS, step)[0].Status == 0x0000
        again, _ = modality.send_n_create(beginning("1.2"), MPPS, step)
        assert again.Status == 0x0111
        going_on = item(PerformedSeriesSequence=ending(ct_slice("1.2")).PerformedSeriesSequence)
        assert modality.send_n_set(going_on, MPPS, step)[0].Status == 0x0000
        assert modality.send_n_set(ending(status="WHATEVER"), MPPS, step)[0].Status == 0x0106
        assert modality.send_n_set(ending(status="DISCONTINUED"), MPPS, step)[0].Status == 0x0000
        final, _ = modality.send_n_set(ending(), MPPS, step)
        assert final.Status == 0x0110
        assert final.ErrorID == 0xA710
        assert final.ErrorComment == "Performed Procedure Step Object may no longer be updated"
    with database.reading() as session:
        assert list(session.scalars(select(ArrivalSignalRow.state))) == ["DISCONTINUED"]


@pytest.mark.parametrize(
    ("missing", "status"),
    [
        ("ScheduledStepAttributesSequence", 0x0120),
        ("PerformedProcedureStepStatus", 0x0120),
    ],
)
def test_step_without_what_it_needs_is_refused(
    sqlite_database: Database, start_receiver: StartReceiver, missing: str, status: int
) -> None:
    receiver = start_receiver(sqlite_database)
    step = beginning("1.2")
    delattr(step, missing)
    with announcing(receiver) as modality:
        answer, _ = modality.send_n_create(step, MPPS, generate_uid())
    assert answer.Status == status
    assert missing in answer.ErrorComment


def test_step_is_there_after_a_restart(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    first = start_receiver(sqlite_database)
    study, step = generate_uid(), generate_uid()
    one = ct_slice(study)
    with announcing(first) as modality:
        modality.send_n_create(beginning(study), MPPS, step)
    first.stop()
    second = start_receiver(sqlite_database, **NEVER_QUIET)
    with announcing(second) as modality:
        assert modality.send_n_set(ending(one), MPPS, step)[0].Status == 0x0000
    send(second, one)
    wait_until(lambda: is_complete(sqlite_database), "the study is complete")


def test_available_instances_complete_the_study(
    database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(database, **NEVER_QUIET)
    study = generate_uid()
    slices = [ct_slice(study, number=n) for n in range(1, 4)]
    send(receiver, *slices)
    with announcing(receiver) as archive:
        status, _ = archive.send_n_create(notification(*slices), NOTIFICATION, generate_uid())
        assert status.Status == 0x0000
    wait_until(lambda: is_complete(database), "the study is complete")
    found = the_study(database)
    assert found is not None
    assert found.completion_reason == ("all 3 images are here (Instance Availability Notification)")


def test_notification_gets_a_uid_where_it_has_none_and_is_refused_when_it_comes_twice(
    database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(database)
    one, uid = ct_slice(), generate_uid()
    with announcing(receiver) as archive:
        status, _ = archive.send_n_create(notification(one), NOTIFICATION)
        assert status.Status == 0x0000
        assert archive.send_n_create(notification(one), NOTIFICATION, uid)[0].Status == 0x0000
        assert archive.send_n_create(notification(one), NOTIFICATION, uid)[0].Status == 0x0111
        incomplete = item(StudyInstanceUID="1.2", ReferencedSeriesSequence=[])
        assert archive.send_n_create(incomplete, NOTIFICATION)[0].Status == 0x0120
    assert expected(database) == 1  # of one instance, the newest counts


def test_instances_out_of_reach_are_not_waited_for(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database)
    here, away = ct_slice("1.2.3"), ct_slice("1.2.3", number=2)
    with announcing(receiver) as archive:
        archive.send_n_create(notification(here), NOTIFICATION)
        archive.send_n_create(notification(away, availability="UNAVAILABLE"), NOTIFICATION)
    send(receiver, here)
    wait_until(lambda: is_complete(sqlite_database), "the study is complete")
    found = the_study(sqlite_database)
    assert found is not None
    assert found.completion_reason == "association released and no image for 0.2 s"


def test_no_patient_data_of_a_step_is_kept(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database)
    with announcing(receiver) as modality:
        modality.send_n_create(beginning("1.2.3"), MPPS, generate_uid())
    with sqlite_database.reading() as session:
        [row] = session.scalars(select(ArrivalSignalRow)).all()
    assert "Doe" not in repr(vars(row))
    assert "19700101" not in repr(vars(row))
