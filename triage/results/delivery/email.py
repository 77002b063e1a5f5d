"""Notices to people by e-mail: SMTP (RFC 5321), with STARTTLS (RFC 3207) or TLS (RFC 8314)."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import EmailMessage
from email.utils import format_datetime

from triage.core.notices import Notice
from triage.core.priority import Priority
from triage.results.delivery.email_text import template_of, words_of
from triage.results.delivery.redaction import without_patient
from triage.results.errors import DeliveryError
from triage.settings import EmailDestination
from triage.store.clock import Clock, system_clock
from triage.store.outbox import SAYING
from triage.tls import TlsError, failure_in_words, web_context

_REFUSED_FOR_GOOD = 500


def send(
    notice: Notice, destination: EmailDestination, link: str, clock: Clock = system_clock
) -> None:
    """Send one notice and return once the server took it for everybody.

    Raises:
        DeliveryError: the server did not take it; the message says why. Where it took it for some
            of the recipients only, another attempt sends it to all again, under the same
            Message-ID.
    """
    submit(message_of(notice, destination, link, clock), destination)


def submit(message: EmailMessage, destination: EmailDestination) -> None:
    """Hand a message to the destination's server and return once it took it for everybody.

    Raises:
        DeliveryError: the server did not take it; the message says why.
    """
    with _session(destination) as server:
        refused = server.send_message(message)
    if refused:
        raise _refused(destination, refused)


def message_of(
    notice: Notice, destination: EmailDestination, link: str, clock: Clock
) -> EmailMessage:
    """Return the message about `notice`; its Message-ID is the notice's own identity."""
    said = notice if destination.patient_data else without_patient(notice)
    subject, text = words_of(said, destination, link)
    message = EmailMessage()
    message["Subject"] = subject
    message["To"] = ", ".join(destination.recipients)
    if said.study.priority is Priority.STAT:
        message["Importance"] = "high"
    message.set_content(text)
    address(message, destination, notice.notice_id, clock)
    return message


def address(
    message: EmailMessage, destination: EmailDestination, identity: str, clock: Clock
) -> None:
    """Write whom it is from, when it was sent, and the identity by which it is known again."""
    message["From"] = destination.sender
    message["Date"] = format_datetime(clock())
    message["Message-ID"] = f"<{identity}@{destination.sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office reply


def reach(destination: EmailDestination) -> str:
    """Connect, log in and say NOOP, and read the template.

    Raises:
        DeliveryError: one of them failed.
    """
    template_of(destination)
    with _session(destination) as server:
        server.noop()
    how = {"none": "unencrypted", "tls": "over TLS", "starttls": "over STARTTLS"}
    return f"{destination.host}:{destination.port} answers {how[destination.security]}"


@contextmanager
def _session(destination: EmailDestination) -> Iterator[smtplib.SMTP]:
    """Give a session in which we are logged in, with every failure as a DeliveryError."""
    where = f"{destination.name} ({destination.host}:{destination.port})"
    try:
        server = _connected(destination)
        try:
            if destination.username:
                server.login(destination.username, destination.password)
            yield server
        finally:
            _leave(server)
    except smtplib.SMTPAuthenticationError as error:
        raise DeliveryError(
            f"{where} does not let us log in ({error.smtp_code}); check username and password",
            is_permanent=False,
        ) from error
    except smtplib.SMTPRecipientsRefused as error:
        raise _refused(destination, error.recipients) from error
    except smtplib.SMTPResponseException as error:
        raise DeliveryError(
            f"{where} answered {error.smtp_code}{SAYING}{_printable(error.smtp_error)!r}",
            is_permanent=error.smtp_code >= _REFUSED_FOR_GOOD,
        ) from error
    except smtplib.SMTPNotSupportedError as error:
        raise DeliveryError(f"{where}: {error}; check security", is_permanent=False) from error
    except (smtplib.SMTPException, TlsError) as error:
        raise DeliveryError(f"{where}: {error}", is_permanent=False) from error
    except OSError as error:
        raise DeliveryError(f"{where} {_in_words(error)}", is_permanent=False) from error


def _connected(destination: EmailDestination) -> smtplib.SMTP:
    host, port, timeout_s = destination.host, destination.port, destination.timeout_s
    if destination.security == "none":
        return smtplib.SMTP(host, port, timeout=timeout_s)
    context = web_context(destination.authorities)
    if destination.security == "tls":
        return smtplib.SMTP_SSL(host, port, timeout=timeout_s, context=context)
    server = smtplib.SMTP(host, port, timeout=timeout_s)
    try:
        server.starttls(context=context)
    except BaseException:
        server.close()
        raise
    return server


def _leave(server: smtplib.SMTP) -> None:
    # Whatever it says to our QUIT: what it took before, it took.
    try:
        server.quit()
    except (smtplib.SMTPException, OSError):
        server.close()


def _in_words(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"cannot be called over TLS: {failure_in_words(error)}; set authorities"
    if isinstance(error, ssl.SSLError):
        return f"cannot be called over TLS: {failure_in_words(error)}; check security and port"
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    return f"cannot be reached: {error.strerror or error}"


def _refused(
    destination: EmailDestination, recipients: Mapping[str, tuple[int, bytes]]
) -> DeliveryError:
    codes = ", ".join(f"{address} ({code})" for address, (code, _) in recipients.items())
    words = next(words for _, words in recipients.values())
    return DeliveryError(
        f"{destination.name} refused {len(recipients)} of {len(destination.recipients)} "
        f"recipients: {codes}{SAYING}{_printable(words)!r}",
        is_permanent=any(code >= _REFUSED_FOR_GOOD for code, _ in recipients.values()),
    )


def _printable(words: bytes | str) -> str:
    text = words.decode(errors="replace") if isinstance(words, bytes) else words
    return " ".join(text.split())[:200]
