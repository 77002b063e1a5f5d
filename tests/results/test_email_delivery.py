"""Notices by e-mail, to a real SMTP server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.results.mail_server import MailServer, mail_server
from tests.results.outgoing import PUBLIC_URL, Outgoing, outgoing
from tests.tools import ManualClock, find_free_port
from triage.core.errors import TriageError
from triage.results.delivery.email import reach
from triage.results.errors import DeliveryError
from triage.settings import EmailDestination, load_settings
from triage.store.database import Database

PATIENT = ("Muster", "P-17", "19500201", "A-99")


def team_at(server: MailServer, security: str = "none", **more: Any) -> EmailDestination:
    values: dict[str, Any] = {
        "name": "team",
        "kind": "email",
        "host": "127.0.0.1",
        "port": server.port,
        "security": security,
        "sender": "triage@hospital.example",
        "recipients": ("reader@hospital.example", "second@hospital.example"),
        "timeout_s": 5,
    }
    return EmailDestination(**values | more)


def scene(database: Database, tmp_path: Path, clock: ManualClock, **more: Any) -> Outgoing:
    return outgoing(database, tmp_path, clock, team_at(MailServer(9), **more))


def test_result_and_priority_arrive_without_the_patient(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with mail_server() as server:
        out.configure(team_at(server))
        out.deliver_all()
        out.raise_priority()
        out.deliver_all()
    assert out.states() == ["delivered", "delivered"]
    result, priority = server.messages
    assert result["Subject"] == "Routine: Pneumothorax (DX)"
    assert priority["Subject"] == "Priority Routine to STAT (DX)"
    assert (result["Importance"], priority["Importance"]) == (None, "high")
    assert result["To"] == "reader@hospital.example, second@hospital.example"
    assert result["Auto-Submitted"] == "auto-generated"
    for message in server.messages:
        assert [value for value in PATIENT if value in message.as_string()] == []
    text = result.get_content().replace("\r\n", "\n")
    assert "Study: Chest PA, from SCANNER\n" in text
    assert "- Pneumothorax, confidence 0.97\n- No fracture of bone found\n" in text
    assert "Research demonstration, not for clinical use" in text
    assert f"\n{PUBLIC_URL}/studies/{out.study_uid}\n" in text
    why = "from Routine to STAT: Pneumothorax, confidence 0.97, chest-xray 2.1.0"
    assert f"The priority was changed {why}\n" in priority.get_content().replace("\r\n", "\n")


def test_the_patient_is_named_where_the_settings_say_so(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with mail_server() as server:
        out.configure(team_at(server, patient_data=True))
        out.deliver_all()
    text = server.messages[0].get_content().replace("\r\n", "\n")
    assert "Patient: Muster^Anna, ID P-17, born 19500201\nAccession number: A-99\n" in text
    assert "Muster" not in server.messages[0]["Subject"]


def test_a_site_s_own_template_is_filled_in(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    template = tmp_path / "notice.txt"
    template.write_text(
        "KI-Befund: {{ study.priority.label }}\nStudie {{ study.modalities[0] }}, Größe ⚠\n"
        "{% for finding in present %}* {{ finding.code.meaning }}{% endfor %}\n",
        encoding="utf-8",
    )
    out = scene(sqlite_database, tmp_path, clock)
    with mail_server() as server:
        out.configure(team_at(server, template=template))
        out.deliver_all()
    [message] = server.messages
    assert message["Subject"] == "KI-Befund: Routine"
    assert message.get_content().replace("\r\n", "\n") == "Studie DX, Größe ⚠\n* Pneumothorax\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ study.nothing }}", "cannot be filled in: UndefinedError"),
        ("{{ ''.__class__.__mro__ }}", "cannot be filled in: SecurityError"),
        ("{% if %}", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_template_is_said_and_waits_for_its_mending(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock, text: str | None, words: str
) -> None:
    template = tmp_path / "notice.txt"
    if text is not None:
        template.write_text(text)
    out = scene(sqlite_database, tmp_path, clock)
    with mail_server() as server:
        out.configure(team_at(server, template=template))
        out.deliver()
        assert out.states() == ["waiting"]
        assert words in out.last_error()
        template.write_text("Mended\nText")
        clock.advance(60)
        out.deliver()
    assert out.states() == ["delivered"]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_over_tls_with_a_login(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock, security: str
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    out = scene(sqlite_database, tmp_path, clock)
    login = {"username": "triage", "password": "a password"}
    with mail_server(authority.sign(), security=security, with_login=True) as server:
        out.configure(team_at(server, security, authorities=other.certificate, **login))
        out.deliver()
        assert "its certificate is not accepted" in out.last_error()
        assert "; set authorities" in out.last_error()
        clock.advance(60)
        trusted = team_at(server, security, authorities=authority.certificate, **login)
        out.configure(trusted)
        out.deliver_all()
        assert out.states() == ["delivered"]
        assert server.users == ["triage"]
        assert reach(trusted).startswith(f"127.0.0.1:{server.port} answers over ")
        wrong = trusted.model_copy(update={"password": "another"})
        with pytest.raises(DeliveryError, match=r"does not let us log in \(535\); check username"):
            reach(wrong)


@pytest.mark.parametrize(
    ("answer", "state"), [("451 try again later", "waiting"), ("554 looks like spam", "dead")]
)
def test_a_message_that_is_refused_says_why(
    sqlite_database: Database,
    tmp_path: Path,
    clock: ManualClock,
    answer: str,
    state: str,
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with mail_server() as server:
        server.answers = [answer]
        out.configure(team_at(server))
        out.deliver()
        assert out.states() == [state]
        assert f"answered {answer[:3]}, saying '{answer[4:]}'" in out.last_error()


def test_a_recipient_that_is_refused_is_named_and_the_others_have_got_it(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with mail_server() as server:
        server.refusals = {"second@hospital.example": "550 no such user"}
        out.configure(team_at(server))
        out.deliver()
    assert out.states() == ["dead"]
    assert out.last_error() == (
        "team refused 1 of 2 recipients: second@hospital.example (550), saying 'no such user'"
    )
    assert [envelope.rcpt_tos for envelope in server.envelopes] == [["reader@hospital.example"]]


def test_another_attempt_has_the_same_message_id(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with mail_server() as server:
        server.refusals = {"second@hospital.example": "450 later"}
        out.configure(team_at(server))
        out.deliver()
        server.refusals = {}
        clock.advance(2)
        out.deliver()
    assert out.states() == ["delivered"]
    first, second = server.messages
    assert first["Message-ID"] == second["Message-ID"]
    assert first["Message-ID"].endswith("@hospital.example>")


def test_a_server_that_is_away_is_tried_again(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    out.configure(team_at(MailServer(find_free_port())))
    out.deliver()
    assert out.states() == ["waiting"]
    assert "cannot be reached: Connection refused" in out.last_error()


def test_a_server_without_tls_gets_nothing_where_tls_is_asked_for(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = scene(sqlite_database, tmp_path, clock)
    with mail_server() as server:
        for security in ("starttls", "tls"):
            out.configure(team_at(server, security))
            assert out.deliver()
            assert "check security" in out.last_error()
            clock.advance(60)
        assert server.messages == []


def test_a_password_is_never_configured_to_be_sent_in_the_clear() -> None:
    values = team_at(MailServer(25)).model_dump() | {"username": "triage", "password": "hidden"}
    with pytest.raises(TriageError, match="destinations 'team': with security = ") as raised:
        load_settings(destinations=[values])
    assert "hidden" not in str(raised.value)
