"""The listener as senders know it: frames in pieces, many at once, too long, too slow, repeated."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from sqlalchemy import select

from tests.certificates import Authority
from tests.hl7.messages import Sender, orm
from tests.receiver.hl7.conftest import Listen
from tests.tools import ManualClock, wait_until
from triage.hl7.acknowledgement import read_acknowledgement
from triage.hl7.mllp import framed
from triage.receiver.hl7 import Hl7Intake, Hl7Listener, UnknownMessageError
from triage.settings import Settings, SettingsError
from triage.store.database import Database
from triage.store.hl7_messages import newest_messages
from triage.store.order_tables import Hl7MessageRow, OrderRow


def code(answer: bytes) -> str:
    return read_acknowledgement(answer).code.value


def said(database: Database) -> list[tuple[str, str]]:
    with database.reading() as session:
        return [(row.control_id, row.state.value) for row in newest_messages(session)]


def test_a_message_in_many_packets_and_many_messages_in_one(listen: Listen) -> None:
    with Sender(listen().port) as sender:
        for octet in framed(orm(control_id="1")):
            sender.write(bytes([octet]))
        assert code(sender.answer()) == "AA"
        # A line feed after the frame, as some senders have it, is no part of any message.
        sender.write(b"".join(framed(orm(control_id=str(n))) + b"\n" for n in range(2, 6)))
        answers = [read_acknowledgement(sender.answer()) for _ in range(4)]
        assert [(a.code, a.control_id) for a in answers] == [("AA", str(n)) for n in range(2, 6)]


def test_a_message_that_comes_again_is_answered_again_and_done_once(
    database: Database, listen: Listen
) -> None:
    with Sender(listen().port) as sender:
        assert [code(sender.ask(orm())) for _ in range(2)] == ["AA", "AA"]
    with database.reading() as session:
        assert len(session.scalars(select(OrderRow)).all()) == 1
        assert len(session.scalars(select(Hl7MessageRow)).all()) == 1


def test_a_sender_that_counts_anew_is_not_taken_for_a_repetition(
    database: Database, listen: Listen
) -> None:
    with Sender(listen().port) as sender:
        assert code(sender.ask(orm("S", accession="A1"))) == "AA"
        assert code(sender.ask(orm("S", accession="A2"))) == "AA"
    assert said(database) == [("1", "done"), ("1", "done")]


def test_an_endless_message_is_cut_off(listen: Listen, database: Database) -> None:
    with Sender(listen(maximum_message_kb=16).port) as sender:
        assert code(sender.ask(orm())) == "AA"
        sender.write(b"\x0b" + b"x" * 40_000)
        assert sender.answer() == b""
    assert len(said(database)) == 1


def test_a_slow_sender_is_cut_off_and_holds_up_nobody(listen: Listen) -> None:
    port = listen(message_timeout_s=1.0).port
    with Sender(port) as slow, Sender(port) as quick:
        slow.write(framed(orm())[:20])
        assert code(quick.ask(orm())) == "AA"
        assert slow.answer() == b""
        assert code(quick.ask(orm(control_id="2"))) == "AA"


def test_a_connection_that_breaks_within_a_message_leaves_nothing(
    listen: Listen, database: Database
) -> None:
    port = listen().port
    with Sender(port) as sender:
        sender.write(framed(orm())[:50])
    with Sender(port) as sender:
        assert code(sender.ask(orm(control_id="2"))) == "AA"
    assert said(database) == [("2", "done")]


def test_a_message_that_is_being_processed_when_the_receiver_stops_is_answered(
    sqlite_database: Database, clock: ManualClock, free_port: int
) -> None:
    listener = Hl7Listener(Settings(hl7={"port": free_port}), sqlite_database, clock)
    listener.start()
    with Sender(free_port) as sender:
        assert code(sender.ask(orm())) == "AA"
        with sqlite_database.transaction() as session:  # the message waits for this one
            session.scalars(select(Hl7MessageRow)).all()
            sender.write(framed(orm(control_id="2")))
            wait_until(_is_processing, "the message is being processed")
            stopping = threading.Thread(target=listener.stop)
            stopping.start()
        stopping.join()
        assert code(sender.answer()) == "AA"
    assert said(sqlite_database) == [("2", "done"), ("1", "done")]


def _is_processing() -> bool:
    return any(
        frame.f_code.co_name == "take" and "hl7" in frame.f_code.co_filename
        for top in sys._current_frames().values()
        for frame in _callers(top)
    )


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def test_strangers_are_turned_away(listen: Listen, database: Database) -> None:
    with Sender(listen(allowed_addresses=["192.0.2.0/24"]).port) as sender:
        sender.write(framed(orm()))
        assert sender.answer() == b""
    assert said(database) == []


def test_more_connections_than_allowed_are_closed(listen: Listen) -> None:
    port = listen(maximum_connections=1).port
    with Sender(port) as first:
        assert code(first.ask(orm())) == "AA"
        with Sender(port) as second:
            assert second.answer() == b""
        assert code(first.ask(orm(control_id="2"))) == "AA"


def test_tls_with_a_client_certificate(
    listen: Listen, tmp_path: object, database: Database
) -> None:

    folder = Path(str(tmp_path))
    authority = Authority(folder)
    own, client = authority.sign(file="server"), authority.sign(file="client")
    tls = {
        "certificate": own.certificate,
        "private_key": own.private_key,
        "authorities": authority.certificate,
        "client_certificates": "required",
    }
    port = listen({"tls": tls}, tls=True).port
    context = ssl.create_default_context(cafile=str(authority.certificate))
    assert _asked_over_tls(port, context) == b""
    context.load_cert_chain(client.certificate, client.private_key)
    assert code(_asked_over_tls(port, context)) == "AA"
    assert said(database) == [("1", "done")]


def _asked_over_tls(port: int, context: ssl.SSLContext) -> bytes:
    """Return the answer to an order; empty where the listener turns the client away."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=20)
    try:
        with Sender(port, context.wrap_socket(plain, server_hostname="127.0.0.1")) as sender:
            return sender.ask(orm())
    except OSError:
        return b""


def test_a_port_that_is_taken_is_said_with_the_key(
    listen: Listen, sqlite_database: Database, clock: ManualClock
) -> None:
    port = listen().port
    with pytest.raises(SettingsError, match=r"hl7\.port: cannot listen"):
        Hl7Listener(Settings(hl7={"port": port}), sqlite_database, clock)


def test_what_was_refused_is_processed_again_after_the_settings_were_mended(
    database: Database, clock: ManualClock
) -> None:
    strict = Hl7Intake(Settings(hl7={"allowed_applications": ["PACS"]}), database, clock)
    assert code(strict.take(orm(), "127.0.0.1")) == "AR"
    assert said(database) == [("1", "refused")]
    mended = Hl7Intake(Settings(hl7={}), database, clock)
    with database.reading() as session:
        refused = newest_messages(session)[0].id
    assert mended.take_again(refused) == "the order is kept until its study comes"
    assert said(database) == [("1", "done")]
    with pytest.raises(UnknownMessageError):
        mended.take_again(refused)
    assert code(strict.take(orm(), "127.0.0.1")) == "AA"  # done before, so it is not asked again


def test_other_messages_can_be_let_pass(database: Database, listen: Listen) -> None:
    with Sender(listen(other_messages="ignore").port) as sender:
        assert code(sender.ask(orm().replace(b"ORM^O01", b"SIU^S12"))) == "AA"
    assert said(database) == [("1", "ignored")]


def test_messages_and_orders_without_a_study_go_after_their_time(
    database: Database, clock: ManualClock, listen: Listen
) -> None:
    listener = listen(keep_days=1.0, keep_orders_days=3.0)
    with Sender(listener.port) as sender:
        assert code(sender.ask(orm())) == "AA"
    clock.advance(2 * 86400)
    listener.forget_old()
    assert said(database) == []
    with database.reading() as session:
        assert len(session.scalars(select(OrderRow)).all()) == 1
    clock.advance(2 * 86400)
    listener.forget_old()
    with database.reading() as session:
        assert session.scalars(select(OrderRow)).all() == []
