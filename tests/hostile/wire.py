"""PDUs and DIMSE messages put together byte by byte, so that every field can lie.

DICOM PS3.8 section 9.3 has the PDUs, PS3.7 annex E the command elements.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

C_STORE_RQ, C_ECHO_RQ = 0x0001, 0x0030
NO_DATA_SET, WITH_DATA_SET = 0x0101, 0x0001

COMMAND, DATA, LAST = 0x01, 0x00, 0x02

ECHO_CONTEXT, STORE_CONTEXT = 1, 3
CONTEXTS = ((ECHO_CONTEXT, VERIFICATION), (STORE_CONTEXT, CT_IMAGE_STORAGE))


def pdu(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    """Return a PDU; `length` is the lie about its length, if there is one."""
    return struct.pack(">BBL", kind, 0, len(body) if length is None else length) + body


def item(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    """Return an item of an A-ASSOCIATE PDU."""
    said = min(len(body), 0xFFFF) if length is None else length
    return struct.pack(">BBH", kind, 0, said) + body


def presentation_context(
    number: int, abstract_syntax: str, transfer_syntax: str = EXPLICIT_LITTLE_ENDIAN
) -> bytes:
    """Return a proposed presentation context (PS3.8 9.3.2.2)."""
    inner = item(0x30, abstract_syntax.encode()) + item(0x40, transfer_syntax.encode())
    return item(0x20, bytes([number, 0, 0, 0]) + inner)


USER_INFORMATION = item(
    0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3.4") + item(0x55, b"HOSTILE")
)


def associate_rq(
    *,
    contexts: Sequence[tuple[int, str]] = CONTEXTS,
    called: bytes = b"TRIAGE".ljust(16),
    calling: bytes = b"HOSTILE".ljust(16),
    version: int = 1,
    application_context: bytes = APPLICATION_CONTEXT.encode(),
    user_information: bytes = USER_INFORMATION,
    length: int | None = None,
) -> bytes:
    """Return an A-ASSOCIATE-RQ (PS3.8 9.3.2)."""
    items = item(0x10, application_context)
    items += b"".join(presentation_context(n, syntax) for n, syntax in contexts)
    head = struct.pack(">HH", version, 0) + called + calling + bytes(32)
    return pdu(ASSOCIATE_RQ, head + items + user_information, length=length)


def pdv(context: int, control: int, content: bytes, *, length: int | None = None) -> bytes:
    """Return a presentation data value item (PS3.8 9.3.5.1)."""
    said = len(content) + 2 if length is None else length
    return struct.pack(">LBB", said, context, control) + content


def p_data(context: int, control: int, content: bytes, *, length: int | None = None) -> bytes:
    """Return a P-DATA-TF with one item; `length` is the lie about the item's length."""
    return pdu(P_DATA, pdv(context, control, content, length=length))


def element(number: int, value: bytes, *, length: int | None = None) -> bytes:
    """Return a command element (0000,`number`) in Implicit VR Little Endian."""
    value += b"\x00" * (len(value) % 2)
    return struct.pack("<HHL", 0, number, len(value) if length is None else length) + value


def short(number: int, value: int) -> bytes:
    """Return a command element of VR US."""
    return element(number, struct.pack("<H", value))


def command(*elements: bytes, group_length: int | None = None) -> bytes:
    """Return a command set with its group length, true or not."""
    content = b"".join(elements)
    said = len(content) if group_length is None else group_length
    return element(0x0000, struct.pack("<L", said)) + content


def echo_command(message_id: int = 1) -> bytes:
    """Return a C-ECHO-RQ (PS3.7 9.3.5.1)."""
    return command(
        element(0x0002, VERIFICATION.encode()),
        short(0x0100, C_ECHO_RQ),
        short(0x0110, message_id),
        short(0x0800, NO_DATA_SET),
    )


def store_elements(sop_instance_uid: str, message_id: int = 1) -> dict[int, bytes]:
    """Return the elements of a C-STORE-RQ by number, for a case to change (PS3.7 9.3.1.1)."""
    return {
        0x0002: element(0x0002, CT_IMAGE_STORAGE.encode()),
        0x0100: short(0x0100, C_STORE_RQ),
        0x0110: short(0x0110, message_id),
        0x0700: short(0x0700, 2),
        0x0800: short(0x0800, WITH_DATA_SET),
        0x1000: element(0x1000, sop_instance_uid.encode()),
    }


def store_command(sop_instance_uid: str, message_id: int = 1) -> bytes:
    """Return a C-STORE-RQ."""
    return command(*store_elements(sop_instance_uid, message_id).values())


@dataclass(frozen=True, slots=True)
class Pdu:
    """What the receiver sent."""

    kind: int
    body: bytes

    @property
    def status(self) -> int | None:
        """The Status (0000,0900) of a response, None in any other PDU."""
        at = self.body.find(struct.pack("<HHL", 0, 0x0900, 2))
        if self.kind != P_DATA or at < 0:
            return None
        return int(struct.unpack_from("<H", self.body, at + 8)[0])


class RawPeer:
    """A connection to the receiver that sends what it is told to."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def is_silent(self) -> bool:
        """Return whether nothing of the receiver waits to be read, not even its hanging up."""
        return not select.select([self._socket], [], [], 0)[0]

    def send(self, *pieces: bytes) -> bool:
        """Send; return whether the receiver still takes it."""
        try:
            for piece in pieces:
                self._socket.sendall(piece)
        except OSError:
            return False
        return True

    def end_of_sending(self) -> None:
        """Close our half of the connection, if it is still there."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def read(self) -> Pdu | None:
        """Return the next PDU of the receiver, None where it closed the connection.

        Raises:
            TimeoutError: it did neither.
        """
        head = self._exactly(6)
        if head is None:
            return None
        kind, _, length = struct.unpack(">BBL", head)
        body = self._exactly(length)
        return None if body is None else Pdu(kind, body)

    def _exactly(self, count: int) -> bytes | None:
        received = bytearray()
        while len(received) < count:
            try:
                chunk = self._socket.recv(count - len(received))
            except ConnectionError:
                return None
            if not chunk:
                return None
            received += chunk
        return bytes(received)

    def read_to_the_end(self) -> list[Pdu]:
        """Return all that comes until the receiver closes the connection.

        Raises:
            TimeoutError: it does not.
        """
        found = []
        while (one := self.read()) is not None:
            found.append(one)
        return found

    def read_while_it_speaks(self, patience_s: float) -> list[Pdu]:
        """Return what comes until nothing has come for `patience_s`, or to the end."""
        found = []
        patience = self._socket.gettimeout()
        self._socket.settimeout(patience_s)
        with contextlib.suppress(TimeoutError):
            while (one := self.read()) is not None:
                found.append(one)
        self._socket.settimeout(patience)
        return found

    def associate(self) -> None:
        """Open an association with a context for C-ECHO and one for C-STORE of CT."""
        self.send(associate_rq())
        answer = self.read()
        assert answer is not None
        assert answer.kind == ASSOCIATE_AC
