"""How bytes get from the socket to the storage handler without waiting.

Pynetdicom serves an association with two threads that look at their queues and at the socket every
millisecond. That costs two milliseconds an image, and processor time while nothing happens. Here
both threads sleep until there is something to do: the one at the socket in `select`, woken through
a socket pair; the other on an event. Everything that pynetdicom does with what arrives is its own.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from socketserver import BaseServer
from typing import Any

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from triage.receiver.command_set import StoreRequest
from triage.receiver.deadlines import Deadlines, WatchedAssociation
from triage.receiver.processes import receive_connection
from triage.receiver.provider import Sink, StorageProvider
from triage.receiver.tls import HandshakeError, ServerTls

log = structlog.get_logger(__name__)

# Timers (ARTIM, network timeout) and a kill are looked at this often.
_LONGEST_SLEEP_S = 0.25
_POLL_S = 0.001
# Far above any PDU length that is negotiated; a longer one is an attack or not DICOM.
_LONGEST_PDU_BYTES = 64 * 1024 * 1024
_RECEIVE_BUFFER_BYTES = 256 * 1024
_KEPT_BYTES = 16
_MOST_DRAINED_READS = 64


OpenAssociationSink = Callable[[Association, StoreRequest, str], Sink]
"""Gives the sink for a C-STORE request of an association, in the named transfer syntax."""


class PeerError(OSError):
    """The peer sends what no DICOM peer would."""


class StorageServer(ThreadedAssociationServer):
    """Pynetdicom's association server, with our socket options and threads that wait."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(
        self,
        *args: Any,
        open_sink: OpenAssociationSink,
        channel: socket.socket | None = None,
        tls: ServerTls | None = None,
        may_connect: Callable[[str], bool] = lambda _: True,
        deadlines: Deadlines | None = None,
        **kwargs: Any,
    ) -> None:
        """Listen, unless there is a `channel` on which a parent hands connections over."""
        kwargs["request_handler"] = _StorageRequestHandler
        self.open_sink = open_sink
        self.tls = tls
        self.deadlines = deadlines
        self._channel = channel
        self._may_connect = may_connect
        self._counting = threading.Lock()
        # The peers of connections whose association has not begun yet.
        self._starting: set[Any] = set()
        super().__init__(*args, **kwargs)

    def server_bind(self) -> None:
        """Take the address, unless the parent has it."""
        if self._channel is None:
            super().server_bind()

    def server_activate(self) -> None:
        """Listen, unless the parent does."""
        if self._channel is None:
            super().server_activate()

    def fileno(self) -> int:
        """Return the descriptor on which a connection shows."""
        return super().fileno() if self._channel is None else self._channel.fileno()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether the connection is let to speak; else it is closed."""
        del request
        reason = ""
        if not self._may_connect(client_address[0]):
            reason = "no sender is there"
        elif self._count_connections() >= self.ae.maximum_associations:
            reason = "too many connections"
        if reason:
            log.warning("connection closed", address=client_address[0], reason=reason)
        return not reason

    def _count_connections(self) -> int:
        with self._counting:
            return len(self.active_associations) + len(self._starting)

    def begin(self, association: Association, client_address: Any) -> None:
        """Start the threads of an association; its connection is counted once all the time."""
        with self._counting:
            association.start()
            self._starting.discard(client_address)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        with self._counting:
            self._starting.add(client_address)
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Begin the association of a connection.

        In the connection's own thread: a slow TLS handshake keeps nobody else waiting.
        """
        try:
            if self.tls is None:
                super().finish_request(request, client_address)
            else:
                self._finish_secured(self.tls, request, client_address)
        finally:
            with self._counting:
                self._starting.discard(client_address)

    def _finish_secured(self, tls: ServerTls, request: Any, client_address: Any) -> None:
        try:
            secured = tls.secure(request)
        except HandshakeError as error:
            log.warning("TLS handshake failed", address=client_address[0], reason=str(error))
            return
        try:
            super().finish_request(secured, client_address)
        except BaseException:
            secured.close()
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a connection that could not be served; the base class would print to stderr."""
        del request
        log.exception("connection not served", address=client_address[0])

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection.

        TCP_NODELAY: a C-STORE response is one small segment; Nagle's algorithm would hold it back
        until the sender's delayed acknowledgement, 40 ms for each image.
        """
        connection, address = self._next_connection()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # Without it, a peer that stops in the middle of a PDU would hold its thread for ever.
        connection.settimeout(self.ae.network_timeout)
        return connection, address

    def _next_connection(self) -> tuple[Any, Any]:
        if self._channel is None:
            return super().get_request()
        try:
            return receive_connection(self._channel)
        except EOFError:  # the parent has ended, and will end this process too
            time.sleep(_LONGEST_SLEEP_S)
            raise OSError("no more connections") from None

    def shutdown(self) -> None:
        """Stop listening."""
        # Pynetdicom's own also takes the server out of a list that make_server() did not put it in.
        BaseServer.shutdown(self)
        self.server_close()


class _StorageRequestHandler(RequestHandler):
    server: StorageServer

    def handle(self) -> None:
        """Begin an association on the connection."""
        association = self._create_association()
        evt.trigger(association, evt.EVT_CONN_OPEN, {"address": self.client_address})
        self.server.begin(association, self.client_address)

    def _create_association(self) -> Association:
        association = super()._create_association()
        # Its first provider has not started; the socket announces the connection (Evt5 of PS3.8
        # 9.2.1) to the one that it finds.
        association.dul = StorageProvider(association, partial(self.server.open_sink, association))
        peer = StorageSocket(association, client_socket=self.request)
        association.dul.socket = peer
        # The timers are the provider's, and set through the association.
        association.acse_timeout = self.ae.acse_timeout
        association.network_timeout = self.ae.network_timeout
        work = threading.Event()
        association.dul.to_provider_queue = _AnnouncingQueue(peer.wake)
        association.dul.to_user_queue = _UserQueue(work.set, peer)
        association.dimse.msg_queue = _AnnouncingQueue(work.set)
        association.dul._run_loop_delay = 0
        association._reactor_checkpoint = _Checkpoint(association, work)
        if self.server.deadlines is not None:
            self.server.deadlines.watch(WatchedAssociation(association))
        return association


class _AnnouncingQueue(queue.Queue[Any]):
    """A queue that says so when something is put into it."""

    def __init__(self, announce: Callable[[], object]) -> None:
        super().__init__()
        self._announce = announce

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._announce()


class _UserQueue(_AnnouncingQueue):
    """What the peer asks for: to associate, to release, to abort."""

    def __init__(self, announce: Callable[[], object], peer: StorageSocket) -> None:
        super().__init__(announce)
        self._peer = peer

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Wait for an item, but not for a peer that has hung up before it asked for anything.

        Pynetdicom would count such a connection (a port scan, a health check) as an association
        until the ACSE timeout.
        """
        left_s = timeout if timeout is not None else float("inf")
        while block and left_s > 0:
            try:
                return super().get(timeout=min(left_s, _LONGEST_SLEEP_S))
            except queue.Empty:
                if self._peer.has_ended:
                    break
                left_s -= _LONGEST_SLEEP_S
        return super().get(block=False)


class _Checkpoint(threading.Event):
    """The place at which an association's thread pauses in each round of its loop.

    Pynetdicom pauses there while an association is used from another thread; here the thread also
    waits for a message or a request of the peer.
    """

    def __init__(self, association: Association, work: threading.Event) -> None:
        super().__init__()
        self._association = association
        self._work = work
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Return when there is something to do, or after a short while to look at the timers."""
        association = self._association
        if association.dimse.msg_queue.empty() and association.dul.to_user_queue.empty():
            self._work.wait(_LONGEST_SLEEP_S)
        self._work.clear()
        return super().wait(timeout)


class StorageSocket(AssociationSocket):
    """A socket whose thread sleeps until bytes arrive or another thread has bytes to send."""

    def __init__(self, association: Association, client_socket: socket.socket) -> None:
        super().__init__(association, client_socket=client_socket)
        self.has_ended = False
        self._view = memoryview(bytearray(_RECEIVE_BUFFER_BYTES))
        self._next = self._filled = 0
        self._woken, self._waking = socket.socketpair()
        self._descriptor = client_socket.fileno()
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        self._poll.register(self._woken.fileno(), select.POLLIN)
        self._woken.setblocking(False)
        self._waking.setblocking(False)

    def wake(self) -> None:
        """Let `ready` return at once."""
        # It may be closed, or so many wake-ups wait already that one more says nothing new.
        with contextlib.suppress(OSError):
            self._waking.send(b"\x00")

    @property
    def has_more(self) -> bool:
        """Whether bytes were received that nobody has taken yet."""
        return self._next < self._filled

    @property
    def ready(self) -> bool:
        """Whether the peer has sent something; waits a little for it."""
        if self.socket is None or not self._is_connected:
            time.sleep(_POLL_S)  # the connection is gone, but a handler of it may still be storing
            return False
        if self.event_queue.queue:
            # The provider takes one event a round: waiting here, it would leave the next one lying.
            return False
        try:
            if self._assoc.dul.state_machine.current_state == "Sta13":
                self._drain()
                return False
            return self.has_more or self._is_pending or self._descriptor in self._wait()
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed (PS3.8 9.2.1)
            return False

    @property
    def _is_pending(self) -> bool:
        # Decrypted already, so the descriptor does not show it.
        return isinstance(self.socket, ssl.SSLSocket) and bool(self.socket.pending())

    def _wait(self) -> list[int]:
        """Return the descriptors that have something to read, after a short while none."""
        readable = [descriptor for descriptor, _ in self._poll.poll(_LONGEST_SLEEP_S * 1000)]
        if self._woken.fileno() in readable:
            self._woken.recv(4096)
        return readable

    def _drain(self) -> None:
        """Throw away what the peer still sends to an association that is over.

        Closing a connection with unread bytes would reset it, and the peer might never see why.
        """
        assert self.socket is not None
        self._next = self._filled = 0
        for _ in range(_MOST_DRAINED_READS):
            if not self._is_pending and self._descriptor not in dict(self._poll.poll(0)):
                break
            if not self._receive_into(self._view):
                break

    def recv(self, nr_bytes: int) -> bytearray:
        """Return `nr_bytes` bytes, or fewer where the peer has closed the connection.

        Raises:
            PeerError: `nr_bytes` is more than any PDU of a DICOM peer has.
        """
        end = self._next + nr_bytes
        if end <= self._filled:
            taken = bytearray(self._view[self._next : end])
            self._next = end
            return taken
        if nr_bytes > _LONGEST_PDU_BYTES:
            self.has_ended = True
            raise PeerError(f"a PDU of {nr_bytes} bytes is announced")
        received = bytearray()
        # Room is made as bytes arrive, not as many as the peer announces.
        while len(received) < nr_bytes:
            chunk = self.receive_some(nr_bytes - len(received))
            if not chunk:
                break
            received += chunk
        return received

    def receive_some(self, at_most: int) -> memoryview:
        """Return the next bytes, at least one and `at_most` at most; none at the end of the stream.

        The view shows the receive buffer: it is valid until the next call.
        """
        if self._next == self._filled:
            self._fill()
        end = min(self._filled, self._next + at_most)
        received = self._view[self._next : end]
        self._next = end
        return received

    def give_back(self, received: bytearray) -> None:
        """Let what `recv` has just returned be received again."""
        self._next -= len(received)

    def _fill(self) -> None:
        assert self.socket is not None
        # What was received last stays in front, so that a PDU's header can be given back.
        kept = min(self._filled, _KEPT_BYTES)
        self._view[:kept] = bytes(self._view[self._filled - kept : self._filled])
        self._next = self._filled = kept
        try:
            self._filled += self._receive_into(self._view[kept:])
        except OSError:
            self.has_ended = True
            raise
        if self._filled == kept:
            self.has_ended = True

    def _receive_into(self, view: memoryview) -> int:
        assert self.socket is not None
        if isinstance(self.socket, ssl.SSLSocket):
            return self.socket.recv_into(view)
        try:
            # A socket with a timeout is not blocking underneath. Most often the bytes are there,
            # and reading them like this spares the wait that `recv_into` always begins with.
            return os.readv(self._descriptor, [view])
        except BlockingIOError:
            return self.socket.recv_into(view)

    def close(self) -> None:
        """Close the connection and the pair that wakes its thread."""
        super().close()
        self.has_ended = True
        self._woken.close()
        self._waking.close()
