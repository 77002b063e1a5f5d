"""An Audit Record Repository: it takes syslog over TLS (RFC 5425) or UDP (RFC 5426)."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lxml import etree

from tests.certificates import Identity

_SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parent / "audit_message.rng"))


class Repository:
    """What was received, as it came."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def documents(self) -> list[etree._Element]:
        """Return the audit messages, each of which fits the standard's schema."""
        return [checked(message) for message in self.messages]


def checked(message: bytes) -> etree._Element:
    """Return the audit message in a syslog message of the form that the standards prescribe."""
    header, _, content = message.partition(b"\xef\xbb\xbf")
    priority, at, _host, application, _process, kind, data = header.decode("ascii").split()
    assert priority in ("<85>1", "<84>1")
    assert at.endswith("Z")
    assert (application, kind, data) == ("triage", "DICOM+RFC3881", "-")
    document = etree.fromstring(content)
    _SCHEMA.assertValid(document)
    return document


@contextmanager
def tls_repository(identity: Identity, port: int = 0) -> Iterator[tuple[int, Repository]]:
    """Give the port of a repository that listens until the end."""
    repository = Repository()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.private_key)
    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, context, repository), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], repository
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=10)


def _serve(listener: socket.socket, context: ssl.SSLContext, repository: Repository) -> None:
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return  # the test is over
        try:
            with context.wrap_socket(plain, server_side=True) as secure:
                stream = b""
                while piece := secure.recv(65536):
                    stream += piece
                repository.messages += list(_frames(stream))
                secure.unwrap()
        except OSError:
            continue  # a client that does not trust us is no reason to stop


def _frames(stream: bytes) -> Iterator[bytes]:
    while stream:
        length, _, rest = stream.partition(b" ")
        yield rest[: int(length)]
        stream = rest[int(length) :]
