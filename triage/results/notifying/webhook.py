"""A message to one person through another system, such as a pager gateway, by signed webhook.

The schema is versioned like that of results (`triage.results.delivery.webhook_message`): later
versions of Triage add fields and never change or remove any without a new `version`.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from triage.core.notifications import MessageKind
from triage.results.delivery.webhook import post_signed
from triage.results.delivery.webhook_message import PriorityWord
from triage.settings import Settings, WebhookDestination
from triage.store.clock import Clock, system_clock
from triage.store.notification_outbox import DueMessage, MessageEntry

_LONGEST_NAME = 128


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Patient(_Part):
    """Who the patient is; only where the destination's `patient_data` lets it out."""

    patient_id: str
    name: str
    birth_date: str
    accession_number: str


class Notified(_Part):
    """One finding that the person is told of."""

    notification: int
    finding: str
    said: str
    priority: PriorityWord
    model: str
    rule: str
    step: int
    reason: str
    raised_at: datetime
    study_instance_uid: str
    modalities: tuple[str, ...]
    description: str
    link: str
    patient: Patient | None = None


class NotificationMessage(_Part):
    """What is posted. An answer `{"acknowledged_by": "name"}` acknowledges what it tells."""

    version: Literal[1] = 1
    type: Literal["notification.alert", "notification.digest", "notification.retraction"]
    recipient: str
    attempt: int
    notifications: tuple[Notified, ...]


def post(
    due: DueMessage,
    destination: WebhookDestination,
    settings: Settings,
    clock: Clock = system_clock,
) -> str:
    """Send the message; return who acknowledged it by the answer, or "".

    Raises:
        DeliveryError: the destination did not take it; the message says why.
    """
    body = message_of(due, destination, settings).model_dump_json()
    return _acknowledged_by(post_signed(destination, due.identity, body, clock).body)


def message_of(
    due: DueMessage, destination: WebhookDestination, settings: Settings
) -> NotificationMessage:
    """Return what is posted, without the patient's data unless the settings let it out."""
    is_taken_back = due.kind is MessageKind.RETRACTION
    kind: Literal["notification.alert", "notification.digest", "notification.retraction"] = (
        "notification.digest" if due.is_digest else "notification.alert"
    )
    return NotificationMessage(
        type="notification.retraction" if is_taken_back else kind,
        recipient=due.recipient,
        attempt=due.attempt,
        notifications=tuple(_notified(e, destination, settings) for e in due.entries),
    )


def _notified(entry: MessageEntry, destination: WebhookDestination, settings: Settings) -> Notified:
    study = entry.study
    patient = Patient(
        patient_id=study.patient.patient_id,
        name=study.patient.name,
        birth_date=study.patient.birth_date,
        accession_number=study.accession_number,
    )
    return Notified(
        notification=entry.notification_id,
        finding=entry.title,
        said=entry.said,
        priority=entry.priority,
        model=entry.model,
        rule=entry.rule,
        step=entry.step,
        reason=entry.reason,
        raised_at=entry.raised_at,
        study_instance_uid=study.study_instance_uid,
        modalities=study.modalities,
        description=study.description,
        link=settings.link_to_notification(entry.notification_id),
        patient=patient if destination.patient_data else None,
    )


def _acknowledged_by(body: bytes) -> str:
    """Return who acknowledged; an answer in any other form is no acknowledgement."""
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    name = said.get("acknowledged_by") if isinstance(said, dict) else None
    if not isinstance(name, str):
        return ""
    return "".join(c for c in name if c.isprintable()).strip()[:_LONGEST_NAME]
