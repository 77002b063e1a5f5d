"""Storage commitment that Triage asks of archives."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select

from tests.datasets import ct_slice
from tests.orthanc import Orthanc
from tests.receiver.commitment.conftest import StartCommitting, remote
from tests.receiver.commitment.peers import Archive
from tests.receiver.conftest import port_of, send
from tests.results.archive import scripted_archive
from tests.store.rows import add_model, received
from tests.tools import ManualClock, archive_named, find_free_port, wait_until
from triage.core.commitment import CommitmentState
from triage.core.errors import TriageError
from triage.core.runs import DeliveryState, RunState
from triage.receiver import Receiver
from triage.results.delivery.rounds import deliver_next
from triage.settings import Settings
from triage.store.commitment_questions import claim_question, record_report
from triage.store.commitments import (
    is_committed,
    request_commitment,
    request_commitment_of_delivery,
    uncommitted_instances,
)
from triage.store.database import Database
from triage.store.files import InstanceFiles, StoredFile
from triage.store.model_tables import ModelRow
from triage.store.outbox import (
    NewResultObject,
    add_result_objects,
    claim_due_delivery,
    mark_delivered,
    resend,
)
from triage.store.studies import record_instance
from triage.store.tables import (
    AnalysisRunRow,
    CommitmentRow,
    DeliveryRow,
    SeriesRow,
    StudyEventRow,
    StudyRow,
)

SEG = "1.2.840.10008.5.1.4.1.1.66.4"


def slices(count: int) -> list[Dataset]:
    """Return the slices 1.2.3.1.1, 1.2.3.1.2, …"""
    return [ct_slice("1.2.3", n + 1) for n in range(count)]


def rows(database: Database) -> list[CommitmentRow]:
    """Return all commitments."""
    with database.reading() as session:
        return list(session.scalars(select(CommitmentRow).order_by(CommitmentRow.id)))


def states(database: Database) -> set[CommitmentState]:
    """Return the states that commitments have."""
    return {row.state for row in rows(database)}


def history(database: Database, kind: str) -> list[str]:
    """Return the lines of one kind in the history of all studies."""
    with database.reading() as session:
        return list(session.scalars(select(StudyEventRow.text).where(StudyEventRow.kind == kind)))


Ask = Callable[..., tuple[Receiver, Archive, int]]


@pytest.fixture
def ask(start_committing: StartCommitting, request: pytest.FixtureRequest) -> Ask:
    """A function that has an archive asked for a study of two slices."""

    def start(
        database: Database, archive: Archive, **commitment: object
    ) -> tuple[Receiver, Archive, int]:
        request.addfinalizer(archive.stop)
        receiver = start_committing(
            database,
            *slices(2),
            remotes=(remote("ARCHIVE", archive.port),),
            port=archive.triage_port,
            **commitment,
        )
        with database.transaction() as session:
            study_id = session.scalars(select(StudyRow.id)).one()
            now = session.scalars(select(StudyRow.last_instance_at)).one()
            assert request_commitment(session, study_id, "pacs", now=now) == 2
        return receiver, archive, study_id

    return start


def test_study_is_committed_once_the_archive_has_said_so_on_our_port(
    database: Database, ask: Ask
) -> None:
    archive = Archive(find_free_port())
    archive.listen()
    _, _, study_id = ask(database, archive)
    wait_until(lambda: archive.asked, "the archive is asked")
    with database.reading() as session:
        assert not is_committed(session, study_id)
        assert uncommitted_instances(session, study_id) == ["1.2.3.1.1", "1.2.3.1.2"]
    assert archive.report(archive.asked[0]) == 0x0000
    with database.reading() as session:
        assert is_committed(session, study_id)
        assert is_committed(session, study_id, "pacs")
        assert not is_committed(session, study_id, "other")
        assert uncommitted_instances(session, study_id) == []
    assert history(database, "committed") == ["pacs committed to 2 instances"]
    # The same report again changes nothing.
    assert archive.report(archive.asked[0]) == 0x0000
    assert history(database, "committed") == ["pacs committed to 2 instances"]


def test_report_on_the_association_of_the_request_is_taken(database: Database, ask: Ask) -> None:
    archive = Archive(find_free_port(), reports="same")
    archive.listen()
    ask(database, archive)
    wait_until(lambda: states(database) == {CommitmentState.COMMITTED}, "it is committed")
    wait_until(lambda: archive.answers == [0x0000], "the report is answered")


def test_refused_request_is_made_again_in_a_new_transaction(database: Database, ask: Ask) -> None:
    archive = Archive(find_free_port(), statuses=[0x0110])
    archive.listen()
    ask(database, archive)
    wait_until(lambda: len(archive.asked) == 2, "the archive is asked again")
    first, second = archive.asked
    assert first.TransactionUID != second.TransactionUID
    assert len(second.ReferencedSOPSequence) == 2


def test_archive_that_is_away_is_asked_when_it_is_back(database: Database, ask: Ask) -> None:
    archive = Archive(find_free_port())
    ask(database, archive)
    wait_until(lambda: rows(database)[0].last_error, "an attempt has failed")
    assert "cannot be reached" in rows(database)[0].last_error
    archive.listen()
    wait_until(lambda: archive.asked, "the archive is asked")


def test_archive_without_storage_commitment_is_given_up_with_the_reason(
    database: Database, ask: Ask
) -> None:
    archive = Archive(find_free_port())
    archive.listen(supports_commitment=False)
    _, _, study_id = ask(database, archive)
    wait_until(lambda: states(database) == {CommitmentState.FAILED}, "it is given up")
    assert history(database, "not-committed")[0].endswith("does not accept storage commitment")
    with database.reading() as session:
        assert not is_committed(session, study_id)


def test_missing_report_is_asked_for_again_and_a_late_one_still_counts(
    database: Database, ask: Ask
) -> None:
    archive = Archive(find_free_port())
    archive.listen()
    ask(database, archive, report_timeout_s=0.3)
    wait_until(lambda: len(archive.asked) >= 2, "the archive is asked again")
    assert archive.report(archive.asked[0]) == 0x0000
    assert states(database) == {CommitmentState.COMMITTED}


def test_archive_that_never_reports_is_given_up(database: Database, ask: Ask) -> None:
    archive = Archive(find_free_port())
    archive.listen()
    ask(database, archive, report_timeout_s=0.2, maximum_attempts=2)
    wait_until(lambda: states(database) == {CommitmentState.FAILED}, "it is given up")
    assert rows(database)[0].last_error == "no report after 2 requests"


def test_image_that_is_still_on_its_way_to_the_archive_is_asked_for_again(
    database: Database, ask: Ask
) -> None:
    archive = Archive(find_free_port(), failing={"1.2.3.1.2": 0x0112})
    archive.listen()
    _, _, study_id = ask(database, archive)
    wait_until(lambda: archive.asked, "the archive is asked")
    assert archive.report(archive.asked[0]) == 0x0000
    with database.reading() as session:
        assert uncommitted_instances(session, study_id) == ["1.2.3.1.2"]
    wait_until(lambda: len(archive.asked) == 2, "the archive is asked again")
    (again,) = archive.asked[1].ReferencedSOPSequence
    assert again.ReferencedSOPInstanceUID == "1.2.3.1.2"
    archive.failing = {}
    assert archive.report(archive.asked[1]) == 0x0000
    with database.reading() as session:
        assert is_committed(session, study_id)


def test_image_that_comes_later_makes_the_study_uncommitted(database: Database, ask: Ask) -> None:
    archive = Archive(find_free_port(), reports="same")
    archive.listen()
    receiver, _, study_id = ask(database, archive)
    wait_until(lambda: states(database) == {CommitmentState.COMMITTED}, "it is committed")
    send(receiver, ct_slice("1.2.3", 3))
    with database.transaction() as session:
        assert uncommitted_instances(session, study_id) == ["1.2.3.1.3"]
        now = session.scalars(select(StudyRow.last_instance_at)).one()
        assert request_commitment(session, study_id, "pacs", now=now) == 1


def test_images_of_every_complete_study_are_asked_for_where_configured(
    database: Database, start_committing: StartCommitting, request: pytest.FixtureRequest
) -> None:
    archive = Archive(find_free_port(), reports="same")
    archive.listen()
    request.addfinalizer(archive.stop)
    start_committing(
        database,
        *slices(2),
        remotes=(remote("ARCHIVE", archive.port),),
        port=archive.triage_port,
        sources_at="pacs",
    )
    wait_until(lambda: states(database) == {CommitmentState.COMMITTED}, "it is committed")
    assert len(rows(database)) == 2
    assert history(database, "complete")


def test_images_are_purged_once_the_archive_has_committed_to_them_and_not_before(
    database: Database,
    start_committing: StartCommitting,
    files: InstanceFiles,
    request: pytest.FixtureRequest,
) -> None:
    archive = Archive(find_free_port(), reports="same")
    request.addfinalizer(archive.stop)
    start_committing(
        database,
        *slices(2),
        remotes=(remote("ARCHIVE", archive.port),),
        port=archive.triage_port,
        sources_at="pacs",
        retention={"read_days": 0, "require_commitment": True, "interval_s": 0.1},
    )
    wait_until(lambda: history(database, "complete"), "the study is complete")
    with database.transaction() as session:
        row = session.scalars(select(StudyRow)).one()
        row.read_at = row.completed_at
    # The archive is away: several rounds of the purger pass by.
    wait_until(lambda: rows(database) and rows(database)[0].attempts >= 3, "it was asked in vain")
    assert len(list(files.root.rglob("*.dcm"))) == 2
    archive.listen()
    wait_until(lambda: not list(files.root.rglob("*.dcm")), "the images are deleted")
    assert states(database) == {CommitmentState.COMMITTED}
    assert len(history(database, "purged")) == 1


def test_archive_that_is_not_configured_is_said_at_the_start(
    sqlite_database: Database, start_committing: StartCommitting
) -> None:
    with pytest.raises(TriageError, match=r"commitment\.sources_at names 'pcas'"):
        start_committing(sqlite_database, sources_at="pcas")


@pytest.mark.parametrize(
    ("transaction_uid", "status"), [("2.25.99", 0x0115), ("not a UID", 0x0115)]
)
def test_report_on_an_unknown_transaction_is_refused(
    sqlite_database: Database,
    start_committing: StartCommitting,
    transaction_uid: str,
    status: int,
) -> None:
    receiver = start_committing(sqlite_database)
    asked = Dataset()
    asked.TransactionUID = transaction_uid
    asked.ReferencedSOPSequence = []
    assert Archive(port_of(receiver)).report(asked) == status


def test_orthanc_commits_to_what_it_holds(
    sqlite_database: Database, start_committing: StartCommitting, tmp_path: Path
) -> None:
    port = find_free_port()
    modalities = {"triage": ["TRIAGE", "127.0.0.1", port]}
    orthanc = Orthanc(tmp_path / "orthanc", more={"DicomModalities": modalities}).start()
    try:
        start_committing(
            sqlite_database,
            *slices(2),
            remotes=(remote(orthanc.ae_title, orthanc.dicom_port),),
            port=port,
            first_retry_s=0.5,
        )
        with sqlite_database.transaction() as session:
            study = session.scalars(select(StudyRow)).one()
            request_commitment(session, study.id, "pacs", now=study.last_instance_at)
        wait_until(
            lambda: all(row.failures for row in rows(sqlite_database)),
            "Orthanc has said that it holds nothing of it",
        )
        assert {row.last_error for row in rows(sqlite_database)} <= {
            "0x0112 no such object instance",
            "",
        }
        send_to_orthanc(orthanc, slices(2))
        wait_until(
            lambda: states(sqlite_database) == {CommitmentState.COMMITTED},
            "Orthanc has committed to all of it",
        )
    finally:
        orthanc.kill()


def test_delivered_results_are_asked_for_where_the_destination_says_so(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    outbox = Outbox(sqlite_database, clock)
    files = InstanceFiles(tmp_path / "data")
    segmentation = ct_slice("1.2.3", SOPClassUID=SEG, SOPInstanceUID="1.2.9")
    file = files.absolute("a/b.dcm")
    file.parent.mkdir()
    segmentation.save_as(file, enforce_file_format=True)
    with scripted_archive() as archive:
        asks = archive.settings().model_copy(update={"storage_commitment": True})
        settings = Settings(destinations=(asks,))
        assert deliver_next(sqlite_database, settings, files, clock, lambda: 0.5)
    assert outbox.delivery.state is DeliveryState.DELIVERED
    ((row),) = rows(sqlite_database)
    assert (row.sop_instance_uid, row.archive, row.is_result) == ("1.2.9", "archive", True)


def send_to_orthanc(orthanc: Orthanc, datasets: list[Dataset]) -> None:
    """Store the data sets in Orthanc."""
    from pynetdicom import AE

    entity = AE()
    entity.add_requested_context(datasets[0].SOPClassUID)
    association = entity.associate("127.0.0.1", orthanc.dicom_port, ae_title=orthanc.ae_title)
    assert [association.send_c_store(dataset).Status for dataset in datasets] == [0, 0]
    association.release()


# Results


class Outbox:
    """A SEG that was delivered to "archive", and its commitment."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.database = database
        self.clock = clock
        with database.transaction() as session:
            add_model(session, clock())
            self.study_id = record_instance(session, received(clock())).study_id
            model_id = session.scalars(select(ModelRow.id)).one()
            series_id = session.scalars(select(SeriesRow.id)).one()
            run = AnalysisRunRow(
                study_id=self.study_id,
                model_id=model_id,
                series_id=series_id,
                generation=1,
                state=RunState.COMPLETED,
                available_at=clock(),
                created_at=clock(),
            )
            session.add(run)
            session.flush()
            seg = NewResultObject(
                role="seg",
                file=StoredFile("a/b.dcm", 100, "0" * 64),
                sop_class_uid=SEG,
                sop_instance_uid="1.2.9",
                series_instance_uid="1.2.8",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                modality="SEG",
            )
            add_result_objects(
                session,
                run_id=run.id,
                study_id=self.study_id,
                objects=[seg],
                destinations=[archive_named("archive")],
                now=clock(),
            )

    def deliver(self) -> None:
        """Have the archive take the object."""
        with self.database.transaction() as session:
            due = claim_due_delivery(session, lease=timedelta(seconds=60), now=self.clock())
            assert due is not None
            mark_delivered(session, due, now=self.clock())
            request_commitment_of_delivery(session, due, now=self.clock())

    def report(self, failure: int | None) -> None:
        """Ask the archive, and have it report."""
        with self.database.transaction() as session:
            question = claim_question(
                session,
                new_transaction_uid=lambda: f"2.25.{self.clock().timestamp():.0f}",
                maximum_attempts=20,
                lease=timedelta(seconds=60),
                now=self.clock(),
            )
            assert question is not None
            uids = [one.sop_instance_uid for one in question.references]
            assert uids == ["1.2.9"]
            assert record_report(
                session,
                question.transaction_uid,
                committed=uids if failure is None else [],
                failed={} if failure is None else {uids[0]: failure},
                retry_after=lambda _: timedelta(seconds=1),
                maximum_attempts=20,
                now=self.clock(),
            )
        self.clock.advance(1)

    @property
    def delivery(self) -> DeliveryRow:
        """The only delivery."""
        with self.database.reading() as session:
            return session.scalars(select(DeliveryRow)).one()


@pytest.fixture
def outbox(database: Database, clock: ManualClock) -> Outbox:
    """A SEG that waits for its delivery."""
    return Outbox(database, clock)


def test_committed_result_is_noted_on_its_delivery(outbox: Outbox) -> None:
    outbox.deliver()
    assert outbox.delivery.committed_at is None
    outbox.report(None)
    assert outbox.delivery.state is DeliveryState.DELIVERED
    assert outbox.delivery.committed_at is not None
    assert history(outbox.database, "committed") == ["archive committed to 1 instance"]


def test_result_that_is_not_committed_is_delivered_once_more_and_then_is_a_dead_letter(
    outbox: Outbox,
) -> None:
    outbox.deliver()
    outbox.report(0x0112)
    assert outbox.delivery.state is DeliveryState.WAITING
    assert "0x0112 no such object instance" in outbox.delivery.last_error
    outbox.deliver()
    outbox.report(0x0213)
    assert outbox.delivery.state is DeliveryState.DEAD
    assert "not committed: 0x0213 resource limitation" in outbox.delivery.last_error
    assert len(history(outbox.database, "not-committed")) == 2
    # A person sends it again, and this time the archive commits.
    with outbox.database.transaction() as session:
        resend(session, outbox.delivery.id, now=outbox.clock())
    outbox.deliver()
    outbox.report(None)
    assert outbox.delivery.committed_at is not None


def test_result_that_is_delivered_again_is_committed_in_the_end(outbox: Outbox) -> None:
    outbox.deliver()
    outbox.report(0x0110)
    outbox.deliver()
    outbox.report(None)
    assert outbox.delivery.state is DeliveryState.DELIVERED
    assert outbox.delivery.committed_at is not None
    assert states(outbox.database) == {CommitmentState.COMMITTED}


def test_results_do_not_count_as_uncommitted_sources(outbox: Outbox) -> None:
    with outbox.database.reading() as session:
        assert uncommitted_instances(session, outbox.study_id) == ["1.2.3.1.1"]
    with outbox.database.transaction() as session:
        assert request_commitment(session, outbox.study_id, "pacs", now=outbox.clock()) == 1


def test_study_without_images_is_not_committed(database: Database) -> None:
    with database.reading() as session:
        assert not is_committed(session, 12345)


def test_request_that_a_killed_receiver_left_is_made_again(outbox: Outbox) -> None:
    outbox.deliver()
    question = {
        "new_transaction_uid": lambda: f"2.25.{outbox.clock().timestamp():.0f}",
        "maximum_attempts": 20,
        "lease": timedelta(seconds=60),
    }
    with outbox.database.transaction() as session:
        assert claim_question(session, now=outbox.clock(), **question) is not None
    with outbox.database.transaction() as session:
        assert claim_question(session, now=outbox.clock(), **question) is None
    outbox.clock.advance(61)
    with outbox.database.transaction() as session:
        assert claim_question(session, now=outbox.clock(), **question) is not None
