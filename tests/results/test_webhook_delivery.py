"""Notices by webhook, to a receiver that checks them as the specification says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from tests.certificates import Authority
from tests.results.outgoing import PUBLIC_URL, Outgoing, outgoing
from tests.results.web_server import Reply, WebServer, web_server
from tests.tools import PROJECT, ManualClock, find_free_port
from triage.core.errors import TriageError
from triage.core.priority import Priority
from triage.results.delivery.webhook import reach
from triage.results.delivery.webhook_message import WebhookMessage
from triage.results.errors import DeliveryError
from triage.settings import WebhookDestination, load_settings
from triage.store.database import Database

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PATIENT = ("Muster", "P-17", "19500201", "A-99")


def ris_at(server: WebServer, **more: Any) -> WebhookDestination:
    return WebhookDestination(
        name="ris", kind="webhook", url=f"{server.url}/hook", secret=SECRET, timeout_s=5, **more
    )


def scene(database: Database, tmp_path: Path, clock: ManualClock, **more: Any) -> Outgoing:
    return outgoing(database, tmp_path, clock, ris_at(WebServer(9, "http"), **more))


def test_result_and_priority_are_told_once_signed_and_without_the_patient(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with web_server() as server:
        out.configure(ris_at(server))
        out.raise_priority()
        out.deliver_all()
        out.raise_priority()  # it is there already: nothing to tell
        out.deliver_all()
    assert out.states() == ["delivered", "delivered"]
    result, priority = (json.loads(request.body) for request in server.requests)
    for request in server.requests:
        Webhook(SECRET).verify(request.body, dict(request.headers))
        assert request.path == "/hook"
        assert [value for value in PATIENT if value in request.body.decode()] == []
    assert (result["type"], priority["type"]) == ("result", "priority")
    assert priority["data"]["change"] == {
        "source": "ai",
        "before": "routine",
        "after": "stat",
        "reason": "Pneumothorax, confidence 0.97, chest-xray 2.1.0",
    }
    assert result["data"]["link"] == f"{PUBLIC_URL}/studies/{out.study_uid}"
    findings = {one["key"]: one["present"] for one in result["data"]["run"]["findings"]}
    assert findings == {"pneumothorax": True, "fracture": False}
    sent = [one["sop_instance_uid"] for one in result["data"]["run"]["objects"]]
    assert sent == out.uids


def test_the_patient_is_told_where_the_settings_say_so(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with web_server() as server:
        out.configure(ris_at(server, patient_data=True))
        out.deliver_all()
    study = json.loads(server.requests[0].body)["data"]["study"]
    assert study["accession_number"] == "A-99"
    assert study["patient"] == {
        "patient_id": "P-17",
        "issuer": "",
        "name": "Muster^Anna",
        "birth_date": "19500201",
        "sex": "F",
    }


def test_another_attempt_has_the_same_identity_and_tells_what_is_true_then(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with web_server() as server:
        server.replies = [Reply(500)]
        out.configure(ris_at(server))
        out.deliver()
        out.raise_priority()
        clock.advance(2)
        out.deliver_all()
    first, *later = server.requests
    assert out.states() == ["delivered", "delivered"]
    [again] = [one for one in later if json.loads(one.body)["type"] == "result"]
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    assert json.loads(first.body)["data"]["study"]["priority"] == "routine"
    assert json.loads(again.body)["data"]["study"]["priority"] == "stat"


def test_a_changed_body_does_not_verify(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with web_server() as server:
        out.configure(ris_at(server))
        out.deliver()
    [request] = server.requests
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(request.body + b" ", dict(request.headers))


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply(302, {"Location": "https://elsewhere.example/"}), ("waiting", "we do not go")),
        (Reply(404), ("waiting", "nothing is at this address; check url")),
        (Reply(410), ("dead", "gone for good")),
        (Reply(429, {"Retry-After": "60"}), ("waiting", "fewer requests")),
        (Reply(resets_after=10), ("waiting", "broke off")),
        (
            Reply(422, {"Content-Type": "text/plain"}, b"no such\nstudy"),
            ("dead", "it understands the form and refuses the content, saying 'no such study'"),
        ),
        (Reply(500, {"Content-Type": "text/html"}, b"<h1>Oops</h1>"), ("waiting", "it failed")),
    ],
)
def test_what_is_not_taken_says_why(
    sqlite_database: Database,
    tmp_path: Path,
    clock: ManualClock,
    reply: Reply,
    outcome: tuple[str, str],
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with web_server() as server:
        server.replies = [reply]
        out.configure(ris_at(server))
        out.deliver()
    assert (out.states(), outcome[1] in out.last_error()) == ([outcome[0]], True)


def test_changes_of_one_study_are_told_in_their_order(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    only_priority = {"notices": ("priority",)}
    out = scene(sqlite_database, tmp_path, clock, **only_priority)
    with web_server() as server:
        server.replies = [Reply(500)]
        out.configure(ris_at(server, **only_priority))
        out.raise_priority(Priority.HIGH)
        out.raise_priority(Priority.STAT)
        out.deliver()
        assert not out.deliver()  # the second waits for the first
        clock.advance(2)
        out.deliver_all()
    told = [json.loads(one.body)["data"]["change"]["after"] for one in server.requests]
    assert told == ["high", "high", "stat"]


@pytest.mark.parametrize("secret", ["short", "whsec_c2hvcnQ=", "whsec_this is no base64!!"])
def test_a_secret_that_is_too_short_is_refused_and_not_repeated(secret: str) -> None:
    hook = {"name": "ris", "kind": "webhook", "url": "http://ris", "secret": secret}
    with pytest.raises(TriageError, match="destinations 'ris': secret must be whsec_") as raised:
        load_settings(destinations=[hook])
    assert secret.removeprefix("whsec_") not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"url": "http://ris:99999/hook"}, "must name a host, and a port if any"),
        ({"url": "http://:80/"}, "must name a host, and a port if any"),
        ({"url": "http://[::1/"}, "must name a host, and a port if any"),
        ({"url": "https://user:hidden@ris/"}, "put it into authorization"),
        ({"authorization": "Bearer hidden\r\nX: y"}, "must be one line of ASCII characters"),
        ({"authorization": "Bearer hiddenü"}, "must be one line of ASCII characters"),
    ],
)
def test_an_address_that_cannot_be_asked_is_refused(changes: dict[str, str], words: str) -> None:
    hook = {"name": "ris", "kind": "webhook", "url": "http://ris", "secret": SECRET}
    with pytest.raises(TriageError, match=words) as raised:
        load_settings(destinations=[hook | changes])
    assert "hidden" not in str(raised.value)


def test_doctor_opens_a_connection_and_asks_for_nothing(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with web_server(authority.sign()) as server:
        said = reach(ris_at(server, authorities=authority.certificate))
        assert said == f"TLSv1.3 on 127.0.0.1:{server.port}; it was not called"
        with pytest.raises(DeliveryError, match="its certificate is not accepted"):
            reach(ris_at(server))
    assert server.requests == []
    with pytest.raises(DeliveryError, match="cannot be reached"):
        reach(ris_at(WebServer(find_free_port(), "http")))


def test_the_documented_schema_is_what_is_sent() -> None:
    documented = (PROJECT / "docs" / "webhook-v1.schema.json").read_text(encoding="utf-8")
    assert json.loads(documented) == WebhookMessage.model_json_schema(mode="serialization")
