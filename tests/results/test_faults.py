"""What happens to deliveries when everything around them fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from sqlalchemy import update
from structlog.testing import capture_logs

from tests.orthanc import Orthanc
from tests.results.mail_server import MailServer, mail_server
from tests.results.outbox_scenes import history
from tests.results.outgoing import outgoing
from tests.results.test_email_delivery import team_at
from tests.results.test_stow_delivery import archive_at, failed
from tests.results.test_webhook_delivery import ris_at
from tests.results.web_server import Reply, Request, WebServer, web_server
from tests.tools import PROJECT, ManualClock, find_free_port, wait_until
from triage.settings import DicomDestination, FolderDestination, StowDestination
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.model_tables import ModelRow
from triage.worklist.deliveries import NOT_ARRIVED, DeliveryQuery, list_deliveries


def uid_in(request: Request) -> str:
    """Return the SOP Instance UID of the object in a STOW-RS request."""
    content = request.body.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
    return str(dcmread(DicomBytesIO(content)).SOPInstanceUID)


def test_after_an_hour_without_anybody_everything_arrives_once_and_in_order(
    orthanc: Orthanc, sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    hook, mail = (find_free_port() for _ in range(2))
    share = tmp_path / "share"
    archive = DicomDestination(
        name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=orthanc.dicom_port
    )
    web_archive = StowDestination(name="web", kind="stow", url=f"{orthanc.url}/dicom-web")
    folder = FolderDestination(name="share", kind="folder", path=share)
    destinations = (
        archive,
        web_archive,
        folder,
        ris_at(WebServer(hook, "http")),
        team_at(MailServer(mail)),
    )
    out = outgoing(sqlite_database, tmp_path, clock, *destinations)
    out.raise_priority()
    for _ in range(60):
        out.deliver_all()
        clock.advance(60)
    assert Counter(out.states()) == {"waiting": 10}
    assert all(row.last_error for row in out.rows() if row.attempts)
    share.mkdir()
    orthanc.start()
    with web_server(port=hook) as server, mail_server(port=mail) as mails:
        for _ in range(12):
            out.deliver_all()
            clock.advance(60)
    assert Counter(out.states()) == {"delivered": 10}
    assert orthanc.sop_instance_uids() == out.uids
    assert len(list(share.rglob("*.dcm"))) == 2
    identities = [request.headers["webhook-id"] for request in server.requests]
    assert len(identities) == len(set(identities)) == 2
    assert len({message["Message-ID"] for message in mails.messages}) == len(mails.messages) == 2


def test_dead_letters_say_why_and_what_is_to_be_done(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    away = archive_at(WebServer(find_free_port(), "http"))
    out = outgoing(sqlite_database, tmp_path, clock, away, maximum_delivery_attempts=3)
    for _ in range(8):
        out.deliver_all()
        clock.advance(60)
    with sqlite_database.reading() as session:
        found = list_deliveries(
            session, DeliveryQuery(states=NOT_ARRIVED), out.settings.destinations
        )
    assert [one.delivery.state for one in found.entries] == ["dead", "dead"]
    assert [one.delivery.attempts for one in found.entries] == [3, 3]
    for one in found.entries:
        assert f"archive ({away.url.removesuffix('/dicom-web')}) cannot be reached" in (
            one.delivery.last_error
        )
        assert one.next_step == "Mend what is said here and send this again, or give it up."


def test_a_worker_that_is_killed_before_it_wrote_the_outcome_sends_again_and_harms_nothing(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    with web_server() as server:
        out = outgoing(sqlite_database, tmp_path, clock, archive_at(server))
        arguments = [sqlite_database.url, str(tmp_path / "data"), f"{server.url}/dicom-web"]
        workers: list[subprocess.Popen[bytes]] = []

        def kill(request: Request) -> Reply:
            wait_until(lambda: workers, "the worker's number is known")
            os.kill(workers[0].pid, signal.SIGKILL)
            return Reply()

        server.usual = kill
        workers.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.results.killed_worker", *arguments], cwd=PROJECT
            )
        )
        assert workers[0].wait(timeout=60) == -signal.SIGKILL
        assert out.states() == ["sending", "waiting"]
        kept: list[str] = []

        def keep(request: Request) -> Reply:
            uid = uid_in(request)
            if uid in kept or uid == out.uids[0]:
                return Reply(409, {"Content-Type": "application/dicom+json"}, failed(0x0111))
            kept.append(uid)
            return Reply()

        server.usual = keep
        clock.now = datetime.now(UTC)
        assert not out.deliver()  # the lease of the one that was killed still holds
        clock.now += timedelta(hours=1)
        out.deliver_all()
        assert out.states() == ["delivered", "delivered"]
        assert [uid_in(request) for request in server.requests] == [out.uids[0], *out.uids]


def test_objects_by_stow_are_in_the_archive_as_they_were_sent(
    running_orthanc: Orthanc, sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    archive = StowDestination(
        name="archive", kind="stow", url=f"{running_orthanc.url}/dicom-web/", timeout_s=20
    )
    out = outgoing(sqlite_database, tmp_path, clock, archive)
    out.deliver_all()
    assert out.states() == ["delivered", "delivered"]
    files = {path.read_bytes() for path in InstanceFiles(tmp_path / "data").root.rglob("*.dcm")}
    assert {running_orthanc.file_of(uid) for uid in out.uids} == files


def test_a_damaged_file_is_a_dead_letter(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    folder = FolderDestination(name="share", kind="folder", path=tmp_path)
    archive = DicomDestination(name="archive", ae_title="A", host="127.0.0.1", port=9)
    out = outgoing(sqlite_database, tmp_path, clock, archive, folder)
    for file in out.files.root.rglob("*.dcm"):
        file.write_bytes(b"what the disk has left of it" * 100)
    out.deliver_all()
    assert out.states() == ["dead"] * 4
    assert {row.last_error for row in out.rows()} == {"its file in the store is damaged"}


def test_a_fault_of_ours_ends_as_a_dead_letter_and_tells_the_log_nothing_of_the_patient(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = outgoing(
        sqlite_database,
        tmp_path,
        clock,
        ris_at(WebServer(9, "http")),
        maximum_delivery_attempts=2,
    )
    with sqlite_database.transaction() as session:
        session.execute(update(ModelRow).values(manifest={"title": "Muster^Anna"}))
    with capture_logs() as logs:
        for _ in range(2):
            assert out.deliver()
            clock.advance(60)
    assert out.states() == ["dead"]
    assert out.last_error() == "Triage failed while sending it (ValidationError); report this"
    assert [line["error"] for line in logs if line["event"] == "delivery.fault"] == [
        "ValidationError"
    ] * 2
    assert "Muster" not in repr(logs)


def test_what_a_destination_said_is_not_kept_in_the_history(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = outgoing(sqlite_database, tmp_path, clock, ris_at(WebServer(9, "http")))
    with web_server() as server:
        said = b"Muster^Anna is unknown"
        server.replies = [Reply(422, {"Content-Type": "text/plain"}, said)]
        out.configure(ris_at(server))
        out.deliver()
    assert out.last_error().endswith(", saying 'Muster^Anna is unknown'")
    [line] = history(sqlite_database, "undeliverable")
    assert line == (
        "Result notice was not taken by ris: ris answered HTTP 422: it understands the form and "
        "refuses the content"
    )
