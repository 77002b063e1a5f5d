"""A C-STORE sender that sends a data set as slowly, or as large, as a benchmark wants it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.hostile.wire import (
    ASSOCIATE_AC,
    COMMAND,
    DATA,
    LAST,
    RELEASE_RQ,
    STORE_CONTEXT,
    RawPeer,
    associate_rq,
    command,
    element,
    p_data,
    pdu,
    store_elements,
)

_PDU_BYTES = 128 * 1024
_PATIENCE_S = 600.0


class RawSender:
    """An association for one SOP class whose data sets are given as already encoded pieces.

    The PDUs are written here, because pynetdicom would hold a data set of 2 GB in memory.
    """

    def __init__(self, port: int, sop_class_uid: str, calling_ae_title: str = "SENDER") -> None:
        self._sop_class_uid = sop_class_uid
        self._peer = RawPeer(port, timeout_s=_PATIENCE_S)
        self._peer.send(
            associate_rq(
                contexts=((STORE_CONTEXT, sop_class_uid),),
                calling=calling_ae_title.encode().ljust(16),
            )
        )
        answer = self._peer.read()
        if answer is None or answer.kind != ASSOCIATE_AC:
            raise SystemExit("the receiver refuses the association")

    def begin(self, sop_instance_uid: str) -> None:
        """Send the command of a C-STORE request (DICOM PS3.7 table 9.3-1)."""
        elements = store_elements(sop_instance_uid)
        elements[0x0002] = element(0x0002, self._sop_class_uid.encode())
        self._send(COMMAND | LAST, command(*elements.values()))

    def send_piece(self, piece: bytes, *, is_last: bool = False) -> None:
        """Send the next bytes of the data set."""
        self._send(DATA | LAST if is_last else DATA, piece)

    def _send(self, control: int, content: bytes) -> None:
        if not self._peer.send(p_data(STORE_CONTEXT, control, content)):
            raise SystemExit("the receiver has hung up")

    def status(self) -> int:
        """Return the status of the answer (0000,0900)."""
        answer = self._peer.read()
        if answer is None or answer.status is None:
            raise SystemExit("the receiver has hung up")
        return answer.status

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
        self._peer.send(pdu(RELEASE_RQ, bytes(4)))
        self._peer.read()
        self.abandon()

    def is_open(self) -> bool:
        """Return whether the receiver has neither answered nor hung up."""
        return self._peer.is_silent()

    def abandon(self) -> None:
        """Close the connection, be it in the middle of what was being sent."""
        self._peer.close()


def _split(piece: bytes) -> Iterator[bytes]:
    for start in range(0, len(piece), _PDU_BYTES):
        yield piece[start : start + _PDU_BYTES]
