"""The upper layer protocol as a peer may speak it: any fragments, and what is no message."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from sqlalchemy import select

from tests.datasets import ct_slice
from tests.receiver.conftest import StartReceiver, port_of, send
from tests.receiver.test_command_set import encoded_by_pynetdicom
from tests.receiver.test_headers import encoded
from tests.receiver.test_storage import all_instances, encoded_of
from tests.tools import wait_until
from triage.receiver import Receiver
from triage.receiver.command_set import parse_command_set
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.tables import (
    InstanceRow,
    OpenAssociationRow,
    PatientRow,
    SeriesRow,
    StudyRow,
)

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
COMMAND, LAST = 0x01, 0x02

Value = tuple[int, int, bytes]  # presentation context, message control header, fragment


def value_pdu(*values: Value) -> bytes:
    """Return a P-DATA-TF PDU with the presentation data values given (DICOM PS3.8 9.3.5)."""
    items = b"".join(
        struct.pack(">IBB", len(fragment) + 2, context, control) + fragment
        for context, control, fragment in values
    )
    return struct.pack(">BxI", 0x04, len(items)) + items


class Peer:
    """An association of pynetdicom's, of which the test then takes the socket."""

    def __init__(self, receiver: Receiver) -> None:
        entity = AE(ae_title="PEER")
        contexts = [
            build_context(CT_IMAGE_STORAGE, ExplicitVRLittleEndian),
            build_context("1.2.840.10008.1.1"),
        ]
        self.association: Association = entity.associate(
            "127.0.0.1", port_of(receiver), contexts=contexts
        )
        assert self.association.is_established
        self.association._reactor_checkpoint.clear()
        self.association.dul._kill_thread = True  # it must not read what the test reads
        self.association.dul.join()
        transport = self.association.dul.socket
        assert transport is not None
        assert transport.socket is not None
        self.socket: socket.socket = transport.socket
        self.socket.settimeout(10)

    def status(self) -> int:
        """Return the status of the response that comes next."""
        header = self._receive(6)
        assert header[0] == 0x04
        content = self._receive(struct.unpack(">xxI", header)[0])
        return int(struct.unpack("<H", parse_command_set(content[6:])[0x0900])[0])

    def is_aborted(self) -> bool:
        """Return whether the receiver aborts or hangs up before it answers."""
        received = self.socket.recv(10)
        return received[:1] in {b"\x07", b""}

    def _receive(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            chunk = self.socket.recv(count - len(received))
            assert chunk, "the receiver has hung up"
            received += chunk
        return received


def command_of(sop_instance_uid: str) -> bytes:
    """Return the command set of a C-STORE request that announces a data set."""
    primitive = C_STORE()
    primitive.MessageID = 1
    primitive.AffectedSOPClassUID = CT_IMAGE_STORAGE
    primitive.AffectedSOPInstanceUID = sop_instance_uid
    primitive.Priority = 0x0002
    command = bytearray(encoded_by_pynetdicom(primitive))
    place = command.index(struct.pack("<HHI", 0x0000, 0x0800, 2)) + 8
    command[place : place + 2] = struct.pack("<H", 0x0001)
    return bytes(command)


def fragments(content: bytes, size: int, control: int) -> list[Value]:
    """Return `content` in pieces of `size` bytes."""
    pieces = [content[n : n + size] for n in range(0, len(content), size)]
    values: list[Value] = [(1, control, piece) for piece in pieces[:-1]]
    return [*values, (1, control | LAST, pieces[-1])]


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
@pytest.mark.parametrize("values_in_a_pdu", [1, 3, 10_000])
def test_fragments_of_any_size_make_the_instance(
    sqlite_database: Database,
    start_receiver: StartReceiver,
    files: InstanceFiles,
    size: int,
    values_in_a_pdu: int,
) -> None:
    peer = Peer(start_receiver(sqlite_database))
    dataset = ct_slice("1.2.3")
    content = encoded(dataset)
    command = command_of(dataset.SOPInstanceUID)
    values = [*fragments(command, size, COMMAND), *fragments(content, size, 0)]
    stream = b"".join(
        value_pdu(*values[n : n + values_in_a_pdu]) for n in range(0, len(values), values_in_a_pdu)
    )
    peer.socket.sendall(stream)
    assert peer.status() == 0x0000
    (row,) = all_instances(sqlite_database)
    assert encoded_of(files, row) == content
    peer.socket.close()


COMMAND_SET = command_of("1.2.3.1.1")
NO_MESSAGES: dict[str, Sequence[bytes]] = {
    "a data set without a command": [value_pdu((1, LAST, b"data"))],
    "a command within a data set": [
        value_pdu((1, COMMAND | LAST, COMMAND_SET), (1, 0, b"data")),
        value_pdu((1, COMMAND | LAST, COMMAND_SET)),
    ],
    "a data set of another context": [
        value_pdu((1, COMMAND | LAST, COMMAND_SET), (3, LAST, b"data"))
    ],
    "a command that changes its context": [
        value_pdu((1, COMMAND, COMMAND_SET[:20]), (3, COMMAND | LAST, COMMAND_SET[20:]))
    ],
    "a command that ends within an element": [value_pdu((1, COMMAND | LAST, COMMAND_SET[:-3]))],
    "a command that does not end": [value_pdu((1, COMMAND, bytes(30_000)))] * 4,
    "a value longer than its PDU": [struct.pack(">BxIIBB", 4, 6, 1000, 1, 3)],
    "a value without a header": [struct.pack(">BxII", 4, 4, 0)],
    "a context that was not accepted": [value_pdu((77, COMMAND | LAST, COMMAND_SET))],
}


@pytest.mark.parametrize("case", NO_MESSAGES)
def test_what_is_no_message_aborts_the_association_and_leaves_nothing(
    sqlite_database: Database, start_receiver: StartReceiver, files: InstanceFiles, case: str
) -> None:
    receiver = start_receiver(sqlite_database)
    peer = Peer(receiver)
    for part in NO_MESSAGES[case]:
        peer.socket.sendall(part)
    assert peer.is_aborted()
    assert send(receiver, ct_slice())[0].Status == 0  # the others are served
    assert len(all_instances(sqlite_database)) == 1
    assert list(files.root.rglob("*.part")) == []


def test_peer_that_hangs_up_in_a_data_set_leaves_nothing(
    sqlite_database: Database, start_receiver: StartReceiver, files: InstanceFiles
) -> None:
    receiver = start_receiver(sqlite_database)
    peer = Peer(receiver)
    peer.socket.sendall(value_pdu((1, COMMAND | LAST, COMMAND_SET), (1, 0, bytes(100_000))))
    peer.socket.close()
    receiver.stop()
    assert all_instances(sqlite_database) == []
    assert list(files.root.rglob("*.part")) == []


def test_message_that_never_gets_on_is_ended(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    peer = Peer(start_receiver(sqlite_database, network_timeout_s=0.5))
    peer.socket.sendall(value_pdu((1, COMMAND | LAST, COMMAND_SET)))
    empty = value_pdu(*[(1, 0, b"")] * 100)

    def is_over() -> bool:
        try:
            peer.socket.sendall(empty)
        except OSError:  # reset or broken pipe, as the kernel has it
            return True
        return False

    wait_until(is_over, "the receiver ends the association", timeout_s=30)


def test_a_large_instance_is_refused_with_a_comment_and_the_next_is_taken(
    sqlite_database: Database, start_receiver: StartReceiver, files: InstanceFiles
) -> None:
    receiver = start_receiver(sqlite_database, maximum_instance_mb=1)
    large = ct_slice("1.2.3", Rows=1024, Columns=1024, PixelData=bytes(2 * 1024 * 1024))
    small = ct_slice("1.2.4")
    refused, taken = send(receiver, large, small)
    assert (refused.Status, taken.Status) == (0xA700, 0x0000)
    assert "larger" in refused.ErrorComment
    assert list(files.root.rglob("*.part")) == []


def test_no_association_waits_for_a_sleeping_thread(
    sqlite_database: Database, start_receiver: StartReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = start_receiver(sqlite_database)
    # Who left an event lying until its thread looks again would not answer in time.
    monkeypatch.setattr("triage.receiver.transport._LONGEST_SLEEP_S", 60.0)
    entity = AE(ae_title="PEER")
    entity.acse_timeout = entity.dimse_timeout = 20
    association = entity.associate(
        "127.0.0.1", port_of(receiver), contexts=[build_context("1.2.840.10008.1.1")]
    )
    assert association.is_established
    assert association.send_c_echo().Status == 0x0000
    association.release()
    assert association.is_released


def test_getting_ready_leaves_nothing_in_the_index(
    database: Database, start_receiver: StartReceiver
) -> None:
    start_receiver(database)
    with database.reading() as session:
        for table in (PatientRow, StudyRow, SeriesRow, InstanceRow, OpenAssociationRow):
            assert session.scalars(select(table)).all() == []
