"""Messages on their way, over real sockets: what is taken, tried again, or left to a person."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.results.hl7.ris import Answer, Ris, said
from tests.results.hl7.samples import PRIORITY, RESULT, destination
from triage.hl7.mllp import framed
from triage.results.delivery.hl7 import CONNECTIONS, tell
from triage.results.errors import DeliveryError
from triage.settings import Hl7Destination, TlsSettings


@pytest.fixture(autouse=True)
def connections_closed() -> Iterator[None]:
    """Leave no connection to the next test."""
    yield
    CONNECTIONS.close()


def ris_at(port: int, **changes: Any) -> Hl7Destination:
    return destination(port=port, **{"timeout_s": 10.0, **changes})


def silent(_: object) -> bytes:
    return b""


def closing(_: object) -> None:
    return None


@pytest.mark.parametrize("code", ["AA", "CA"])
def test_what_is_acknowledged_is_delivered(code: str) -> None:
    with Ris([said(code)]) as ris:
        tell(RESULT, ris_at(ris.port))
        tell(PRIORITY, ris_at(ris.port))
        assert [m.message_type for m in ris.messages] == ["ORU", "ORM"]
        assert ris.connections == 1  # kept between the two


def test_one_connection_per_message_where_the_settings_say_so() -> None:
    with Ris([said("AA")]) as ris:
        for _ in range(2):
            tell(RESULT, ris_at(ris.port, connection="per-message"))
        assert ris.connections == 2


def test_a_kept_connection_that_was_dropped_is_made_anew_and_the_message_has_the_same_id() -> None:
    with Ris([said("AA"), closing, said("AA")]) as ris:
        to = ris_at(ris.port)
        tell(RESULT, to)
        tell(RESULT, to)  # the RIS closes after it came, so it cannot be known whether it took it
        ris.drop()
        tell(RESULT, to)
        assert len({m.control_id for m in ris.messages}) == 1


@pytest.mark.parametrize(
    ("code", "changes", "is_permanent"),
    [
        ("AE", {}, False),
        ("CE", {}, False),
        ("AE", {"retry_errors": False}, True),
        ("AR", {}, True),
        ("CR", {}, True),
    ],
)
def test_what_is_refused_says_why_and_whether_to_try_again(
    code: str, changes: dict[str, Any], is_permanent: bool
) -> None:
    with Ris([said(code, text="no such order")]) as ris, pytest.raises(DeliveryError) as caught:
        tell(RESULT, ris_at(ris.port, **changes))
    assert caught.value.is_permanent is is_permanent
    assert str(caught.value) == f"ris answered {code}, saying 'no such order'"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (silent, "did not answer within 0.5 s"),
        (closing, "closed the connection without an answer"),
        (said("AA", control_id="SOMEBODY-ELSES"), r"acknowledged 'SOMEBODY-ELSES' \(MSA-2\)"),
        (lambda _: framed(b"hello"), "no acknowledgement: MSH"),
        (lambda _: framed(b"MSH|^~\\&|RIS\r"), "no acknowledgement: MSA"),
        (lambda _: b"AA\x1c\r", "without a frame"),
        (lambda _: b"\x0b" + b"x" * (1 << 21), "more than"),
        (said("ZZ"), "MSA-1: this is no acknowledgement code"),
    ],
)
def test_what_is_no_answer_is_tried_again(answer: Answer, reason: str) -> None:
    with Ris([answer]) as ris, pytest.raises(DeliveryError, match=reason) as caught:
        tell(RESULT, ris_at(ris.port, timeout_s=0.5))
    assert not caught.value.is_permanent


def test_a_late_answer_to_an_earlier_message_is_not_taken_for_this_ones() -> None:
    def both(message: Any) -> bytes:
        late = said("AE", control_id="EARLIER")(message)
        assert late
        return late + (said("AA")(message) or b"")

    with Ris([both]) as ris:
        tell(RESULT, ris_at(ris.port))


def test_nobody_listening_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(
        DeliveryError, match=f"cannot be reached at 127.0.0.1 port {port}"
    ) as caught:
        tell(RESULT, ris_at(port))
    assert not caught.value.is_permanent


def test_a_template_that_fails_waits_for_a_person(tmp_path: Path) -> None:
    (tmp_path / "oru.j2").write_text("PID|{{ study.nothing }}\n")
    with pytest.raises(DeliveryError, match=r"oru.j2, line 1 \(PID-1\)") as caught:
        tell(RESULT, ris_at(1, templates=tmp_path))
    assert caught.value.is_permanent


def test_tls_names_the_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    authority, foreign = Authority(tmp_path), Authority(tmp_path, "foreign")
    own = authority.sign(file="ris")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.private_key)
    with Ris([said("AA")], context) as ris:
        good = ris_at(ris.port, tls=True, tls_authorities=authority.certificate)
        good._own = TlsSettings()
        tell(RESULT, good)
        bad = ris_at(ris.port, tls=True, tls_authorities=foreign.certificate)
        with pytest.raises(DeliveryError, match="its certificate is not accepted"):
            tell(RESULT, bad)
