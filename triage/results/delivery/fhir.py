"""Notices to a FHIR server: one transaction each (FHIR R4 3.1.0.11.2)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from triage.core.notices import Notice
from triage.results.delivery.over_http import Answer, ask, retry_after
from triage.results.errors import DeliveryError
from triage.results.fhir.bundle import bundle_of
from triage.settings import FhirDestination

_JSON = "application/fhir+json"
_PERMANENT = {400, 409, 410, 412, 413, 415, 422}
"""Statuses that say something of the bundle. The others say something of the server, its address or
our rights there, which a person may mend at any time."""
_MOST_WORDS = 500


def tell(notice: Notice, destination: FhirDestination) -> None:
    """Send one notice and return once the server has carried it out, all of it.

    Raises:
        DeliveryError: it has carried out nothing of it; the message has what its OperationOutcome
            says.
    """
    body = bundle_of(notice, destination).model_dump_json()
    answer = ask(
        destination,
        "POST",
        destination.url,
        headers={"Content-Type": _JSON, "Accept": _JSON},
        content=body.encode(),
    )
    content = _content(answer)
    if answer.is_success and content.get("resourceType") == "Bundle":
        _check_entries(content, destination)
        return
    if answer.is_success:
        raise DeliveryError(
            f"{destination.name} answered {answer.status} without a Bundle; is url the base "
            "of a FHIR server?",
            is_permanent=False,
        )
    raise DeliveryError(
        f"{destination.name} answered {answer.status}{_said(content)}",
        is_permanent=answer.status in _PERMANENT,
        retry_after=retry_after(answer, datetime.now(UTC)),
    )


def _content(answer: Answer) -> dict[str, Any]:
    try:
        content = json.loads(answer.body)
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
