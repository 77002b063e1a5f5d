"""Messages as a RIS and a HIS send them."""

from __future__ import annotations

import contextlib
import socket
from typing import Self

from triage.hl7.mllp import END, framed, unframed

PID = "PID|1||P1^^^HOSPITAL^PI||Roe^Jane^M^^Dr||19700102|F"


def message(kind: str, *segments: str, control_id: str = "1", at: str = "20260301120000") -> bytes:
    """Return a message from the RIS, `kind` being such as "ORM^O01"."""
    header = f"MSH|^~\\&|RIS|HOSPITAL|TRIAGE|RADIOLOGY|{at}||{kind}|{control_id}|P|2.5.1"
    return "".join(f"{one}\r" for one in (header, *segments)).encode()


def orm(
    priority: str = "S",
    *,
    accession: str = "A1",
    pid: str = PID,
    control: str = "NW",
    uid: str = "",
    **header: str,
) -> bytes:
    """Return an ORM^O01 with its priority in ORC-7, from the emergency department."""
    segments = [
        pid,
        "PV1|1|E|ED^3^B",
        f"ORC|{control}|PL1^RIS|FI1^RIS||||^^^^^{priority}||20260301113000",
        "OBR|1|PL1^RIS|FI1^RIS|CTHEAD^CT head^LOCAL|||||||||||||"
        f"|{accession}|||||||||||||^Headache",
    ]
    if uid:
        segments.append(f"ZDS|{uid}^^Application^DICOM")
    return message("ORM^O01", *segments, **header)


def merge(survivor: str = "P2", retired: str = "P1", **header: str) -> bytes:
    """Return an ADT^A40."""
    return message(
        "ADT^A40^ADT_A39",
        "EVN||20260301120000",
        f"PID|1||{survivor}^^^HOSPITAL^PI||Roe^Jane||19700102|F",
        f"MRG|{retired}^^^HOSPITAL^PI",
        **header,
    )


class Sender:
    """A system that connects and sends what it likes, frames or not."""

    def __init__(self, port: int, sock: socket.socket | None = None) -> None:
        self.socket = sock or socket.create_connection(("127.0.0.1", port), timeout=20)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def write(self, octets: bytes) -> None:
        """Write these bytes as they are."""
        self.socket.sendall(octets)

    def answer(self) -> bytes:
        """Return the next acknowledgement; empty once the connection is closed."""
        while END not in self._received:
            part = b""
            with contextlib.suppress(ConnectionError):
                part = self.socket.recv(65536)
            if not part:
                return b""
            self._received += part
        block, _, self._received = self._received.partition(END)
        return unframed(block + END) or b""

    def ask(self, content: bytes) -> bytes:
        """Send a message and return its acknowledgement."""
        self.write(framed(content))
        return self.answer()
