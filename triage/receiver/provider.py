"""An upper layer provider that streams C-STORE data sets to where they are stored.

Pynetdicom collects the fragments of a message in memory, decodes the command into a data set, hands
both to another thread, and has that thread's answer encoded and sent by the first. For each image
that is several copies of its pixels and two changes of thread. Here the thread that reads the
socket does it all: a fragment goes from the receive buffer to the file, and the answer from the
index to the socket. Everything else that a peer may send is left to pynetdicom.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA

from triage.receiver.command_set import (
    C_STORE_RQ,
    CommandSetError,
    StoreRequest,
    command_field,
    parse_command_set,
    store_request,
    store_response,
)

if TYPE_CHECKING:
    from triage.receiver.transport import StorageSocket

log = structlog.get_logger(__name__)

_P_DATA_TF = 0x04
_PDU_HEADER = struct.Struct(">BxI")
_PDV_HEADER = struct.Struct(">IBB")
# A-ABORT by the service provider, reason not specified (DICOM PS3.8 9.3.8).
_A_ABORT = bytes.fromhex("07000000000400000200")
_IS_COMMAND = 0x01
_IS_LAST = 0x02
# A command set is a few hundred bytes; data sets of queries and procedure steps some kilobytes.
_LONGEST_COMMAND_SET = 64 * 1024
_LONGEST_OTHER_DATA_SET = 16 * 1024 * 1024
# No modality is slower: what trickles in below this rate is there to occupy us.
_LOWEST_BYTES_PER_S = 256


class ProtocolError(Exception):
    """The peer's bytes break the upper layer protocol (DICOM PS3.8) or the message exchange."""


class Sink(Protocol):
    """Where one data set goes, fragment by fragment."""

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes; they are only valid during the call."""

    def finish(self) -> tuple[int, str]:
        """Return status and Error Comment of the answer, once what it says is true."""

    def discard(self) -> None:
        """Forget what was written: the data set will not come to its end."""


class ArrivingMessage:
    """Stands for a message, or a PDU that is none, from its first byte to its last."""

    __slots__ = ("__weakref__",)


OpenSink = Callable[[StoreRequest, str], Sink]
"""Gives the sink for a request whose data set comes in the named transfer syntax."""


@dataclass(slots=True)
class _Store:
    request: StoreRequest
    context_id: int
    sink: Sink


class StorageProvider(DULServiceProvider):
    """Pynetdicom's provider, but for the P-DATA-TF PDUs of an established association."""

    socket: StorageSocket

    def __init__(self, association: Any, open_sink: OpenSink) -> None:
        super().__init__(association)
        self._open_sink = open_sink
        self._command = bytearray()
        self._command_context_id = 0
        self._store: _Store | None = None
        self._other_context_id: int | None = None
        self.is_answering = False
        # By the monotonic clock: when the peer was last heard or answered, and from when on the
        # message that arrives must keep a pace.
        self._progress_at = 0.0
        self._patience_ends = 0.0
        self._message_bytes = 0
        self.arriving: ArrivingMessage | None = None

    def run_reactor(self) -> None:
        """Serve the association; what was only half received at its end is discarded."""
        try:
            super().run_reactor()
        except Exception as error:  # noqa: BLE001 - what hostile bytes make pynetdicom raise
            log.warning("association ended by us", reason=type(error).__name__)
            self._end_at_once()
        finally:
            if self._store is not None:
                self._store.sink.discard()
                self._store = None

    def _end_at_once(self) -> None:
        """Abort without the state machine, which does not know how to go on."""
        with contextlib.suppress(OSError):
            self.socket.send(_A_ABORT)
        self.assoc.is_aborted = True
        self.assoc.is_established = False
        self._kill_thread = True
        self.socket.close()

    def idle_timer_expired(self) -> bool:
        """Return whether the peer has been silent for too long; not while it waits for us."""
        waits_for_us = self.is_answering or not self.assoc.dimse.msg_queue.empty()
        return not waits_for_us and not self._was_heard_lately() and super().idle_timer_expired()

    def _was_heard_lately(self) -> bool:
        # Beside pynetdicom's timer, whose restart takes longer than noting the time.
        timeout_s = self._idle_timer.timeout
        return timeout_s is not None and time.monotonic() - self._progress_at <= timeout_s

    def _send(self, pdu: Any) -> None:
        super()._send(pdu)
        self._idle_timer.restart()  # until now the peer had to wait for us

    def _read_pdu_data(self) -> None:
        if self.state_machine.current_state != "Sta6":
            self.arriving = ArrivingMessage()
            super()._read_pdu_data()
            self.arriving = None
            return
        try:
            peer = self.socket
            while self._receive_pdu() and self._may_go_on() and (peer.has_more or peer.ready):
                pass
        except (OSError, EOFError):
            self.event_queue.put("Evt17")  # transport connection closed (PS3.8 9.2.1)
        except (ProtocolError, CommandSetError) as error:
            log.warning("association aborted by us", reason=str(error))
            self.event_queue.put("Evt19")  # unrecognized or invalid PDU

    def _may_go_on(self) -> bool:
        """Whether the reactor has nothing else to do than to read what the peer sends."""
        return not (self._kill_thread or self.to_provider_queue.queue or self.event_queue.queue)

    def _receive_pdu(self) -> bool:
        """Take one P-DATA-TF PDU; return False for any other, which pynetdicom has then read."""
        self.arriving = self.arriving or ArrivingMessage()
        header = self.socket.recv(_PDU_HEADER.size)
        if len(header) < _PDU_HEADER.size or header[0] != _P_DATA_TF:
            self.socket.give_back(header)
            super()._read_pdu_data()
            self.arriving = None
            return False
        self._receive_values(_PDU_HEADER.unpack(header)[1])
        if not self._command and self._store is None and self._other_context_id is None:
            self.arriving = None
        return True

    def _receive_values(self, left: int) -> None:
        """Take the presentation data values of one P-DATA-TF PDU (DICOM PS3.8 9.3.5)."""
        while left:
            if left < _PDV_HEADER.size:
                raise ProtocolError("a presentation data value has no room in its PDU")
            item = self.socket.recv(_PDV_HEADER.size)
            if len(item) < _PDV_HEADER.size:
                raise EOFError
            length, context_id, control = _PDV_HEADER.unpack(item)
            if length < 2 or length + 4 > left:
                raise ProtocolError("a presentation data value is longer than its PDU")
            left -= length + 4
            self._receive_fragment(length - 2, context_id, control)

    def _receive_fragment(self, length: int, context_id: int, control: int) -> None:
        is_last = bool(control & _IS_LAST)
        if control & _IS_COMMAND:
            self._receive_command(length, context_id)
            if is_last:
                self._begin_message()
        elif self._store is not None:
            self._receive_instance(self._store, length, context_id)
            if is_last:
                self._answer(self._store)
        else:
            self._receive_other(length, context_id, is_last=is_last)

    def _receive_command(self, length: int, context_id: int) -> None:
        if self._store is not None or self._other_context_id is not None:
            raise ProtocolError("a command comes where a data set has not ended")
        if not self._command:
            self._begin_clock()
            self._command_context_id = context_id
        if context_id != self._command_context_id:
            raise ProtocolError("a command changes its presentation context")
        if len(self._command) + length > _LONGEST_COMMAND_SET:
            raise ProtocolError("a command set does not end")
        self._fragments(length, self._command.extend)

    def _begin_message(self) -> None:
        encoded = bytes(self._command)
        self._command.clear()
        values = parse_command_set(encoded)
        context = self._assoc._accepted_cx.get(self._command_context_id)
        if context is None:
            raise ProtocolError("a command comes on a presentation context that was not accepted")
        # Whatever the context is for: an image that is refused is an image that nobody triages.
        if command_field(values) == C_STORE_RQ:
            self._begin_store(store_request(values), str(context.transfer_syntax[0]))
            return
        self._hand_over(self._command_context_id, _IS_COMMAND | _IS_LAST, encoded)
        if self.assoc.dimse.message is not None:
            self._other_context_id = self._command_context_id

    def _begin_store(self, request: StoreRequest, transfer_syntax_uid: str) -> None:
        sink = self._open_sink(request, transfer_syntax_uid)
        self._store = _Store(request, self._command_context_id, sink)
        if not request.has_data_set:
            self._answer(self._store)

    def _receive_instance(self, store: _Store, length: int, context_id: int) -> None:
        if context_id != store.context_id:
            raise ProtocolError("a data set changes its presentation context")
        self._fragments(length, store.sink.write)

    def _answer(self, store: _Store) -> None:
        self._store = None
        # In this order: between the two, the message would neither be arriving nor be answered.
        self.is_answering = True
        self.arriving = None
        try:
            self._respond(store, *store.sink.finish())
        finally:
            self.is_answering = False
            self._progress_at = time.monotonic()

    def _respond(self, store: _Store, status: int, comment: str) -> None:
        response = store_response(store.request, status, comment)
        control = _IS_COMMAND | _IS_LAST
        value = _PDV_HEADER.pack(len(response) + 2, store.context_id, control) + response
        # Only this thread writes to the socket, so nothing can come between.
        self.socket.send(_PDU_HEADER.pack(_P_DATA_TF, len(value)) + value)

    def _receive_other(self, length: int, context_id: int, *, is_last: bool) -> None:
        if self._other_context_id is None:
            raise ProtocolError("a data set comes without a command")
        if context_id != self._other_context_id:
            raise ProtocolError("a data set changes its presentation context")
        if self._message_bytes + length > _LONGEST_OTHER_DATA_SET:
            raise ProtocolError("the data set of a request does not end")
        data = bytearray()
        self._fragments(length, data.extend)
        if is_last:
            self._other_context_id = None
        self._hand_over(context_id, _IS_LAST if is_last else 0, bytes(data))

    def _hand_over(self, context_id: int, control: int, data: bytes) -> None:
        primitive = P_DATA()
        # A list of lists is what it takes, whatever its annotation says.
        value: Any = [context_id, bytes((control,)) + data]
        primitive.presentation_data_value_list = [value]
        try:
            self.assoc.dimse.receive_primitive(primitive)
        except Exception as error:
            raise ProtocolError("a message that cannot be understood") from error

    def _fragments(self, length: int, take: Callable[[memoryview], None]) -> None:
        """Pass on the next `length` bytes as they come."""
        left = length
        while left:
            received = self.socket.receive_some(left)
            count = len(received)
            if not count:
                raise EOFError
            left -= count
            take(received)
            self._note_progress(count)
        if not length:
            self._note_progress(0)

    def _begin_clock(self) -> None:
        self._patience_ends = time.monotonic() + (self.network_timeout or 0)
        self._message_bytes = 0

    def _note_progress(self, count: int) -> None:
        """Refuse a message that comes so slowly, or in so many empty pieces, that it never ends."""
        now = self._progress_at = time.monotonic()
        self._message_bytes += count
        late_s = now - self._patience_ends
        if late_s > 0 and self._message_bytes < late_s * _LOWEST_BYTES_PER_S:
            raise ProtocolError("a message comes too slowly")
