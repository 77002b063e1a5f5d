"""Tells the Audit Record Repository what is in the trail, over syslog (DICOM PS3.15 A.6, A.7)."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import uuid
from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from triage.core.audit_message import Source, audit_message, syslog_message
from triage.settings import AuditSettings
from triage.store.audit import AuditEntry, mark_sent, waiting_entries
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.leases import take_lease
from triage.tls import TlsError, client_context

log = structlog.get_logger(__name__)

_POLL_S = 1.0
_AT_ONCE = 100
_LEASE = "audit-sender"


class AuditSender:
    """Sends what waits, oldest first, from a thread of its own; of several processes one does."""

    def __init__(self, database: Database, settings: AuditSettings, clock: Clock) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock
        self._host = socket.gethostname()
        self._holder = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_away = False

    def start(self) -> None:
        """Begin to send."""
        self._thread = threading.Thread(target=self._run, name="audit-sender", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; what was not sent waits for the next start."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=self._settings.timeout_s + 1)

    def send_waiting(self) -> int:
        """Send what waits, and return how many events that were.

        Raises:
            OSError: the repository is away; nothing of the last piece is noted as sent.
            TlsError: our certificate, or that of its authority, cannot be used.
        """
        sent = 0
        while not self._stop.is_set() and (entries := self._waiting()):
            self._send(entries)
            with self._database.transaction() as session:
                mark_sent(session, [entry.id for entry in entries])
            sent += len(entries)
        return sent

    def _waiting(self) -> list[AuditEntry]:
        with self._database.reading() as session:
            if not waiting_entries(session, limit=1):
                return []
        lease = timedelta(seconds=3 * self._settings.timeout_s)
        with self._database.transaction() as session:
            if not take_lease(session, _LEASE, self._holder, lease=lease, now=self._clock()):
                return []
            return waiting_entries(session, limit=_AT_ONCE)

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            pause_s = _POLL_S
            try:
                self.send_waiting()
                self._is_away = False
            except (OSError, TlsError) as error:
                pause_s = self._settings.retry_s
                if not self._is_away:
                    log.warning("audit.repository-away", reason=str(error))
                self._is_away = True
            except SQLAlchemyError as error:
                log.warning("audit.database-away", error=type(error).__name__)

    def _send(self, entries: Sequence[AuditEntry]) -> None:
        messages = [self._message(entry) for entry in entries]
        if self._settings.tls:
            self._send_over_tls(messages)
        else:
            self._send_over_udp(messages)

    def _message(self, entry: AuditEntry) -> bytes:
        settings = self._settings
        source = Source(settings.source_id, settings.enterprise_site_id, self._host)
        message = audit_message(entry.event, entry.patient_id, source)
        return syslog_message(message, entry.event, self._host, os.getpid())

    def _send_over_tls(self, messages: Sequence[bytes]) -> None:
        """Send each with its length before it (RFC 5425 section 4.3).

        Syslog acknowledges nothing. That the repository answers our close_notify (section 4.4)
        says that it has read what came before; if it does not, all is sent again.
        """
        settings = self._settings
        context = client_context(settings)
        address = (settings.host, settings.port)
        with (
            socket.create_connection(address, timeout=settings.timeout_s) as plain,
            context.wrap_socket(
                plain, server_hostname=settings.tls_name or settings.host
            ) as secure,
        ):
            for message in messages:
                secure.sendall(b"%d " % len(message) + message)
            try:
                secure.unwrap().close()
            except ssl.SSLEOFError:
                return  # it closed in order, without the courtesy of saying so

    def _send_over_udp(self, messages: Sequence[bytes]) -> None:
        settings = self._settings
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as sender:
            for message in messages:
                sender.sendto(message, address)
