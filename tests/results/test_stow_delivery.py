"""Deliveries by STOW-RS: to a web server that answers as a test says."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Mapping
from datetime import timedelta
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.certificates import Authority
from tests.results.outgoing import Outgoing, outgoing
from tests.results.web_server import Reply, Request, WebServer, web_server
from tests.tools import ManualClock, find_free_port
from triage.results.delivery.stow import reach
from triage.results.errors import DeliveryError
from triage.settings import StowDestination
from triage.store.database import Database

DICOM_JSON = {"Content-Type": "application/dicom+json"}


def archive_at(server: WebServer, **more: Any) -> StowDestination:
    return StowDestination(
        name="archive", kind="stow", url=f"{server.url}/dicom-web", timeout_s=5, **more
    )


def scene(database: Database, tmp_path: Path, clock: ManualClock, **more: Any) -> Outgoing:
    """Return a scene with one attempt for each delivery, to a destination that is set later."""
    nowhere = StowDestination(name="archive", kind="stow", url="http://127.0.0.1:9", **more)
    return outgoing(database, tmp_path, clock, nowhere)


def failed(*reasons: int) -> bytes:
    """Return a Store Instances Response (PS3.18 I.2) with these Failure Reasons."""
    items = [{"00081197": {"vr": "US", "Value": [reason]}} for reason in reasons]
    return json.dumps({"00081198": {"vr": "SQ", "Value": items}}).encode()


def parts_of(request: Request) -> list[Message]:
    """Return the parts of a multipart request."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = message_from_bytes(head + request.body)
    assert message.is_multipart()
    return list(message.get_payload())  # type: ignore[arg-type]


def test_objects_arrive_byte_for_byte_and_in_order(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with web_server() as server:
        out.configure(archive_at(server, authorization="Bearer secret-token"))
        out.deliver_all()
    assert out.states() == ["delivered", "delivered"]
    assert [(r.method, r.path) for r in server.requests] == [("POST", "/dicom-web/studies")] * 2
    sent = []
    for request in server.requests:
        assert request.headers["authorization"] == "Bearer secret-token"
        assert request.headers["accept"] == "application/dicom+json"
        assert request.headers["user-agent"].startswith("Triage/")
        assert int(request.headers["content-length"]) == len(request.body)
        assert request.headers["content-type"].startswith(
            'multipart/related; type="application/dicom"; boundary='
        )
        [part] = parts_of(request)
        assert part.get_content_type() == "application/dicom"
        sent.append(request.body.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0])
    stored = [file.read_bytes() for file in sorted(out.files.root.rglob("*.dcm"))]
    assert sorted(sent) == sorted(stored)
    assert out.uids[0].encode() in sent[0]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, DICOM_JSON, b'{"00081199": {"vr": "SQ", "Value": [{}]}}'),
        Reply(200, {"Content-Type": "application/dicom+xml"}, b"<NativeDicomModel/>"),
        Reply(202, DICOM_JSON, b'[{"00081199": {"vr": "SQ", "Value": [{}]}}]'),
        Reply(409, DICOM_JSON, failed(0x0111)),
        Reply(409, DICOM_JSON, failed(0xB00E)),
        Reply(200, {}, b"x" * 3_000_000),
    ],
)
def test_success_warning_and_duplicate_count_as_delivered(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock, reply: Reply
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with web_server() as server:
        server.replies = [reply]
        out.configure(archive_at(server))
        out.deliver()
    assert out.states() == ["delivered", "waiting"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            Reply(409, DICOM_JSON, failed(0xA700)),
            "HTTP 409, Failure Reason 0xA700: it is out of resources",
        ),
        (
            Reply(409, DICOM_JSON, failed(0x0110)),
            "HTTP 409, Failure Reason 0x0110: processing failed",
        ),
        (
            Reply(202, DICOM_JSON, b'{"00081198": {"vr": "SQ", "Value": [{}]}}'),
            "Failure Reason 0x0110",
        ),
        (Reply(202, DICOM_JSON, b""), "answered HTTP 202, and not what became of the object"),
        (Reply(401, DICOM_JSON, b""), "HTTP 401: it does not know us; check authorization"),
        (Reply(403, DICOM_JSON, b""), "HTTP 403: we may not do this there"),
        (Reply(404, DICOM_JSON, b""), "HTTP 404: nothing is at this address; check url"),
        (Reply(408, DICOM_JSON, b""), "HTTP 408: it waited too long for us"),
        (Reply(409, DICOM_JSON, b""), "HTTP 409: it conflicts with what is there"),
        (Reply(429, DICOM_JSON, b""), "HTTP 429: it asks for fewer requests"),
        (
            Reply(500, DICOM_JSON, b'{"error": "no space"}'),
            'HTTP 500: it failed, saying \'{"error": "no space"}\'',
        ),
        (Reply(503, DICOM_JSON, b""), "HTTP 503: it is not available now"),
    ],
)
def test_what_may_pass_is_tried_again_and_holds_back_what_comes_after(
    sqlite_database: Database,
    tmp_path: Path,
    clock: ManualClock,
    reply: Reply,
    words: str,
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with web_server() as server:
        server.replies = [reply]
        out.configure(archive_at(server))
        assert out.deliver()
        assert out.states() == ["waiting", "waiting"]
        assert words in out.last_error()
        assert not out.deliver()
        clock.advance(2)
        out.deliver_all()
    assert out.states() == ["delivered", "delivered"]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(409, DICOM_JSON, failed(0xA900)), "0xA900: the object does not match its SOP class"),
        (Reply(409, DICOM_JSON, failed(0xC122)), "0xC122: it does not support the transfer syntax"),
        (Reply(400, DICOM_JSON, failed(0x0122)), "0x0122: it does not support the SOP class"),
        (Reply(202, DICOM_JSON, failed(0xC000)), "0xC000: it cannot understand the object"),
        (Reply(400, DICOM_JSON, b""), "HTTP 400: it finds the request wrong"),
        (Reply(413, DICOM_JSON, b""), "HTTP 413: it is too long; raise the limit there"),
        (Reply(415, DICOM_JSON, b""), "HTTP 415: it does not take this form"),
    ],
)
def test_a_lasting_refusal_is_dead_at_once(
    sqlite_database: Database,
    tmp_path: Path,
    clock: ManualClock,
    reply: Reply,
    words: str,
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with web_server() as server:
        server.replies = [reply]
        out.configure(archive_at(server))
        out.deliver_all()
    assert out.states() == ["dead", "delivered"]
    assert words in out.last_error()


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "999999999"}, 3600),
        ({"Retry-After": "soon"}, 1.5),
        ({}, 1.5),
    ],
)
def test_the_archive_says_when_it_wants_it_again(
    sqlite_database: Database,
    tmp_path: Path,
    clock: ManualClock,
    headers: Mapping[str, str],
    wait_s: float,
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with web_server() as server:
        server.replies = [Reply(503, headers)]
        out.configure(archive_at(server))
        out.deliver()
    assert out.rows()[0].next_attempt_at == clock() + timedelta(seconds=wait_s)


def test_a_warning_is_in_the_log(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    stored = {"00081196": {"vr": "US", "Value": [0xB000]}}
    body = json.dumps({"00081199": {"vr": "SQ", "Value": [stored]}}).encode()
    with web_server() as server, capture_logs() as logs:
        server.replies = [Reply(202, DICOM_JSON, body)]
        out.configure(archive_at(server))
        out.deliver()
    assert out.states()[0] == "delivered"
    [line] = [line for line in logs if line["event"] == "stow.warning"]
    assert (line["destination"], line["reason"]) == ("archive", "0xB000")


def test_a_redirect_is_not_followed(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with web_server() as server, web_server() as elsewhere:
        server.replies = [Reply(307, {"Location": f"{elsewhere.url}/studies?token=secret"})]
        out.configure(archive_at(server, authorization="Bearer secret-token"))
        out.deliver()
    assert elsewhere.requests == []
    assert out.states()[0] == "waiting"
    assert f"it sends us to '{elsewhere.url}/studies', where we do not go" in out.last_error()
    assert "secret" not in out.last_error()


def test_a_connection_that_breaks_in_the_middle_is_tried_again(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with web_server() as server:
        server.replies = [Reply(resets_after=100)]
        out.configure(archive_at(server))
        out.deliver()
        assert out.states()[0] == "waiting"
        assert f"archive ({server.url}) broke off" in out.last_error()
        clock.advance(2)
        out.deliver_all()
    assert out.states() == ["delivered", "delivered"]


def test_an_archive_that_does_not_answer_is_given_up_after_the_timeout(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with web_server() as server:
        ends = threading.Event()
        server.replies = [Reply(waits_for=ends)]
        destination = archive_at(server).model_copy(update={"timeout_s": 0.3})
        out.configure(destination)
        out.deliver()
        ends.set()
    assert out.states()[0] == "waiting"
    assert "did not answer within 0.3 s" in out.last_error()


def test_an_archive_that_is_away_is_tried_again(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    out.configure(archive_at(WebServer(find_free_port(), "http")))
    out.deliver()
    assert out.states()[0] == "waiting"
    assert "cannot be reached" in out.last_error()


def test_only_the_named_authority_is_trusted(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    out = scene(sqlite_database, tmp_path, clock)
    with web_server(authority.sign()) as server:
        for wrong, words in (
            (other.certificate, "its certificate is not accepted: "),
            (None, "set authorities to who signed it"),
            (tmp_path / "nowhere.pem", "nowhere.pem does not exist"),
        ):
            out.configure(archive_at(server, authorities=wrong))
            assert out.deliver()
            assert words in out.last_error()
            clock.advance(60)
        assert server.requests == []
        out.configure(archive_at(server, authorities=authority.certificate))
        out.deliver_all()
    assert out.states() == ["delivered", "delivered"]


def test_a_certificate_of_another_host_is_refused(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    authority = Authority(tmp_path)
    out = scene(sqlite_database, tmp_path, clock)
    with web_server(authority.sign("pacs.hospital.example")) as server:
        out.configure(archive_at(server, authorities=authority.certificate))
        out.deliver()
    assert out.states()[0] == "waiting"
    assert "IP address mismatch" in out.last_error()
    assert ssl.HAS_TLSv1_3


@pytest.mark.parametrize("status", [200, 204, 400])
def test_doctor_asks_for_a_study_of_nobody(status: int) -> None:
    with web_server() as server:
        server.usual = lambda _: Reply(status)
        assert reach(archive_at(server)) == f"answers at {server.url}/dicom-web"
    [asked] = server.requests
    assert (asked.method, asked.path) == (
        "GET",
        "/dicom-web/studies?StudyInstanceUID=2.25.0&limit=1",
    )


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_doctor_says_what_is_wrong_with_an_archive(status: int) -> None:
    with web_server() as server:
        server.usual = lambda _: Reply(status)
        with pytest.raises(DeliveryError, match=f"archive answered HTTP {status}"):
            reach(archive_at(server))
