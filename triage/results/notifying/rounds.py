"""One message to a person after another: claimed, sent, and its outcome written."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import structlog

from triage.core.notifications import MessageKind
from triage.results.delivery.rounds import Random, retry_after
from triage.results.errors import DeliveryError
from triage.results.notifying import email, webhook
from triage.settings import Destination, EmailDestination, Settings, WebhookDestination
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.notification_outbox import (
    DueMessage,
    claim_message,
    is_message_due,
    mark_not_sent,
    mark_sent,
)
from triage.store.notifications import NotificationError, acknowledge

log = structlog.get_logger()

_LEASE_MARGIN_S = 30.0
_WAITS_OF_ONE_ATTEMPT = 4  # connect, greet, send, leave


def send_next(
    database: Database, settings: Settings, clock: Clock, random: Random, *, channel: str
) -> bool:
    """Send the message of a channel that is due and most urgent; return whether there was one.

    The outcome is written whatever it is: sent, waiting for its next attempt, or dead, which lets
    the next step be told.
    """
    with database.reading() as session:  # most rounds find nothing, and need no writer's lock
        if not is_message_due(session, channel, clock()):
            return False
    destination = _destination(channel, settings)
    wait_s = _WAITS_OF_ONE_ATTEMPT * (destination.timeout_s if destination else 0.0)
    lease = timedelta(seconds=wait_s + _LEASE_MARGIN_S)
    with database.transaction() as session:
        due = claim_message(session, channel, lease=lease, now=clock())
    if due is None:
        return False
    try:
        acknowledged_by = _send(due, destination, settings, clock)
    except Exception as fault:  # noqa: BLE001 - a fault of ours must not go round for ever
        error = _as_delivery_error(fault, due)
        is_last = error.is_permanent or due.attempt >= settings.results.maximum_delivery_attempts
        pause = retry_after(due.attempt, settings.results, random, error.retry_after)
        with database.transaction() as session:
            wait = None if is_last else pause
            mark_not_sent(session, due, str(error), retry_after=wait, now=clock())
        return True
    with database.transaction() as session:
        mark_sent(session, due, now=clock())
    if acknowledged_by and due.kind is MessageKind.ALERT:
        _acknowledge(database, due, acknowledged_by, clock)
    return True


def _send(
    due: DueMessage, destination: Destination | None, settings: Settings, clock: Clock
) -> str:
    """Send it, and return who acknowledged it by the answer, or ""."""
    if isinstance(destination, WebhookDestination):
        return webhook.post(due, destination, settings, clock)
    if not isinstance(destination, EmailDestination):
        raise DeliveryError(
            f"no destination {due.channel!r} of kind email or webhook is configured any more; "
            "configure it again",
            is_permanent=True,
        )
    person = settings.notifications.recipient(due.recipient)
    if person is None or not person.email:
        raise DeliveryError(
            f"{due.recipient} has no e-mail address any more; set it in "
            "[[notifications.recipients]]",
            is_permanent=True,
        )
    email.send(due, person.email, destination, settings, clock)
    return ""


def _acknowledge(database: Database, due: DueMessage, who: str, clock: Clock) -> None:
    for entry in due.entries:
        # Taken back meanwhile: there is nothing to acknowledge, and nothing is wrong.
        with contextlib.suppress(NotificationError), database.transaction() as session:
            acknowledge(session, entry.notification_id, who=who, via=due.channel, now=clock())


def _as_delivery_error(fault: Exception, due: DueMessage) -> DeliveryError:
    if isinstance(fault, DeliveryError):
        return fault
    # Only where it happened: the words of the fault may hold patient data.
    log.error("notification.send_fault", message=due.identity, error=type(fault).__name__)
    return DeliveryError(
        f"Triage failed while sending it ({type(fault).__name__}); report this", is_permanent=False
    )


def _destination(channel: str, settings: Settings) -> Destination | None:
    return next((one for one in settings.destinations if one.name == channel), None)
