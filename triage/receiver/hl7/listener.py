"""The MLLP listener: many connections, each with as many messages as its sender likes."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import threading
from datetime import timedelta

import structlog

from triage.hl7.mllp import END, framed, unframed
from triage.receiver.hl7.processing import Hl7Intake
from triage.receiver.rounds import Rounds
from triage.settings import Settings, SettingsError
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.hl7_messages import forget_messages
from triage.store.orders import forget_unclaimed_orders
from triage.tls import TlsError, server_context

log = structlog.get_logger(__name__)

_HANDSHAKE_S = 10.0
_CLOSING_S = 1.0
_FORGET_EVERY_S = 600.0


class Hl7Listener:
    """Listens for HL7 v2 messages in a thread of its own, with an event loop.

    A connection costs a task, not a thread, and waits for its own messages only: a slow sender
    holds up nobody else. The database is asked in a thread, one message of a connection at a time.
    """

    def __init__(self, settings: Settings, database: Database, clock: Clock) -> None:
        """Listen.

        Raises:
            SettingsError: the address is taken or not this machine's, or a certificate is unusable.
        """
        self._settings = settings.hl7
        self._intake = Hl7Intake(settings, database, clock)
        self._database = database
        self._clock = clock
        self._tls = _server_tls(settings)
        self._socket = _listening(settings)
        self.port = int(self._socket.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="triage-hl7", daemon=True)
        self._forgetting = Rounds(
            "hl7-retention",
            self.forget_old,
            pause_s=_FORGET_EVERY_S,
            failing="hl7 retention failed",
        )

    def start(self) -> None:
        """Begin to accept connections."""
        self._thread.start()
        self._forgetting.start()
        log.info("hl7.listening", host=self._settings.host, port=self.port)

    def stop(self) -> None:
        """End after the messages that are being processed."""
        self._forgetting.end()
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._forgetting.join()

    def forget_old(self) -> None:
        """Delete messages and orders that were kept long enough."""
        now = self._clock()
        with self._database.transaction() as session:
            forget_messages(session, older_than=timedelta(days=self._settings.keep_days), now=now)
            kept = timedelta(days=self._settings.keep_orders_days)
            forget_unclaimed_orders(session, older_than=kept, now=now)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(
            self._connected,
            sock=self._socket,
            ssl=self._tls,
            ssl_handshake_timeout=_HANDSHAKE_S if self._tls else None,
            limit=self._settings.maximum_message_kb * 1024 + len(END),
        )
        await self._stopping.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")  # None where it has gone already
        address = str(peer[0]) if peer else ""
        try:
            if not address or not self._may_connect(address):
                return
            while True:
                content = await self._next_message(reader)
                if content is None:
                    return
                await self._answer(content, address, writer)
        except asyncio.LimitOverrunError:
            log.warning("hl7.too_long", address=address, limit_kb=self._settings.maximum_message_kb)
        except TimeoutError:
            log.warning("hl7.too_slow", address=address)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # what had not arrived whole was not answered, so its sender sends it again
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), _CLOSING_S)

    async def _answer(self, content: bytes, address: str, writer: asyncio.StreamWriter) -> None:
        """Process a message and answer it, also where the receiver is stopped meanwhile."""
        taking = asyncio.ensure_future(asyncio.to_thread(self._intake.take, content, address))
        try:
            answer = await asyncio.shield(taking)
        except asyncio.CancelledError:
            writer.write(framed(await taking))
            raise
        writer.write(framed(answer))
        await writer.drain()

    async def _next_message(self, reader: asyncio.StreamReader) -> bytes | None:
        """Return the next message without its frame; None where the sender has gone.

        A sender may keep silence for hours between two messages, but not within one.
        """
        while True:
            first = await reader.read(1)
            if not first:
                return None
            async with asyncio.timeout(self._settings.message_timeout_s):
                block = first + await reader.readuntil(END)
            content = unframed(block)
            if content is not None:
                return content
            log.warning("hl7.no_frame")  # the next block may have one

    def _may_connect(self, address: str) -> bool:
        if len(self._tasks) > self._settings.maximum_connections:
            log.warning("hl7.too_many_connections", address=address)
            return False
        allowed = self._settings.allowed_addresses
        if allowed and not any(_plain(address) in network for network in allowed):
            log.warning("hl7.address_not_allowed", address=address)
            return False
        return True


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _server_tls(settings: Settings) -> ssl.SSLContext | None:
    if not settings.hl7.tls:
        return None
    try:
        return server_context(settings.tls)
    except TlsError as error:
        raise SettingsError(f"hl7.tls: {error}") from error


def _listening(settings: Settings) -> socket.socket:
    host, port = settings.hl7.host, settings.hl7.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port or 0))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"hl7.port: cannot listen on {host} port {port}: {error.strerror}; stop the program "
            "that uses it, or choose another port"
        ) from error
    listener.listen(64)
    return listener
