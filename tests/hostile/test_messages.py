"""PDUs and DIMSE messages that no peer should send, byte by byte into a real receiver.

Each case ends in a response with a failure status, a reject, an abort or a closed connection, and
soon; what the `target` fixture looks at afterwards holds for all of them.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest

from tests.hostile.conftest import NETWORK_TIMEOUT_S, SOP_INSTANCE, Target
from tests.hostile.data_sets import encoded, victim
from tests.hostile.wire import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    COMMAND,
    CT_IMAGE_STORAGE,
    DATA,
    ECHO_CONTEXT,
    LAST,
    NO_DATA_SET,
    P_DATA,
    RELEASE_RP,
    STORE_CONTEXT,
    VERIFICATION,
    RawPeer,
    associate_rq,
    command,
    echo_command,
    element,
    item,
    p_data,
    pdu,
    pdv,
    presentation_context,
    short,
    store_command,
    store_elements,
)
from tests.tools import wait_until

_ENDS_WITHIN_S = NETWORK_TIMEOUT_S * 2 + 2

BEFORE_AN_ASSOCIATION = {
    "P-DATA before the association": p_data(ECHO_CONTEXT, COMMAND | LAST, echo_command()),
    "release before the association": pdu(5, bytes(4)),
    "abort before the association": pdu(ABORT, bytes(4)),
    "response before the association": pdu(ASSOCIATE_AC, bytes(68)),
    "type of PDU that there is not": pdu(0x99, bytes(100)),
    "PDU of 4 GB": pdu(ASSOCIATE_RQ, b"\x00\x01", length=0xFFFFFFFF),
    "PDU of 60 MB that does not come": pdu(ASSOCIATE_RQ, b"\x00\x01", length=60_000_000),
    "half a head": b"\x01\x00\x00",
    "HTTP": b"GET / HTTP/1.1\r\nHost: triage\r\n\r\n",
    "TLS": bytes.fromhex("16030100f4010000f00303") + bytes(240),
    "association request that is cut off": associate_rq()[:-40],
    "association request shorter than it is": associate_rq(length=80),
    "association request longer than it is": associate_rq(length=5000),
    "empty association request": pdu(ASSOCIATE_RQ, b""),
    "association request without items": pdu(ASSOCIATE_RQ, bytes(68)),
    "random bytes after the head": pdu(ASSOCIATE_RQ, bytes(range(256)) * 8),
    "item longer than the PDU": associate_rq(
        user_information=item(0x50, b"\x51\x00\x00\x04", length=0xFFFF)
    ),
    "sub-item longer than its item": associate_rq(
        user_information=item(0x50, item(0x51, bytes(4), length=0xFFFF))
    ),
    "maximum length of one byte": associate_rq(user_information=item(0x50, item(0x51, b"\x01"))),
    "unknown sub-items": associate_rq(
        user_information=item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x99, b"x" * 999))
    ),
    "thousand extended negotiations": associate_rq(
        user_information=item(0x50, item(0x56, b"\x00\x11" + VERIFICATION.encode() + b"x") * 1000)
    ),
    "user identity that lies about its length": associate_rq(
        user_information=item(0x50, item(0x58, b"\x01\x01\xff\xffroot"))
    ),
    "presentation context without syntaxes": associate_rq(
        contexts=(), user_information=item(0x20, bytes(4)) + item(0x50, b"")
    ),
    "context with even number": associate_rq(contexts=[(2, VERIFICATION)]),
    "abstract syntax of 60 kB": associate_rq(contexts=[(1, "1." * 30_000 + "1")]),
    "application context of 60 kB": associate_rq(application_context=b"1." * 30_000),
    "AE titles of 64 kB": associate_rq(called=b"T" * 65_536, calling=b"H" * 65_536),
    "AE titles of NULs": associate_rq(called=bytes(16), calling=bytes(16)),
    "AE titles of control characters": associate_rq(calling=b"\x1b[2J\r\n\x07\x80\xff".ljust(16)),
}


@pytest.mark.parametrize("content", BEFORE_AN_ASSOCIATION.values(), ids=BEFORE_AN_ASSOCIATION)
def test_peer_that_cannot_open_an_association_is_let_go(target: Target, content: bytes) -> None:
    with target.peer() as peer:
        peer.send(content)
        ended = end_of(peer)
    assert ended in {"aborted", "rejected", "closed", "accepted"}


def end_of(peer: RawPeer) -> str:
    """Return how the receiver ends what it does not understand; fail if it does not."""
    try:
        answer = peer.read()
        if answer is None:
            return "closed"
        names = {ABORT: "aborted", ASSOCIATE_RJ: "rejected", ASSOCIATE_AC: "accepted"}
        peer.end_of_sending()
        peer.read_to_the_end()
    except TimeoutError:
        pytest.fail("the receiver keeps a connection on which nothing sensible comes")
    return names.get(answer.kind, f"PDU {answer.kind}")


@pytest.mark.parametrize("version", [0, 2, 0xFFFF])
def test_protocol_version_that_there_is_not_is_rejected_or_accepted_as_one(
    target: Target, version: int
) -> None:
    with target.peer() as peer:
        peer.send(associate_rq(version=version))
        assert end_of(peer) in {"rejected", "accepted"}


def test_two_hundred_contexts_do_no_harm(target: Target) -> None:
    numbers = [1 + 2 * n % 256 for n in range(200)]
    with target.peer() as peer:
        peer.send(associate_rq(contexts=[(n, CT_IMAGE_STORAGE) for n in numbers]))
        assert end_of(peer) in {"aborted", "rejected", "accepted"}


def test_second_association_request_is_aborted(target: Target) -> None:
    with target.peer() as peer:
        peer.associate()
        peer.send(associate_rq())
        assert end_of(peer) == "aborted"


def test_contexts_that_share_a_number_do_no_harm(target: Target) -> None:
    twice = presentation_context(1, VERIFICATION) + presentation_context(1, CT_IMAGE_STORAGE)
    with target.peer() as peer:
        peer.send(associate_rq(contexts=(), user_information=twice + item(0x50, b"")))
        assert end_of(peer) in {"aborted", "rejected", "accepted"}


def without(number: int) -> bytes:
    """Return a C-STORE-RQ that lacks an element."""
    elements = store_elements(SOP_INSTANCE)
    del elements[number]
    return command(*elements.values())


def with_changed(number: int, changed: bytes) -> bytes:
    """Return a C-STORE-RQ of which one element is another."""
    return command(*(store_elements(SOP_INSTANCE) | {number: changed}).values())


WRONG_COMMANDS = {
    "no Affected SOP Class UID": without(0x0002),
    "no Command Field": without(0x0100),
    "no Message ID": without(0x0110),
    "no Command Data Set Type": without(0x0800),
    "no Affected SOP Instance UID": without(0x1000),
    "unknown Command Field": with_changed(0x0100, short(0x0100, 0x7777)),
    "Command Field of a response": with_changed(0x0100, short(0x0100, 0x8001)),
    "Command Field of C-ECHO": with_changed(0x0100, short(0x0100, 0x0030)),
    "Command Field of C-CANCEL": with_changed(0x0100, short(0x0100, 0x0FFF)),
    "Command Field of N-EVENT-REPORT": with_changed(0x0100, short(0x0100, 0x0100)),
    "Command Field of C-FIND": with_changed(0x0100, short(0x0100, 0x0020)),
    "Command Field of four bytes": with_changed(0x0100, element(0x0100, bytes([1, 0, 0, 0]))),
    "empty Message ID": with_changed(0x0110, element(0x0110, b"")),
    "SOP class of another context": with_changed(0x0002, element(0x0002, VERIFICATION.encode())),
    "SOP class that is none": with_changed(0x0002, element(0x0002, b"../../etc/passwd")),
    "SOP instance of 4 GB": with_changed(0x1000, element(0x1000, b"1.2", length=0xFFFFFFF0)),
    "SOP instance of 60 kB": with_changed(0x1000, element(0x1000, b"1." * 30_000 + b"1")),
    "SOP instance of NULs": with_changed(0x1000, element(0x1000, bytes(64))),
    "wrong group length": command(*store_elements(SOP_INSTANCE).values(), group_length=4),
    "group length of 4 GB": command(
        *store_elements(SOP_INSTANCE).values(), group_length=0xFFFFFFFF
    ),
    "empty command": b"",
    "command that is no data set": b"\xff" * 60,
    "command with a sequence without end": struct.pack("<HHL", 0, 0x1001, 0xFFFFFFFF) * 2000,
}


# Nothing depends on them, and an image is worth more than its group length.
HARMLESS = [WRONG_COMMANDS["wrong group length"], WRONG_COMMANDS["group length of 4 GB"]]


@pytest.mark.parametrize("content", WRONG_COMMANDS.values(), ids=WRONG_COMMANDS)
def test_wrong_command_ends_in_an_error_status_or_an_abort(target: Target, content: bytes) -> None:
    with target.peer() as peer:
        peer.associate()
        peer.send(
            target.renewed(p_data(STORE_CONTEXT, COMMAND | LAST, content)),
            target.renewed(p_data(STORE_CONTEXT, DATA | LAST, encoded(victim()))),
        )
        status = status_or_end(peer)
    if status == 0:
        assert content in HARMLESS
        assert len(target.rows()) == 1
    else:
        assert target.rows() == []


def status_or_end(peer: RawPeer) -> int | None:
    """Return the status of a response, None where the association ends; fail if neither comes."""
    try:
        answer = peer.read()
    except TimeoutError:
        pytest.fail("the receiver neither answers nor ends the association")
    if answer is None or answer.kind == ABORT:
        return None
    assert answer.kind == P_DATA
    return answer.status


def test_priority_that_is_missing_loses_no_image(target: Target) -> None:
    with target.peer() as peer:
        peer.associate()
        peer.send(
            target.renewed(p_data(STORE_CONTEXT, COMMAND | LAST, without(0x0700))),
            target.renewed(p_data(STORE_CONTEXT, DATA | LAST, encoded(victim()))),
        )
        if status_or_end(peer) == 0:
            assert len(target.rows()) == 1


WRONG_ORDERS: dict[str, tuple[bytes, ...]] = {
    "data set without a command": (p_data(STORE_CONTEXT, DATA | LAST, encoded(victim())),),
    "command that never ends": (p_data(STORE_CONTEXT, COMMAND, store_command(SOP_INSTANCE)),),
    "command without its data set": (
        p_data(STORE_CONTEXT, COMMAND | LAST, store_command(SOP_INSTANCE)),
    ),
    "data set that never ends": (
        p_data(STORE_CONTEXT, COMMAND | LAST, store_command(SOP_INSTANCE)),
        p_data(STORE_CONTEXT, DATA, encoded(victim())),
    ),
    "data set though the command says there is none": (
        p_data(STORE_CONTEXT, COMMAND | LAST, with_changed(0x0800, short(0x0800, NO_DATA_SET))),
        p_data(STORE_CONTEXT, DATA | LAST, encoded(victim())),
    ),
    "context that was not accepted": (
        p_data(99, COMMAND | LAST, store_command(SOP_INSTANCE)),
        p_data(99, DATA | LAST, encoded(victim())),
    ),
    "context 0": (p_data(0, COMMAND | LAST, echo_command()),),
    "command on one context, data set on another": (
        p_data(STORE_CONTEXT, COMMAND | LAST, store_command(SOP_INSTANCE)),
        p_data(ECHO_CONTEXT, DATA | LAST, encoded(victim())),
    ),
    "command within the data set": (
        p_data(STORE_CONTEXT, COMMAND | LAST, store_command(SOP_INSTANCE)),
        p_data(STORE_CONTEXT, DATA, encoded(victim())[:100]),
        p_data(ECHO_CONTEXT, COMMAND | LAST, echo_command()),
        p_data(STORE_CONTEXT, DATA | LAST, encoded(victim())[100:]),
    ),
    "fragment without a control header": (pdu(P_DATA, struct.pack(">LB", 1, STORE_CONTEXT)),),
    "fragment of no length": (pdu(P_DATA, struct.pack(">L", 0)),),
    "P-DATA without a fragment": (pdu(P_DATA, b""),),
    "fragment longer than its PDU": (p_data(STORE_CONTEXT, COMMAND | LAST, b"x", length=5000),),
    "fragment of 4 GB": (p_data(STORE_CONTEXT, COMMAND | LAST, b"x", length=0xFFFFFFFF),),
    "fragment shorter than its PDU": (
        p_data(STORE_CONTEXT, COMMAND | LAST, store_command(SOP_INSTANCE), length=10),
    ),
    "reserved bits of the control header": (
        p_data(STORE_CONTEXT, 0xFF, store_command(SOP_INSTANCE)),
        p_data(STORE_CONTEXT, 0xFE, encoded(victim())),
    ),
    "PDU of 4 GB": (pdu(P_DATA, b"x", length=0xFFFFFFFF),),
    "PDU far longer than negotiated": (
        pdu(P_DATA, pdv(STORE_CONTEXT, COMMAND, b"\x00" * 32_000_000)),
    ),
    "PDU that is cut off": (p_data(STORE_CONTEXT, COMMAND, store_command(SOP_INSTANCE))[:-9],),
}


@pytest.mark.parametrize("pdus", WRONG_ORDERS.values(), ids=WRONG_ORDERS)
def test_wrong_order_ends_in_an_error_status_or_an_abort(
    target: Target, pdus: tuple[bytes, ...]
) -> None:
    with target.peer() as peer:
        peer.associate()
        peer.send(*map(target.renewed, pdus))
        status = status_or_end(peer)
    # The bits of the control header that are reserved shall not be looked at (PS3.8 E.2).
    assert status != 0 or len(target.rows()) == 1


def test_message_id_used_again_loses_no_image(target: Target) -> None:
    with target.peer() as peer:
        peer.associate()
        for number in range(1, 6):
            dataset = victim(SOPInstanceUID=f"{SOP_INSTANCE}.{number}")
            peer.send(
                p_data(STORE_CONTEXT, COMMAND | LAST, store_command(dataset.SOPInstanceUID, 7)),
                p_data(STORE_CONTEXT, DATA | LAST, encoded(dataset)),
            )
        assert [status_or_end(peer) for _ in range(5)] == [0] * 5
    assert len(target.rows()) == 5


def test_flood_of_echoes_is_answered_one_by_one(target: Target) -> None:
    with target.peer() as peer:
        peer.associate()
        flood = b"".join(
            p_data(ECHO_CONTEXT, COMMAND | LAST, echo_command(n)) for n in range(1, 501)
        )
        peer.send(flood)
        assert all(status_or_end(peer) == 0 for _ in range(500))
        peer.send(pdu(5, bytes(4)))
        answer = peer.read()
        assert answer is not None
        assert answer.kind == RELEASE_RP


def test_many_associations_that_are_aborted_at_once_are_forgotten(target: Target) -> None:
    for _ in range(50):
        with target.peer() as peer:
            peer.associate()
            peer.send(pdu(ABORT, bytes(4)))


nothing_limits_a_message = pytest.mark.xfail(
    strict=True,
    reason="transport: the idle timer starts anew with each byte and each PDU, and nothing limits "
    "the time that a whole message or association request may take",
)


def ends_in_time(target: Target, opening: bytes, drip: Callable[[], bytes]) -> bool:
    """Send something every little while; return whether the receiver ends that in time."""
    began = time.monotonic()
    with target.peer() as peer:
        if opening:
            peer.associate()
            peer.send(opening)
        while time.monotonic() - began < _ENDS_WITHIN_S:
            if not peer.send(drip()):
                return True
            time.sleep(0.05)
    return False


@nothing_limits_a_message
def test_stream_of_empty_fragments_does_not_hold_a_thread_for_ever(target: Target) -> None:
    command_set = p_data(STORE_CONTEXT, COMMAND | LAST, store_command(SOP_INSTANCE))
    assert ends_in_time(target, command_set, lambda: p_data(STORE_CONTEXT, DATA, b""))


@nothing_limits_a_message
def test_pdu_that_comes_byte_by_byte_does_not_hold_a_thread_for_ever(target: Target) -> None:
    head = pdu(P_DATA, b"", length=100_000)
    assert ends_in_time(target, head, lambda: b"\x00")


@nothing_limits_a_message
def test_association_request_byte_by_byte_does_not_hold_a_thread_for_ever(
    target: Target,
) -> None:
    rest = iter(associate_rq())
    assert ends_in_time(target, b"", lambda: bytes([next(rest)]))


def test_connections_that_say_nothing_leave_room_for_others(target: Target) -> None:
    silent = [target.peer() for _ in range(100)]
    try:
        wait_until(
            lambda: answers(target), "others get an association again", timeout_s=_ENDS_WITHIN_S
        )
    finally:
        for peer in silent:
            peer.__exit__(None, None, None)


def answers(target: Target) -> bool:
    """Whether a C-ECHO is answered now."""
    try:
        return target.answers_echo()
    except (AssertionError, OSError):
        return False


def test_association_that_says_nothing_is_ended(target: Target) -> None:
    with target.peer() as peer:
        peer.associate()
        assert status_or_end(peer) is None
