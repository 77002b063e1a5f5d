"""Whether destinations could take something, asked without sending them anything.

Apart from what builds messages, so that asking needs none of the libraries of sending.
"""

from __future__ import annotations

import json

from triage.hl7.mllp import MllpConnection, MllpError
from triage.results.delivery import dicom, email, folder, stow, webhook
from triage.results.delivery.over_http import ask, refusal
from triage.results.errors import DeliveryError
from triage.results.hl7.templates import TemplateError, check_templates
from triage.settings import (
    Destination,
    DicomDestination,
    EmailDestination,
    FhirDestination,
    FolderDestination,
    Hl7Destination,
    Settings,
    StowDestination,
    WebhookDestination,
)

_PATIENCE_S = 5.0


def reach(destination: Destination, settings: Settings) -> str:
    """Ask a destination whether it could take something, without sending it anything.

    Raises:
        AssociationError: an archive cannot be reached, or refuses us.
        DeliveryError: it could not; the message says why and what to do.
    """
    if isinstance(destination, DicomDestination):
        return dicom.reach(destination, calling_ae_title=settings.receiver.ae_title)
    if isinstance(destination, StowDestination):
        return stow.reach(destination)
    if isinstance(destination, FolderDestination):
        return folder.reach(destination)
    if isinstance(destination, WebhookDestination):
        return webhook.reach(destination)
    if isinstance(destination, EmailDestination):
        return email.reach(destination)
    if isinstance(destination, Hl7Destination):
        return _reach_hl7(destination)
    return _reach_fhir(destination)


def _reach_hl7(destination: Hl7Destination) -> str:
    # With TLS if it asks for it; no message is sent.
    where = f"{destination.host} port {destination.port}"
    try:
        templates = check_templates(destination.templates) if destination.templates else []
        with MllpConnection(
            destination,
            port=destination.port,
            name=destination.name,
            timeout_s=min(destination.timeout_s, _PATIENCE_S),
        ):
            pass
    except (MllpError, TemplateError, OSError) as error:
        raise DeliveryError(str(error), is_permanent=False) from error
    said = f"; templates: {', '.join(templates)}" if templates else ""
    return f"accepts connections at {where}{said}"


def _reach_fhir(destination: FhirDestination) -> str:
    # The capability statement, FHIR R4 3.1.0.9.
    url = f"{destination.url.rstrip('/')}/metadata"
    answer = ask(destination, "GET", url, headers={"Accept": "application/fhir+json"})
    if not answer.is_success:
        raise refusal(destination, answer)
    version = _version_in(answer.body)
    if not version:
        raise DeliveryError(
            f"{destination.name} has no capability statement; is url the base of a FHIR server?",
            is_permanent=False,
        )
    return f"speaks FHIR {version} at {destination.url}"


def _version_in(statement: bytes) -> str:
    """Return what a capability statement says that the server speaks; empty where it is none."""
    try:
        content = json.loads(statement)
    except (ValueError, RecursionError):
        return ""
    return str(content.get("fhirVersion") or "") if isinstance(content, dict) else ""
