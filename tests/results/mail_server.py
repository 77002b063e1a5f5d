"""An SMTP server that keeps what it takes and refuses what a test says."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from functools import partial
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.certificates import Identity


@dataclass
class MailServer:
    """The messages that came; `refusals` are answers to recipients, `answers` to messages."""

    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - the name that aiosmtpd looks for
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refusals:
            return self.refusals[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            message: Any = BytesParser(policy=policy.default).parsebytes(envelope.content)
            self.messages.append(message)
            self.envelopes.append(envelope)
        return answer

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        """Let "triage" in with its password."""
        assert isinstance(data, LoginPassword)
        self.users.append(data.login.decode())
        is_known = (data.login, data.password) == (b"triage", b"a password")
        return AuthResult(success=is_known, handled=False)


@contextmanager
def mail_server(
    identity: Identity | None = None,
    *,
    security: str = "none",
    with_login: bool = False,
    port: int = 0,
) -> Iterator[MailServer]:
    """Run the server on 127.0.0.1, by default on a free port."""
    told = MailServer()
    context = None
    if identity is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.certificate, identity.private_key)
    made = partial(
        SMTP,
        told,
        hostname="mail.hospital.example",
        tls_context=context if security == "starttls" else None,
        require_starttls=security == "starttls",
        auth_required=with_login,
        auth_require_tls=False,
        authenticator=told.authenticate if with_login else None,
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    over_tls = context if security == "tls" else None
    making = loop.create_server(made, "127.0.0.1", port, ssl=over_tls)
    server = asyncio.run_coroutine_threadsafe(making, loop).result(timeout=20)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
