"""Notices to a FHIR server: one transaction each (FHIR R4 3.1.0.11.2)."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from triage.core.notices import Notice
from triage.results.errors import DeliveryError
from triage.results.fhir.bundle import bundle_of
from triage.settings import FhirDestination

_JSON = "application/fhir+json"
_PERMANENT = {400, 409, 410, 412, 413, 415, 422}
"""Statuses that say something of the bundle. The others say something of the server, its address or
our rights there, which a person may mend at any time."""
_LONGEST_ANSWER = 4 * 1024 * 1024
_MOST_WORDS = 500


def tell(notice: Notice, destination: FhirDestination) -> None:
    """Send one notice and return once the server has carried it out, all of it.

    Raises:
        DeliveryError: it has carried out nothing of it; the message has what its OperationOutcome
            says.
    """
    body = bundle_of(notice, destination).model_dump_json()
    answer = _posted(body, destination)
    content = _content(answer)
    if answer.is_success and content.get("resourceType") == "Bundle":
        _check_entries(content, destination)
        return
    if answer.is_success:
        raise DeliveryError(
            f"{destination.name} answered {answer.status_code} without a Bundle; is url the base "
            "of a FHIR server?",
            is_permanent=False,
        )
    raise DeliveryError(
        f"{destination.name} answered {answer.status_code}{_said(content)}",
        is_permanent=answer.status_code in _PERMANENT,
        retry_after=_retry_after(answer, datetime.now(UTC)),
    )


def _posted(body: str, destination: FhirDestination) -> httpx.Response:
    headers = {"Content-Type": _JSON, "Accept": _JSON}
    if destination.authorization:
        headers["Authorization"] = destination.authorization
    try:
        with (
            httpx.Client(verify=_trusted(destination), timeout=destination.timeout_s) as client,
            client.stream("POST", destination.url, content=body, headers=headers) as answer,
        ):
            read = bytearray()
            for part in answer.iter_bytes():
                read += part
                if len(read) > _LONGEST_ANSWER:
                    break
            return httpx.Response(
                answer.status_code,
                headers={"Retry-After": answer.headers.get("Retry-After", "")},
                content=bytes(read),
            )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DeliveryError(
            f"{destination.name} cannot be reached: {str(error) or type(error).__name__}",
            is_permanent=False,
        ) from error


def _trusted(destination: FhirDestination) -> ssl.SSLContext:
    file = destination.authorities
    try:
        return ssl.create_default_context(cafile=str(file) if file else None)
    except (OSError, ValueError) as error:
        raise DeliveryError(
            f"{destination.name}: authorities: {file} cannot be used: {error}", is_permanent=False
        ) from error


def _content(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = json.loads(answer.content)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _check_entries(bundle: dict[str, Any], destination: FhirDestination) -> None:
    """Raise if an entry failed: of a transaction none may, but some servers make it a batch."""
    for entry in bundle.get("entry") or []:
        response = entry.get("response") or {}
        status = str(response.get("status", ""))
        if not status.startswith(("2", "304")):
            raise DeliveryError(
                f"{destination.name} answered {status or 'nothing'} for a part of the transaction"
                f"{_said(response.get('outcome') or {})}",
                is_permanent=status[:3].isdigit() and int(status[:3]) in _PERMANENT,
            )


def _said(outcome: dict[str, Any]) -> str:
    """Return what an OperationOutcome says, after a colon, or nothing."""
    issues = outcome.get("issue")
    if outcome.get("resourceType") != "OperationOutcome" or not isinstance(issues, list):
        return ""
    words = []
    for issue in issues:
        details = issue.get("details") or {}
        words.append(str(issue.get("diagnostics") or details.get("text") or issue.get("code")))
    return f": {'; '.join(words)}"[:_MOST_WORDS]


def _retry_after(answer: httpx.Response, now: datetime) -> timedelta | None:
    """Return how long the server asks us to wait (RFC 9110 10.2.3), or None."""
    value = answer.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return timedelta(seconds=min(int(value), 86400))
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(until - now, timedelta()) if until.tzinfo else None
