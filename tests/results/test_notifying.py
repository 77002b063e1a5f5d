"""People who are told by e-mail and through a pager gateway, over real sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from tests.results.mail_server import mail_server
from tests.results.notifying import (
    PUBLIC_URL,
    SECRET,
    mail_at,
    pager_at,
    send_all,
    settings_with,
)
from tests.results.web_server import Reply, Request, web_server
from tests.store.notification_scenes import Ward, found
from tests.tools import PROJECT, ManualClock, find_free_port, wait_until
from triage.core.notifications import NotificationState
from triage.core.priority import Priority
from triage.core.withdrawals import WithdrawalReason
from triage.results.notifying.webhook import NotificationMessage
from triage.store.database import Database
from triage.store.tables import StudyRow
from triage.store.withdrawals import record_withdrawal

PATIENT = ("Muster", "P1")


@pytest.fixture
def ward(sqlite_database: Database, clock: ManualClock) -> Ward:
    """A ward on SQLite."""
    return Ward(sqlite_database, clock)


def test_mail_goes_to_the_person_with_a_link_and_without_the_patient(ward: Ward) -> None:
    with mail_server() as server:
        settings = settings_with(mail_at(server.port))
        ward.settings = settings.notifications
        number = ward.flag()
        ward.later(1)
        assert send_all(ward, settings) == 1
        ward.later(600)
        send_all(ward, settings)
    first, second = server.messages
    assert (first["To"], second["To"]) == ("ada@hospital.example", "grace@hospital.example")
    assert first["Subject"] == "STAT: Hemorrhage (CT)"
    assert second["Subject"] == "Not acknowledged, STAT: Hemorrhage (CT)"
    assert first["Importance"] == "high"
    text = first.get_content().replace("\r\n", "\n")
    assert "STAT: Hemorrhage, 12.3 mL, confidence 0.97\nStudy: CT head, from CT1\n" in text
    assert f"See and acknowledge: {PUBLIC_URL}/notifications/{number}\n" in text
    for message in server.messages:
        assert [value for value in PATIENT if value in message.as_string()] == []
    assert [kind for kind, _ in ward.events(number)] == ["raised", "told", "sent", "told", "sent"]


def test_mail_names_the_patient_where_the_settings_say_so(ward: Ward) -> None:
    with mail_server() as server:
        settings = settings_with(mail_at(server.port, patient_data=True))
        ward.settings = settings.notifications
        ward.flag()
        ward.later(1)
        send_all(ward, settings)
    text = server.messages[0].get_content().replace("\r\n", "\n")
    assert "Patient: Muster^Anna, ID P1, born unknown\nAccession number: none\n" in text
    assert "Muster" not in server.messages[0]["Subject"]


def test_digest_is_one_mail_that_says_why_it_comes_late(ward: Ward) -> None:
    with mail_server() as server:
        settings = settings_with(mail_at(server.port), maximum_per_hour=1)
        ward.settings = settings.notifications
        numbers = [ward.flag(Priority.HIGH) for _ in range(3)]
        ward.later(1)
        assert send_all(ward, settings) == 1
        ward.clock.advance(3600)
        assert send_all(ward, settings) == 1
    digest = server.messages[1]
    assert digest["Subject"] == "Digest: 2 findings of the AI"
    text = digest.get_content()
    assert re.findall(r"/notifications/(\d+)", text) == [str(n) for n in numbers[1:]]
    assert text.count("Not told at once: as many as one person is told in an hour") == 2


def test_mail_server_that_is_away_delays_no_flag_and_loses_nothing(ward: Ward) -> None:
    port = find_free_port()
    settings = settings_with(mail_at(port))
    ward.settings = settings.notifications
    number = ward.flag()
    with ward.database.reading() as session:
        study = session.get_one(StudyRow, ward.one(number).study_id)
        assert study.priority is Priority.STAT
    for _ in range(10):
        ward.later(120)
        send_all(ward, settings)
    assert ward.told(number) == [("ada", "mail", "waiting"), ("grace", "mail", "waiting")]
    ward.later(3600)
    with mail_server(port=port) as server:
        assert send_all(ward, settings) == 2
    assert [state for _, _, state in ward.told(number)] == ["sent", "sent"]
    assert len({message["Message-ID"] for message in server.messages}) == 2


def test_mailbox_that_is_not_there_lets_the_next_one_be_told_at_once(ward: Ward) -> None:
    with mail_server() as server:
        server.refusals["ada@hospital.example"] = "550 no such mailbox"
        settings = settings_with(mail_at(server.port))
        ward.settings = settings.notifications
        number = ward.flag()
        ward.later(1)
        send_all(ward, settings)
        ward.later(1)
        send_all(ward, settings)
    assert ward.told(number) == [("ada", "mail", "dead"), ("grace", "mail", "sent")]


def test_pager_gets_signed_json_and_acknowledges_by_its_answer(ward: Ward) -> None:
    ward.clock.now = datetime.now(UTC)  # the signature is of the time
    with web_server() as server:
        settings = settings_with(pager_at(server.url))
        ward.settings = settings.notifications
        number = ward.flag()
        ward.later(1)
        answer = json.dumps({"acknowledged_by": "Dr. Ada (pager)"}).encode()
        server.replies.append(Reply(200, {"Content-Type": "application/json"}, answer))
        send_all(ward, settings)
    request = server.requests[0]
    Webhook(SECRET).verify(request.body, dict(request.headers))
    said = NotificationMessage.model_validate_json(request.body)
    assert (said.type, said.recipient) == ("notification.alert", "ada")
    assert said.notifications[0].link == f"{PUBLIC_URL}/notifications/{number}"
    assert said.notifications[0].patient is None
    assert [value for value in PATIENT if value in request.body.decode()] == []
    row = ward.one(number)
    assert row.state is NotificationState.ACKNOWLEDGED
    assert (row.acknowledged_by, row.acknowledged_via) == ("Dr. Ada (pager)", "pager")
    assert [kind for kind, _ in ward.events(number)][-2:] == ["sent", "acknowledged"]


@pytest.mark.parametrize("answer", [b"", b"ok", b"[]", b'{"acknowledged_by": 3}', b"\xff"])
def test_any_other_answer_acknowledges_nothing(ward: Ward, answer: bytes) -> None:
    with web_server() as server:
        settings = settings_with(pager_at(server.url))
        ward.settings = settings.notifications
        number = ward.flag()
        ward.later(1)
        server.replies.append(Reply(200, {}, answer))
        send_all(ward, settings)
    assert ward.one(number).state is NotificationState.SENT


def test_who_was_told_is_told_that_it_is_taken_back(ward: Ward) -> None:
    with mail_server() as mails, web_server() as pager:
        settings = settings_with(mail_at(mails.port), pager_at(pager.url))
        ward.settings = settings.notifications
        run = ward.run(ward.study(), found())
        ward.later(1)
        send_all(ward, settings)
        with ward.database.transaction() as session:
            reason = WithdrawalReason.WRONG_RESULT
            record_withdrawal(session, run, who="reader", reason=reason, now=ward.clock())
        send_all(ward, settings)
    assert [message["Subject"] for message in mails.messages] == [
        "STAT: Hemorrhage (CT)",
        "Taken back: Hemorrhage (CT)",
    ]
    because = "withdrawn by reader, because the result is wrong"
    assert because in " ".join(mails.messages[1].get_content().split())
    taken_back = NotificationMessage.model_validate_json(pager.requests[1].body)
    assert taken_back.type == "notification.retraction"
    assert because in taken_back.notifications[0].reason


def test_worker_killed_between_sending_and_noting_sends_the_same_message_again(
    ward: Ward,
) -> None:
    ward.clock.now = datetime.now(UTC)
    with web_server() as server:
        settings = settings_with(pager_at(server.url))
        ward.settings = settings.notifications
        number = ward.flag()
        ward.later(0)
        workers: list[subprocess.Popen[bytes]] = []

        def kill(request: Request) -> Reply:
            wait_until(lambda: workers, "the worker's number is known")
            os.kill(workers[0].pid, signal.SIGKILL)
            return Reply()

        server.usual = kill
        arguments = [ward.database.url, server.url]
        workers.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.results.killed_notifier", *arguments], cwd=PROJECT
            )
        )
        assert workers[0].wait(timeout=60) == -signal.SIGKILL
        assert ward.told(number) == [("ada", "pager", "sending")]
        server.usual = lambda _: Reply()
        ward.clock.now = datetime.now(UTC)
        assert send_all(ward, settings) == 0  # the lease of the one that was killed still holds
        ward.clock.now += timedelta(minutes=5)
        assert send_all(ward, settings) == 1
        assert send_all(ward, settings) == 0
    assert ward.told(number) == [("ada", "pager", "sent")]
    first, second = server.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_the_documented_schema_is_what_is_sent() -> None:
    documented = (PROJECT / "docs" / "notification-v1.schema.json").read_text(encoding="utf-8")
    assert json.loads(documented) == NotificationMessage.model_json_schema(mode="serialization")
