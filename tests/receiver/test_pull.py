"""Pulling studies out of real archives, in each of the ways."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, MRImageStorage
from sqlalchemy import select

from tests.datasets import ct_slice
from tests.receiver.archives import dcmqrscp, file_of, orthanc_with, remote, without_c_get
from tests.receiver.conftest import StartReceiver, receiver_settings, send
from tests.tools import find_free_port, wait_until
from triage.receiver.entrance import Entrance
from triage.receiver.retrieve.archive import RetrieveError, StudyQuery
from triage.receiver.retrieve.dimse import storage_contexts
from triage.receiver.retrieve.pull import Archive, Puller
from triage.settings import RemoteSettings
from triage.store.clock import system_clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.tables import InstanceRow, OpenAssociationRow, StudyRow

STUDY = "1.2.3"


def slices(count: int = 4, study: str = STUDY) -> list[Dataset]:
    return [
        ct_slice(study, n, StudyDate="20240102", AccessionNumber="A1", StudyDescription="Head")
        for n in range(1, count + 1)
    ]


@pytest.fixture
def entrance(sqlite_database: Database, files: InstanceFiles, tmp_path: Path) -> Iterator[Entrance]:
    settings = receiver_settings(tmp_path / "data")
    one = Entrance(sqlite_database, files, settings.receiver, system_clock, kind="pull")
    yield one
    one.close()


@pytest.fixture
def puller(sqlite_database: Database, entrance: Entrance) -> Puller:
    return Puller(sqlite_database, entrance, as_priors=False)


@pytest.fixture
def receiver_port(sqlite_database: Database, start_receiver: StartReceiver) -> int:
    """The port of a receiver, for an archive to send to."""
    port = find_free_port()
    start_receiver(sqlite_database, port=port)
    return port


def archive(settings: RemoteSettings) -> Archive:
    return Archive(settings, calling_ae_title="TRIAGE")


def rows(database: Database) -> list[InstanceRow]:
    with database.reading() as session:
        return list(session.scalars(select(InstanceRow).order_by(InstanceRow.sop_instance_uid)))


def test_dcmqrscp_by_c_get(
    tmp_path: Path, sqlite_database: Database, puller: Puller, files: InstanceFiles
) -> None:
    sent = slices()
    seen: list[tuple[int, int]] = []
    with dcmqrscp(tmp_path, *sent) as pacs:
        report = puller.pull(
            archive(pacs), STUDY, on_progress=lambda done, total: seen.append((done, total))
        )
    assert (report.via, report.found, report.new, report.failed) == (["c-get"], 4, 4, {})
    assert seen[-1] == (4, 4)
    found = rows(sqlite_database)
    assert [row.sop_instance_uid for row in found] == [d.SOPInstanceUID for d in sent]
    assert {row.calling_ae_title for row in found} == {"ARCHIVE"}


def test_dcmqrscp_by_c_move(
    tmp_path: Path, sqlite_database: Database, puller: Puller, start_receiver: StartReceiver
) -> None:
    port = find_free_port()
    start_receiver(sqlite_database, port=port)
    with dcmqrscp(tmp_path, *slices(), move_to=port) as pacs:
        report = puller.pull(archive(pacs), STUDY, via="c-move")
    assert (report.via, report.new, report.failed) == (["c-move"], 4, {})
    assert len(rows(sqlite_database)) == 4


@pytest.mark.parametrize("via", ["dicomweb", "c-get", "c-move"])
def test_orthanc_in_every_way_gives_the_same_files(
    tmp_path: Path,
    sqlite_database: Database,
    puller: Puller,
    receiver_port: int,
    via: str,
) -> None:
    port = receiver_port
    files = InstanceFiles(tmp_path / "data")
    sent = slices()
    with orthanc_with(tmp_path, *sent, move_to=port) as (_, pacs):
        report = puller.pull(archive(pacs), STUDY, via=via)
        assert (report.via, report.new, report.failed) == ([via], 4, {})
        again = puller.pull(archive(pacs), STUDY, via=via)
        assert (again.known, again.new) == (4, 0)
    for row, dataset in zip(rows(sqlite_database), sent, strict=True):
        assert files.absolute(row.path).read_bytes()[-250:] == file_of(dataset)[-250:]


def test_compressed_images_come_as_they_are_stored(
    tmp_path: Path, sqlite_database: Database, puller: Puller
) -> None:
    one = ct_slice(STUDY)
    one.PixelData = encapsulate([b"\xff\x4f\xff\x51 a code stream that nobody decodes"])
    one["PixelData"].is_undefined_length = True
    one.file_meta.TransferSyntaxUID = JPEG2000Lossless
    with orthanc_with(tmp_path, one) as (_, pacs):
        for via in ("c-get", "dicomweb"):
            report = puller.pull(archive(pacs), STUDY, via=via)
            assert report.failed == {}
    assert [row.transfer_syntax_uid for row in rows(sqlite_database)] == [JPEG2000Lossless]


def test_dicomweb_goes_before_dimse_and_dimse_is_there_when_dicomweb_is_away(
    tmp_path: Path, puller: Puller
) -> None:
    with orthanc_with(tmp_path, *slices()) as (_, pacs):
        assert puller.pull(archive(pacs), STUDY).via == ["dicomweb"]
        away = f"http://127.0.0.1:{find_free_port()}/dicom-web"
        other = pacs.model_copy(update={"dicomweb_url": away})
        report = puller.pull(archive(other), STUDY)
    assert report.known == 4


def test_c_move_is_tried_where_c_get_is_refused(
    tmp_path: Path, sqlite_database: Database, puller: Puller, start_receiver: StartReceiver
) -> None:
    port = find_free_port()
    start_receiver(sqlite_database, port=port)
    with dcmqrscp(tmp_path, *slices(), move_to=port) as pacs, without_c_get(pacs) as front:
        report = puller.pull(archive(front), STUDY)
    assert (report.via, report.new) == (["c-move"], 4)
    assert report.remarks == ["pacs offers no C-GET"]


def test_unknown_move_destination_is_said_in_words(tmp_path: Path, puller: Puller) -> None:
    with dcmqrscp(tmp_path, *slices(1)) as pacs:
        other = Archive(pacs, calling_ae_title="SOMEBODY")
        report = puller.pull(other, STUDY, via="c-move")
    [why] = report.failed.values()
    assert "0xA801" in why
    assert "add it to the archive" in why


def test_only_what_is_missing_is_pulled(
    tmp_path: Path, sqlite_database: Database, puller: Puller, start_receiver: StartReceiver
) -> None:
    sent = slices(5)
    receiver = start_receiver(sqlite_database)
    send(receiver, *sent[:3])
    with dcmqrscp(tmp_path, *sent) as pacs:
        report = puller.pull(archive(pacs), STUDY)
    assert (report.found, report.known, report.new, report.failed) == (5, 3, 2, {})


def test_an_instance_that_is_refused_is_named_and_the_others_are_kept(
    tmp_path: Path, sqlite_database: Database, puller: Puller
) -> None:
    sent = slices(2)
    bad = ct_slice(STUDY, 3)
    bad.SOPInstanceUID = bad.file_meta.MediaStorageSOPInstanceUID = "1.2.3.1.4."
    with orthanc_with(tmp_path, *sent, bad) as (_, pacs):
        report = puller.pull(archive(pacs), STUDY, via="dicomweb")
    assert len(rows(sqlite_database)) == 2
    assert len(report.failed) == 1


def test_study_is_held_open_while_it_is_pulled_and_complete_after(
    tmp_path: Path,
    sqlite_database: Database,
    puller: Puller,
    start_receiver: StartReceiver,
) -> None:
    start_receiver(sqlite_database)
    held: list[int] = []

    def look(done: int, total: int) -> None:
        with sqlite_database.reading() as session:
            held.append(len(session.scalars(select(OpenAssociationRow)).all()))

    def state() -> str:
        with sqlite_database.reading() as session:
            return str(session.scalars(select(StudyRow.state)).one())

    with dcmqrscp(tmp_path, *slices()) as pacs:
        puller.pull(archive(pacs), STUDY, on_progress=look)
    assert 1 in held
    wait_until(lambda: state() == "complete", "the study is complete")


def test_studies_are_found_by_accession_number_and_patient(tmp_path: Path) -> None:
    other = ct_slice("1.2.4", PatientID="P2", StudyDate="20230101", AccessionNumber="A2")
    with orthanc_with(tmp_path, *slices(1), other) as (_, pacs):
        for one in (pacs, pacs.model_copy(update={"dicomweb_url": ""})):
            asked = archive(one)
            [found] = asked.find_studies(StudyQuery(accession_number="A1"))
            assert (found.study_instance_uid, found.study_date) == (STUDY, "20240102")
            assert found.modalities == {"CT"}
            # An archive takes P* for a pattern; only the patient of that very ID is meant.
            by_patient = asked.find_studies(StudyQuery(patient_id="P1"))
            assert [study.study_instance_uid for study in by_patient] == [STUDY]
            assert asked.find_studies(StudyQuery(patient_id="P*")) == []
            assert asked.find_studies(StudyQuery(accession_number="none")) == []


def test_a_study_that_the_archive_does_not_hold(tmp_path: Path, puller: Puller) -> None:
    with dcmqrscp(tmp_path, *slices(1)) as pacs, pytest.raises(RetrieveError, match="no study"):
        puller.pull(archive(pacs), "1.9.9")


def test_an_archive_that_is_away(puller: Puller) -> None:
    with pytest.raises(RetrieveError, match="cannot be reached"):
        puller.pull(archive(remote(find_free_port())), STUDY)


def test_contexts_of_a_c_get_leave_room_and_let_each_syntax_come_as_stored() -> None:
    few = storage_contexts({MRImageStorage})
    assert len(few) <= 127
    assert any(list(c.transfer_syntax) == [JPEG2000Lossless] for c in few)
    assert len(storage_contexts({""})) == 120  # one for each SOP class that pynetdicom lists
    many = storage_contexts({f"1.2.3.{n}" for n in range(200)})
    assert len(many) == 127


class _Broken(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>log in first</html>")

    def log_message(self, *args: object) -> None:
        pass


def test_a_web_page_instead_of_an_answer_is_said_so(puller: Puller) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/"
        with pytest.raises(RetrieveError, match="no JSON"):
            puller.pull(archive(remote(find_free_port(), dicomweb_url=url)), STUDY)
    finally:
        server.shutdown()
        server.server_close()
