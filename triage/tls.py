"""TLS contexts for both directions, after the BCP 195 profile of DICOM PS3.15 B.12 (RFC 9325)."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from triage.core.errors import TriageError
from triage.settings import TlsSettings

# TLS 1.2 suites of RFC 9325 section 4.2; those of TLS 1.3 are all good and OpenSSL's own.
_CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    )
)
_CLIENT_CERTIFICATES = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


class TlsError(TriageError):
    """A certificate or key cannot be used; the message names the file and what to do."""


class TlsPeer(Protocol):
    """What must be known of a peer to call it over TLS."""

    @property
    def host(self) -> str: ...
    @property
    def tls(self) -> bool: ...
    @property
    def tls_verify(self) -> str: ...
    @property
    def tls_name(self) -> str: ...
    @property
    def tls_authorities(self) -> Path | None: ...
    @property
    def own_tls(self) -> TlsSettings: ...


@dataclass(frozen=True, slots=True)
class CertificateState:
    """What there is to know of our own certificate before somebody else finds it out.

    Attributes:
        subject: its distinguished name.
        not_after: the moment from which on it is expired.
        matches_key: whether the private key is the certificate's.
    """

    subject: str
    not_after: datetime
    matches_key: bool

    def time_left(self, now: datetime) -> timedelta:
        """Return how long it is still valid; negative once it has expired."""
        return self.not_after - now


class _ReportingSocket(ssl.SSLSocket):
    """A TLS socket that leaves the reason of a failed handshake with its context."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError as error:
            if isinstance(self.context, ClientContext):
                self.context.failure = error
            raise


class ClientContext(ssl.SSLContext):
    """The context of one association that we open; `failure` says why its handshake failed."""

    failure: OSError | None = None
    sslsocket_class = _ReportingSocket


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return the context of the receiver: TLS 1.2 and 1.3, nothing older.

    Raises:
        TlsError: a file is missing, unreadable or not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    # An association lives for minutes: resumption gains nothing, and a ticket that arrives before
    # the first PDU makes a peer's select() promise what its recv() then waits for.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    _load_own(context, settings)
    context.verify_mode = _CLIENT_CERTIFICATES[settings.client_certificates]
    if settings.client_certificates != "none":
        assert settings.authorities is not None  # the settings check it
        _load_authorities(context, settings.authorities)
    return context


def client_context(peer: TlsPeer) -> ClientContext:
    """Return the context of an association that we open to `peer`.

    Raises:
        TlsError: a file is missing, unreadable or not what it should be.
    """
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context)
    context.check_hostname = peer.tls_verify == "name"
    if peer.own_tls.certificate is not None:
        _load_own(context, peer.own_tls)
    authorities = peer.tls_authorities or peer.own_tls.authorities
    if authorities is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_authorities(context, authorities)
    return context


def web_context(authorities: Path | None, own: TlsSettings | None = None) -> ssl.SSLContext:
    """Return the context of a connection that we open over HTTPS or SMTP.

    Args:
        authorities: who signs the certificates that are accepted; None trusts the system's.
        own: our certificate, to be shown to a server that asks for it.

    Raises:
        TlsError: the file is missing, unreadable or not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authorities is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_authorities(context, authorities)
    if own is not None:
        _load_own(context, own)
    return context


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _load_own(context: ssl.SSLContext, settings: TlsSettings) -> None:
    certificate, key = settings.certificate, settings.private_key
    assert certificate is not None  # the settings check that both are there
    assert key is not None
    try:
        # Always with a password, if only an empty one: OpenSSL would else ask the terminal.
        context.load_cert_chain(certificate, key, password=settings.private_key_password)
    except FileNotFoundError:
        raise TlsError(
            f"{_first_missing(certificate, key)} does not exist; check certificate and private_key"
        ) from None
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise TlsError(
            f"{certificate} and {key} cannot be used: {_in_words(error)}; check certificate, "
            "private_key and private_key_password"
        ) from error


def _load_authorities(context: ssl.SSLContext, file: Path) -> None:
    try:
        context.load_verify_locations(cafile=file)
    except FileNotFoundError:
        raise TlsError(f"{file} does not exist; it should hold trusted authorities") from None
    except (OSError, ValueError) as error:
        raise TlsError(
            f"{file} cannot be used: {_in_words(error)}; it should hold the certificates of the "
            "trusted authorities as PEM"
        ) from error


def _first_missing(*files: Path) -> Path:
    return next((file for file in files if not file.exists()), files[0])


def failure_in_words(error: OSError) -> str:
    """Return why a handshake failed, as an administrator can act on it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "it did not finish the TLS handshake in time"
    return _in_words(error)


def _in_words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return str(error.reason).lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def own_certificate(settings: TlsSettings) -> CertificateState:
    """Return the state of our own certificate.

    Raises:
        TlsError: a file is missing or cannot be read.
    """
    assert settings.certificate is not None
    assert settings.private_key is not None
    try:
        certificate = x509.load_pem_x509_certificates(settings.certificate.read_bytes())[0]
        password = settings.private_key_password.encode() or None
        key = load_pem_private_key(settings.private_key.read_bytes(), password)
    except OSError as error:
        raise TlsError(f"{error.filename} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise TlsError(
            f"{settings.certificate} or {settings.private_key} is not PEM, or the password is "
            "wrong; check the section [tls]"
        ) from error
    return CertificateState(
        subject=certificate.subject.rfc4514_string(),
        not_after=certificate.not_valid_after_utc.astimezone(UTC),
        matches_key=_public(certificate) == _public(key),
    )


def _public(owner: Any) -> bytes:
    key: Any = owner.public_key()
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded
