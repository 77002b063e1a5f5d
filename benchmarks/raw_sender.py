"""A C-STORE sender that sends a data set as slowly, or as large, as a benchmark wants it."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterable, Iterator

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context

_COMMAND, _LAST = 0x01, 0x02
_PDU_BYTES = 128 * 1024


class RawSender:
    """An association for one SOP class whose data sets are given as already encoded pieces.

    Pynetdicom negotiates and releases; in between, PDUs are written here, because it would hold a
    data set of 2 GB in memory.
    """

    def __init__(self, port: int, sop_class_uid: str, calling_ae_title: str = "SENDER") -> None:
        entity = AE(ae_title=calling_ae_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = None
        self._sop_class_uid = sop_class_uid
        self._association = entity.associate(
            "127.0.0.1", port, contexts=[build_context(sop_class_uid, ExplicitVRLittleEndian)]
        )
        if not self._association.is_established:
            raise SystemExit("the receiver refuses the association")
        transport = self._association.dul.socket
        assert transport is not None
        assert transport.socket is not None
        # From here on nobody else reads or writes the socket.
        self._association._reactor_checkpoint.clear()
        self._association.dul._kill_thread = True
        self._association.dul.join()
        self._socket: socket.socket = transport.socket
        self._socket.settimeout(600)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def begin(self, sop_instance_uid: str) -> None:
        """Send the command of a C-STORE request (DICOM PS3.7 table 9.3-1)."""
        elements = b"".join(
            (
                _element(0x0002, _padded(self._sop_class_uid)),
                _element(0x0100, struct.pack("<H", 0x0001)),
                _element(0x0110, struct.pack("<H", 1)),
                _element(0x0700, struct.pack("<H", 0)),
                _element(0x0800, struct.pack("<H", 1)),
                _element(0x1000, _padded(sop_instance_uid)),
            )
        )
        command = _element(0x0000, struct.pack("<I", len(elements))) + elements
        self._socket.sendall(_value_pdu(_COMMAND | _LAST, command))

    def send_piece(self, piece: bytes, *, is_last: bool = False) -> None:
        """Send the next bytes of the data set."""
        self._socket.sendall(_value_pdu(_LAST if is_last else 0, piece))

    def status(self) -> int:
        """Return the status of the answer (0000,0900)."""
        header = self._receive(6)
        content = self._receive(struct.unpack(">xxI", header)[0])
        place = content.index(struct.pack("<HHI", 0x0000, 0x0900, 2)) + 8
        return int(struct.unpack_from("<H", content, place)[0])

    def send(self, sop_instance_uid: str, pieces: Iterable[bytes]) -> int:
        """Send a whole data set and return the status of the answer."""
        self.begin(sop_instance_uid)
        for piece in pieces:
            for part in _split(piece):
                self.send_piece(part)
        self.send_piece(b"", is_last=True)
        return self.status()

    def close(self) -> None:
        """Release the association (DICOM PS3.8 9.3.6)."""
        self._socket.sendall(struct.pack(">BxII", 0x05, 4, 0))
        self._receive(10)
        self._socket.close()

    def is_open(self) -> bool:
        """Return whether the receiver has neither answered nor hung up."""
        return not select.select([self._socket], [], [], 0)[0]

    def abandon(self) -> None:
        """Close the connection in the middle of what was being sent."""
        self._socket.close()

    def _receive(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            chunk = self._socket.recv(count - len(received))
            if not chunk:
                raise SystemExit("the receiver has hung up")
            received += chunk
        return received


def _split(piece: bytes) -> Iterator[bytes]:
    for start in range(0, len(piece), _PDU_BYTES):
        yield piece[start : start + _PDU_BYTES]


def _value_pdu(control: int, fragment: bytes) -> bytes:
    value = struct.pack(">IBB", len(fragment) + 2, 1, control) + fragment
    return struct.pack(">BxI", 0x04, len(value)) + value


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0x0000, number, len(value)) + value


def _padded(uid: str) -> bytes:
    value = uid.encode("ascii")
    return value + b"\x00" * (len(value) % 2)
