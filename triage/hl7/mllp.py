r"""The Minimal Lower Layer Protocol: messages between VT and FS CR (HL7 v2.5.1 appendix C).

The reader and the client of the library `hl7` are not used: the one refuses a block after a stray
line feed, the other has neither TLS nor a timeout, and reads one packet for an answer.
"""

from __future__ import annotations

import socket
import time
from typing import Self

from triage.core.errors import TriageError
from triage.tls import TlsError, TlsPeer, client_context, failure_in_words

START = b"\x0b"
END = b"\x1c\r"
_AT_ONCE = 65536
_LONGEST_ANSWER = 1 << 20


class MllpError(TriageError):
    """A message could not be exchanged; the message says with whom and why.

    Attributes:
        is_stale: whether the connection had been closed before anything was answered, as happens
            to one that was kept open.
    """

    def __init__(self, message: str, *, is_stale: bool = False) -> None:
        super().__init__(message)
        self.is_stale = is_stale


def framed(content: bytes) -> bytes:
    """Return a message in its frame."""
    return START + content + END


def unframed(block: bytes) -> bytes | None:
    """Return the message in a block that ends with FS CR, or None where none has begun.

    What comes before VT is no message: some senders end a block with a line feed more.
    """
    begin = block.rfind(START)
    return None if begin < 0 else block[begin + 1 :].removesuffix(END)


class MllpConnection:
    """A connection to a peer, on which messages are exchanged one after another."""

    def __init__(self, peer: TlsPeer, *, port: int, name: str, timeout_s: float) -> None:
        """Connect.

        Args:
            peer: its address, and what is to be known of TLS.
            port: its port.
            name: what it is called in errors.
            timeout_s: seconds to connect, and for each message to be answered.

        Raises:
            MllpError: nobody listens there, or the certificate is not accepted.
        """
        self._name = name
        self._timeout_s = timeout_s
        self._received = b""
        try:
            self._socket = socket.create_connection((peer.host, port), timeout_s)
        except OSError as error:
            said = error.strerror or type(error).__name__
            raise MllpError(
                f"{name} cannot be reached at {peer.host} port {port}: {said}"
            ) from None
        if peer.tls:
            self._encrypt(peer)

    def _encrypt(self, peer: TlsPeer) -> None:
        plain = self._socket
        try:
            context = client_context(peer)
            self._socket = context.wrap_socket(plain, server_hostname=peer.tls_name or peer.host)
        except TlsError as error:
            plain.close()
            raise MllpError(f"{self._name}: {error}") from None
        except OSError as error:
            plain.close()
            raise MllpError(f"{self._name}: no TLS: {failure_in_words(error)}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def send(self, content: bytes) -> None:
        """Send one message.

        Raises:
            MllpError: the connection is broken.
        """
        try:
            self._socket.settimeout(self._timeout_s)
            self._socket.sendall(framed(content))
        except OSError as error:
            raise self._broken(error) from None

    def receive(self, deadline: float) -> bytes:
        """Return the next message of the peer, by `deadline` of `time.monotonic`.

        Raises:
            MllpError: none came in time, or the connection is broken.
        """
        while END not in self._received:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._late()
            try:
                self._socket.settimeout(left)
                part = self._socket.recv(_AT_ONCE)
            except TimeoutError:
                raise self._late() from None
            except OSError as error:
                raise self._broken(error) from None
            if not part:
                raise MllpError(
                    f"{self._name} closed the connection without an answer",
                    is_stale=not self._received,
                )
            self._received += part
            if len(self._received) > _LONGEST_ANSWER:
                raise MllpError(f"{self._name} answered with more than {_LONGEST_ANSWER} bytes")
        block, _, self._received = self._received.partition(END)
        content = unframed(block + END)
        if content is None:
            raise MllpError(f"{self._name} answered without a frame (VT … FS CR)")
        return content

    def _late(self) -> MllpError:
        return MllpError(f"{self._name} did not answer within {self._timeout_s:g} s")

    def _broken(self, error: OSError) -> MllpError:
        said = error.strerror or type(error).__name__
        is_stale = isinstance(error, ConnectionError) and not self._received
        return MllpError(f"{self._name} broke the connection: {said}", is_stale=is_stale)
