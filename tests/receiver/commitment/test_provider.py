"""Storage commitment that senders ask Triage for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from tests.datasets import ct_slice
from tests.orthanc import Orthanc
from tests.receiver.commitment.conftest import StartCommitting, remote
from tests.receiver.commitment.peers import WELL_KNOWN, Modality, information
from tests.receiver.conftest import port_of, send
from tests.tools import find_free_port, wait_until
from triage.core.commitment import ReportState
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.tables import CommitmentRequestRow, InstanceRow

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def modality() -> Iterator[Modality]:
    """A sender that listens on its own port."""
    one = Modality()
    one.listen()
    yield one
    one.stop()


def slices(count: int) -> list[Dataset]:
    """Return the slices 1.2.3.1.1, 1.2.3.1.2, …"""
    return [ct_slice("1.2.3", n + 1) for n in range(count)]


def references(*numbers: int, sop_class_uid: str = CT) -> list[tuple[str, str]]:
    """Return references to slices by their number."""
    return [(sop_class_uid, f"1.2.3.1.{n}") for n in numbers]


def request_of(database: Database) -> CommitmentRequestRow:
    """Return the only request."""
    with database.reading() as session:
        return session.scalars(select(CommitmentRequestRow)).one()


def committed(report: Dataset) -> list[str]:
    """Return the SOP Instance UIDs that a report commits to."""
    return [str(one.ReferencedSOPInstanceUID) for one in report.get("ReferencedSOPSequence") or ()]


def reasons(report: Dataset) -> dict[str, int]:
    """Return the failure reasons of a report."""
    return {
        str(one.ReferencedSOPInstanceUID): int(one.FailureReason)
        for one in report.get("FailedSOPSequence") or ()
    }


def test_report_comes_on_the_association_of_the_request_while_it_is_open(
    database: Database, start_committing: StartCommitting, modality: Modality
) -> None:
    receiver = start_committing(database, *slices(2))
    association = modality.associate(port_of(receiver))
    answer = modality.ask(association, information("2.25.1", references(1, 2)))
    assert answer.Status == 0x0000
    wait_until(lambda: modality.reports, "the report has come")
    # The association goes on serving.
    assert association.send_c_echo().Status == 0x0000
    association.release()
    ((event_type, report),) = modality.reports
    assert (event_type, modality.places) == (1, ["same"])
    assert (report.TransactionUID, report.RetrieveAETitle) == ("2.25.1", "TRIAGE")
    assert committed(report) == ["1.2.3.1.1", "1.2.3.1.2"]
    assert "FailedSOPSequence" not in report
    wait_until(
        lambda: request_of(database).state is ReportState.REPORTED, "the report is noted as taken"
    )


def test_report_comes_on_a_new_association_after_the_sender_has_released(
    database: Database, start_committing: StartCommitting, modality: Modality
) -> None:
    receiver = start_committing(database, *slices(1), remotes=(remote("MODALITY", modality.port),))
    association = modality.associate(port_of(receiver))
    assert modality.ask(association, information("2.25.1", references(1))).Status == 0x0000
    association.release()
    wait_until(lambda: modality.reports, "the report has come")
    assert modality.places == ["new"]
    assert modality.roles == [(False, True)]
    assert committed(modality.reports[0][1]) == ["1.2.3.1.1"]


def test_requests_in_a_row_on_one_association_are_all_answered_and_reported(
    sqlite_database: Database, start_committing: StartCommitting, modality: Modality
) -> None:
    receiver = start_committing(sqlite_database, *slices(3), same_association_s=0.01)
    association = modality.associate(port_of(receiver))
    asked = [information(f"2.25.{n + 1}", references(1 + n % 3)) for n in range(20)]
    assert modality.ask_in_a_row(association, asked) == [0x0000] * 20
    wait_until(lambda: len(modality.reports) == 20, "all reports have come")
    association.release()
    assert {str(report.TransactionUID) for _, report in modality.reports} == {
        f"2.25.{n + 1}" for n in range(20)
    }


def test_only_what_is_on_disk_and_whole_is_committed_to(
    database: Database,
    start_committing: StartCommitting,
    files: InstanceFiles,
    modality: Modality,
) -> None:
    receiver = start_committing(database, *slices(4))
    send(receiver, ct_slice("1.2.3", 4, PixelData=bytes(32)))  # a conflicting duplicate
    with database.reading() as session:
        rows = session.scalars(select(InstanceRow).order_by(InstanceRow.id)).all()
    files.absolute(rows[1].path).unlink()
    with files.absolute(rows[2].path).open("r+b") as file:
        file.truncate(100)
    association = modality.associate(port_of(receiver))
    asked = [*references(1, 2, 3, 4), *references(9), (MR, "1.2.3.1.1")]
    assert modality.ask(association, information("2.25.1", asked)).Status == 0x0000
    wait_until(lambda: modality.reports, "the report has come")
    association.release()
    ((event_type, report),) = modality.reports
    assert event_type == 2
    assert committed(report) == ["1.2.3.1.1", "1.2.3.1.4"]
    assert reasons(report) == {
        "1.2.3.1.2": 0x0112,
        "1.2.3.1.3": 0x0110,
        "1.2.3.1.9": 0x0112,
        "1.2.3.1.1": 0x0119,
    }


def test_report_is_repeated_until_the_sender_takes_it(
    database: Database, start_committing: StartCommitting, modality: Modality
) -> None:
    modality.statuses = [0x0110, 0x0213]
    receiver = start_committing(database, *slices(1), remotes=(remote("MODALITY", modality.port),))
    association = modality.associate(port_of(receiver))
    modality.ask(association, information("2.25.1", references(1)))
    association.release()
    wait_until(lambda: len(modality.reports) == 3, "the third report has come")
    wait_until(
        lambda: request_of(database).state is ReportState.REPORTED, "the report is noted as taken"
    )
    assert request_of(database).attempts == 3


def test_request_survives_a_restart(
    database: Database, start_committing: StartCommitting, modality: Modality
) -> None:
    modality.stop()
    known = (remote("MODALITY", modality.port),)
    first = start_committing(database, *slices(1), remotes=known)
    association = modality.associate(port_of(first))
    modality.ask(association, information("2.25.1", references(1)))
    association.release()
    first.stop()
    assert modality.reports == []
    modality.listen()
    start_committing(database, remotes=known)
    wait_until(lambda: modality.reports, "the report has come")
    assert committed(modality.reports[0][1]) == ["1.2.3.1.1"]


def test_sender_whose_address_is_not_known_is_given_up_with_the_reason(
    database: Database, start_committing: StartCommitting, modality: Modality
) -> None:
    receiver = start_committing(database, *slices(1), maximum_attempts=2)
    association = modality.associate(port_of(receiver))
    modality.ask(association, information("2.25.1", references(1)))
    association.release()
    wait_until(lambda: request_of(database).state is ReportState.DEAD, "it is given up")
    assert "MODALITY is no configured remote" in request_of(database).last_error
    # Asked again, it is reported on again: here on the association.
    association = modality.associate(port_of(receiver))
    modality.ask(association, information("2.25.1", references(1)))
    wait_until(lambda: modality.reports, "the report has come")
    association.release()


@dataclass(frozen=True)
class Refusal:
    """A request that is none, and its answer."""

    asked: Dataset
    status: int
    comment: str
    action: int = 1
    instance: str = WELL_KNOWN


REFUSALS = (
    Refusal(information("2.25.1", references(1)), 0x0123, "action", action=2),
    Refusal(information("2.25.1", references(1)), 0x0112, "well-known", instance="1.2.3"),
    Refusal(information("", references(1)), 0x0115, "Transaction UID"),
    Refusal(information("2.25.1", []), 0x0115, "Referenced SOP Sequence"),
    Refusal(information("2.25.1", [(CT, "")]), 0x0115, "valid UIDs"),
)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.comment)
def test_request_that_is_none_is_refused_with_a_comment(
    sqlite_database: Database,
    start_committing: StartCommitting,
    modality: Modality,
    refusal: Refusal,
) -> None:
    receiver = start_committing(sqlite_database)
    association = modality.associate(port_of(receiver))
    answer = modality.ask(association, refusal.asked, action=refusal.action, of=refusal.instance)
    association.release()
    assert answer.Status == refusal.status
    assert refusal.comment in answer.ErrorComment
    with sqlite_database.reading() as session:
        assert session.scalars(select(CommitmentRequestRow)).all() == []


def test_request_that_cannot_be_kept_is_not_answered_with_success(
    sqlite_database: Database,
    start_committing: StartCommitting,
    modality: Modality,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver = start_committing(sqlite_database)
    association = modality.associate(port_of(receiver))

    def away() -> None:
        raise OperationalError("BEGIN", {}, Exception("connection refused"))

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_database, "transaction", away)
        answer = modality.ask(association, information("2.25.1", references(1)))
    association.release()
    assert answer.Status == 0x0110


def test_orthanc_asks_for_commitment_and_gets_its_report(
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
        )
        pairs = [list(pair) for pair in (*references(1, 2), *references(9))]
        answer = httpx.post(
            f"{orthanc.url}/modalities/triage/storage-commitment",
            json={"DicomInstances": pairs},
            timeout=30,
        )
        path = answer.raise_for_status().json()["Path"]
        wait_until(lambda: orthanc.get(path)["Status"] != "Pending", "Orthanc has the report")
        report = orthanc.get(path)
        assert report["Status"] == "Failure"
        assert {one["SOPInstanceUID"] for one in report["Success"]} == {"1.2.3.1.1", "1.2.3.1.2"}
        assert [one["Description"] for one in report["Failures"]] == [
            "One or more of the elements in the Referenced SOP Instance Sequence was not available"
        ]
    finally:
        orthanc.kill()
