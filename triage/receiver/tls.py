"""The receiver's side of TLS: a handshake for each connection, with the newest certificate."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import structlog

from triage.settings import TlsSettings
from triage.tls import TlsError, failure_in_words, server_context

log = structlog.get_logger(__name__)


class HandshakeError(OSError):
    """The peer speaks no TLS that the receiver takes; the message says why."""


class ServerTls:
    """Secures connections; reads certificate, key and authorities again when they change.

    A certificate is renewed while the receiver runs. Files that cannot be used (the key is written
    after the certificate) leave the one that is in use.
    """

    def __init__(self, settings: TlsSettings, handshake_timeout_s: float) -> None:
        self._settings = settings
        self._handshake_timeout_s = handshake_timeout_s
        self._lock = threading.Lock()
        self._files = [
            file
            for file in (settings.certificate, settings.private_key, settings.authorities)
            if file is not None
        ]
        self._seen = _versions(self._files)
        self._context = server_context(settings)

    def secure(self, connection: socket.socket) -> ssl.SSLSocket:
        """Return `connection` after its TLS handshake; to be called in the connection's own thread.

        Raises:
            HandshakeError: there was none; the connection is closed.
        """
        timeout_s = connection.gettimeout()
        secured = self._newest_context().wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )
        try:
            # The time limit is that of the whole handshake, not of each of its reads.
            secured.settimeout(self._handshake_timeout_s)
            secured.do_handshake()
            secured.settimeout(timeout_s)
        except OSError as error:
            secured.close()
            raise HandshakeError(failure_in_words(error)) from error
        return secured

    def _newest_context(self) -> ssl.SSLContext:
        versions = _versions(self._files)
        with self._lock:
            if versions != self._seen:
                self._seen = versions
                try:
                    self._context = server_context(self._settings)
                except TlsError as error:
                    log.error("new certificate not used", reason=str(error))
                else:
                    log.info("new certificate in use")
            return self._context


def _versions(files: list[Path]) -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for file in files:
        try:
            state = file.stat()
        except OSError:
            found.append(None)
        else:
            found.append((state.st_mtime_ns, state.st_ino))
    return found
