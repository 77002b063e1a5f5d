"""A web server that answers as a test says, on a free port of 127.0.0.1."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.certificates import Identity


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What is answered; `resets_after` breaks the connection after so many bytes of the body."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    resets_after: int | None = None
    waits_for: threading.Event | None = None


@dataclass
class WebServer:
    """The coming answers; then `usual`. `requests` are those that came whole."""

    port: int
    scheme: str
    replies: list[Reply] = field(default_factory=list)
    usual: Callable[[Request], Reply] = lambda _: Reply()
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.scheme}://127.0.0.1:{self.port}"


@contextmanager
def web_server(
    identity: Identity | None = None, *, port: int = 0, clients: Path | None = None
) -> Iterator[WebServer]:
    """Run the server, over TLS where it has an identity.

    It demands a certificate of its clients where `clients` is the authority that signs theirs.
    """
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    if identity is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.certificate, identity.private_key)
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    told = WebServer(server.server_address[1], "https" if identity else "http")
    server.told = told  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ssl.SSLError):
            self.close_connection = True  # whoever asked has gone, or did not trust us

    def _answer(self) -> None:
        told: WebServer = self.server.told  # type: ignore[attr-defined]
        reply = told.replies.pop(0) if told.replies else None
        if reply is not None and reply.resets_after is not None:
            self.rfile.read(reply.resets_after)
            self._reset()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body)
        told.requests.append(request)
        reply = reply or told.usual(request)
        if reply.waits_for is not None:
            reply.waits_for.wait(timeout=20)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    do_GET = do_POST = do_OPTIONS = _answer  # noqa: N815 - the names that http.server looks for

    def _reset(self) -> None:
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)  # RST instead of FIN
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def log_message(self, *args: Any) -> None:
        """Say nothing on the terminal."""
