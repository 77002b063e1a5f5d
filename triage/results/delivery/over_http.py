"""A request to a destination over HTTP, and what its answer means for the delivery."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version

import httpx

from triage.results.errors import DeliveryError
from triage.settings import FhirDestination, StowDestination, WebhookDestination
from triage.store.outbox import SAYING
from triage.tls import TlsError, failure_in_words, web_context

HttpDestination = StowDestination | FhirDestination | WebhookDestination

_MOST_BYTES = 1024 * 1024
_MOST_SAID = 200
_A_DAY_S = 24 * 3600
_PERMANENT = frozenset({400, 410, 411, 413, 414, 415, 422})
_IN_WORDS = {
    400: "it finds the request wrong",
    401: "it does not know us; check authorization",
    403: "we may not do this there; check authorization, or what it allows us",
    404: "nothing is at this address; check url",
    405: "this address does not take it; check url",
    406: "it cannot answer in a form that we read",
    407: "the proxy on the way does not know us",
    408: "it waited too long for us",
    409: "it conflicts with what is there",
    410: "what was at this address is gone for good; check url",
    413: "it is too long; raise the limit there, or at the proxy in front of it",
    415: "it does not take this form",
    422: "it understands the form and refuses the content",
    425: "it asks us to come again",
    429: "it asks for fewer requests",
    501: "it does not offer this; check url",
    503: "it is not available now",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a destination answered; of the body the first mebibyte."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return httpx.codes.is_success(self.status)


def ask(
    destination: HttpDestination,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    content: bytes | Iterable[bytes] = b"",
) -> Answer:
    """Send one request and return its answer, whatever its status; redirects are not followed.

    Raises:
        DeliveryError: there is no answer. That is never permanent: it says something about the
            network or two configurations, not about what was sent.
    """
    with _client(destination) as client, _transport_errors(destination):
        with client.stream(method, url, headers=dict(headers), content=content) as answer:
            body = b"".join(_first_bytes(answer, destination.timeout_s))
        return Answer(answer.status_code, answer.headers, body)


def refusal(destination: HttpDestination, answer: Answer) -> DeliveryError:
    """Return the error that an answer other than success is.

    What may be mended on either side without changing what is sent (credentials, addresses, load)
    is not permanent.
    """
    status = answer.status
    if httpx.codes.is_redirect(status):
        place = answer.headers.get("location", "").partition("?")[0][:_MOST_SAID]
        what = f"it sends us to {place!r}, where we do not go; set url to where it is"
    elif status in _IN_WORDS:
        what = _IN_WORDS[status]
    else:
        what = "it failed" if status >= 500 else "it refuses this"
    return DeliveryError(
        f"{destination.name} answered HTTP {status}: {what}{_said(answer)}",
        is_permanent=status in _PERMANENT,
        retry_after=retry_after(answer, datetime.now(UTC)),
    )


def retry_after(answer: Answer, now: datetime) -> timedelta | None:
    """Return what Retry-After asks for (RFC 9110 10.2.3), None where it is absent or unreadable.

    >>> later = {"Retry-After": "Sun, 01 Mar 2026 12:02:00 GMT"}
    >>> answer = Answer(503, httpx.Headers(later), b"")
    >>> retry_after(answer, datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
    datetime.timedelta(seconds=120)
    """
    value = answer.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return timedelta(seconds=min(int(value[:12]), _A_DAY_S))
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return max(timedelta(), moment - now)


def _client(destination: HttpDestination) -> httpx.Client:
    headers = {"User-Agent": f"Triage/{_own_version()}", "Accept-Encoding": "identity"}
    if destination.authorization:
        headers["Authorization"] = destination.authorization
    try:
        context = web_context(destination.authorities, destination.own_tls)
    except TlsError as error:
        raise DeliveryError(f"{destination.name}: {error}", is_permanent=False) from error
    return httpx.Client(
        headers=headers,
        verify=context,
        timeout=destination.timeout_s,
        follow_redirects=False,  # the credentials and the patient's data are for one address
    )


def _first_bytes(answer: httpx.Response, timeout_s: float) -> Iterator[bytes]:
    """Yield the beginning of the body: neither its length nor its slowness are bounded there."""
    deadline = time.monotonic() + timeout_s
    left = _MOST_BYTES
    for chunk in answer.iter_bytes():
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0 or time.monotonic() > deadline:
            return


@contextmanager
def _transport_errors(destination: HttpDestination) -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as error:
        what = f"did not answer within {destination.timeout_s:g} s"
        raise _no_answer(destination, what) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _no_answer(destination, _in_words(error)) from error


def _no_answer(destination: HttpDestination, what: str) -> DeliveryError:
    place = httpx.URL(destination.url)
    return DeliveryError(
        f"{destination.name} ({place.scheme}://{place.netloc.decode()}) {what}", is_permanent=False
    )


def _in_words(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"cannot be called over TLS: {failure_in_words(cause)}{_hint(cause)}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectError):
        return f"cannot be reached: {error}"
    return f"broke off: {error or type(error).__name__}"


def _hint(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "; set authorities to who signed it"
    # Alerts 116, 48, 42 and 46 (RFC 8446 6.2): it wants a certificate of ours, or not this one.
    alerts = ("CERTIFICATE_REQUIRED", "UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN")
    if any(alert in str(error.reason) for alert in alerts):
        return "; set certificate and private_key to what it accepts"
    return ""


def _said(answer: Answer) -> str:
    """Return the beginning of what it says in words; an HTML page is for browsers."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "text/plain" and not kind.endswith("json"):
        return ""
    words = " ".join(answer.body[: 4 * _MOST_SAID].decode(errors="replace").split())
    return f"{SAYING}{words[:_MOST_SAID]!r}" if words else ""


def _own_version() -> str:
    try:
        return version("triage")
    except PackageNotFoundError:
        return "unknown"
