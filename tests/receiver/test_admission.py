"""Who may call: what senders see, and what the rules say."""

from __future__ import annotations

import socket
import subprocess
from typing import Any

import pytest
from pynetdicom.association import Association

from tests.receiver.conftest import StartReceiver, associate, port_of
from tests.tools import require_tool, wait_until
from triage.receiver.admission import Admission, Request
from triage.settings import load_settings
from triage.store.database import Database

UNKNOWN_CALLER = (1, 1, 3)
UNKNOWN_CALLED = (1, 1, 7)
LIMIT = (2, 3, 2)


def rejection(association: Association) -> tuple[int, int, int] | None:
    """Return the fields of the A-ASSOCIATE-RJ that the association ended with."""
    if not association.is_rejected:
        return None
    answer: Any = association.acceptor.primitive
    return (answer.result, answer.result_source, answer.diagnostic)


def verdict(request: dict[str, Any], **sections: Any) -> tuple[int, int, int] | None:
    """Return how one request is answered."""
    asked = {"calling_ae_title": "CT1", "called_ae_title": "TRIAGE", "address": "10.1.2.3"}
    admission = Admission(load_settings(**sections))
    found = admission.admit(Request(**{"is_tls": False, **asked, **request}), lambda: True)
    return (found.result, found.source, found.diagnostic) if found is not None else None


CT1 = {"ae_title": "CT1", "addresses": ["10.1.2.0/24", "fd00::/8"]}


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ({}, None),
        ({"calling_ae_title": "CT1  "}, None),
        ({"address": "10.1.3.3"}, UNKNOWN_CALLER),
        ({"address": "::ffff:10.1.2.3"}, None),
        ({"address": "fd00::1"}, None),
        ({"address": "fe80::1%eth0"}, UNKNOWN_CALLER),
        ({"calling_ae_title": "MR1", "address": "192.0.2.1"}, None),
        ({"calling_ae_title": "US1"}, UNKNOWN_CALLER),
        ({"calling_ae_title": "US2", "is_tls": True}, None),
        ({"calling_ae_title": "US2"}, UNKNOWN_CALLER),
        ({"calling_ae_title": "OLD"}, None),
    ],
)
def test_sender_is_known_by_title_address_and_tls(
    request_: dict[str, Any], answer: tuple[int, int, int] | None
) -> None:
    senders = [CT1, {"ae_title": "MR1"}, {"ae_title": "US2", "require_tls": True}]
    receiver = {"allowed_calling_ae_titles": ["OLD"]}
    assert verdict(request_, senders=senders, receiver=receiver) == answer


def test_everybody_may_call_where_nobody_is_named() -> None:
    assert verdict({"calling_ae_title": "ANY", "address": "192.0.2.1"}) is None


def test_ended_associations_make_room() -> None:
    going_on = True
    admission = Admission(load_settings(receiver={"maximum_associations_per_sender": 1}))
    asked = Request("CT1", "TRIAGE", "10.1.2.3", is_tls=False)

    assert admission.admit(asked, lambda: going_on) is None
    assert admission.admit(asked, lambda: True) is not None
    assert admission.admit(Request("MR1", "X", "10.1.2.4", is_tls=False), lambda: True) is None
    going_on = False
    assert admission.admit(asked, lambda: True) is None


def test_senders_see_the_reason_of_a_rejection(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    senders = [
        {"ae_title": "HERE", "addresses": ["127.0.0.0/8"], "maximum_associations": 1},
        {"ae_title": "ELSEWHERE", "addresses": ["192.0.2.0/24"]},
    ]
    receiver = start_receiver(
        sqlite_database, settings={"senders": senders}, require_called_ae_title=True
    )
    assert rejection(associate(receiver, calling="STRANGER")) == UNKNOWN_CALLER
    assert rejection(associate(receiver, calling="ELSEWHERE")) == UNKNOWN_CALLER
    assert rejection(associate(receiver, calling="HERE", called="OTHER")) == UNKNOWN_CALLED
    first = associate(receiver, calling="HERE")
    assert first.is_established
    assert rejection(associate(receiver, calling="HERE")) == LIMIT
    first.release()
    wait_until(lambda: associate(receiver, calling="HERE").is_established, "there is room again")


def test_dcmtk_reports_the_reasons(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    echoscu = require_tool("echoscu")
    receiver = start_receiver(
        sqlite_database, settings={"senders": [{"ae_title": "HERE"}]}, require_called_ae_title=True
    )

    def echo(calling: str, called: str) -> str:
        arguments = ["-aet", calling, "-aec", called, "127.0.0.1", str(port_of(receiver))]
        ended = subprocess.run([echoscu, *arguments], check=False, capture_output=True, text=True)
        return "ok" if ended.returncode == 0 else ended.stderr

    assert echo("HERE", "TRIAGE") == "ok"
    assert "Calling AE Title Not Recognized" in echo("STRANGER", "TRIAGE")
    assert "Called AE Title Not Recognized" in echo("HERE", "OTHER")


def test_address_of_no_sender_is_closed_before_it_speaks(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    senders = [{"ae_title": "ELSEWHERE", "addresses": ["192.0.2.0/24"]}]
    receiver = start_receiver(
        sqlite_database, settings={"senders": senders}, close_unknown_addresses=True
    )
    with socket.create_connection(("127.0.0.1", port_of(receiver)), timeout=10) as connection:
        assert connection.recv(1) == b""


def test_silent_connections_keep_no_sender_out(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database, maximum_associations=1)
    address = ("127.0.0.1", port_of(receiver))
    silent = [socket.create_connection(address) for _ in range(3)]
    assert associate(receiver).is_established
    for connection in silent:
        connection.close()


def test_connections_without_a_request_are_bounded(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database, maximum_associations=1)
    address = ("127.0.0.1", port_of(receiver))
    silent = [socket.create_connection(address, timeout=10) for _ in range(8)]
    # Four connections for each association are let to be silent, and each further one is closed.
    assert [connection.recv(1) for connection in silent[4:]] == [b""] * 4
    for connection in silent:
        connection.close()
    wait_until(lambda: associate(receiver).is_established, "there is room again")
