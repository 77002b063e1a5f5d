"""A message to one person by e-mail.

Its link leads to the page on which the person acknowledges. Opening a link never acknowledges:
mail scanners open all of them.
"""

from __future__ import annotations

from email.message import EmailMessage

from triage.core.notifications import MessageKind
from triage.core.priority import Priority
from triage.results.delivery import email
from triage.settings import EmailDestination, Settings
from triage.store.clock import Clock, system_clock
from triage.store.notification_outbox import DueMessage, MessageEntry

_LONGEST_SUBJECT = 150
_NOT_FOR_DIAGNOSIS = "An AI result, not for primary diagnosis. Sent by Triage."


def send(
    due: DueMessage,
    to: str,
    destination: EmailDestination,
    settings: Settings,
    clock: Clock = system_clock,
) -> None:
    """Send the message to the address and return once the server took it.

    Raises:
        DeliveryError: the server did not take it; the message says why.
    """
    email.submit(message_of(due, to, destination, settings, clock), destination)


def message_of(
    due: DueMessage, to: str, destination: EmailDestination, settings: Settings, clock: Clock
) -> EmailMessage:
    """Return the message; its Message-ID is its own identity in every attempt."""
    message = EmailMessage()
    message["Subject"] = _subject(due)[:_LONGEST_SUBJECT]
    message["To"] = to
    if any(entry.priority is Priority.STAT for entry in due.entries) and not due.is_digest:
        message["Importance"] = "high"
    said = [_said(due, entry, destination, settings) for entry in due.entries]
    message.set_content("\n\n".join([_beginning(due), *said, _NOT_FOR_DIAGNOSIS]) + "\n")
    email.address(message, destination, due.identity, clock)
    return message


def _subject(due: DueMessage) -> str:
    first = due.entries[0]
    if due.is_digest:
        number = len(due.entries)
        return f"Digest: {number} finding{'' if number == 1 else 's'} of the AI"
    about = f"{first.title} ({', '.join(first.study.modalities) or 'study'})"
    if due.kind is MessageKind.RETRACTION:
        return f"Taken back: {about}"
    unacknowledged = "" if first.step == 1 else "Not acknowledged, "
    return f"{unacknowledged}{first.priority.label}: {about}"


def _beginning(due: DueMessage) -> str:
    if due.kind is MessageKind.RETRACTION:
        return f"This was taken back: {due.entries[0].reason}"
    if due.is_digest:
        return "You were not told of these at once:"
    if due.entries[0].step > 1:
        return "Nobody has acknowledged this finding so far. You are told next."
    return "The AI has found this in a study that waits to be read:"


def _said(
    due: DueMessage, entry: MessageEntry, destination: EmailDestination, settings: Settings
) -> str:
    study = entry.study
    lines = [
        f"{entry.priority.label}: {entry.said}",
        f"Study: {study.description or 'without description'}, from {study.calling_ae_title}",
        f"Model: {entry.model}",
    ]
    if destination.patient_data:
        patient = study.patient
        lines += [
            f"Patient: {patient.name}, ID {patient.patient_id or 'none'}, "
            f"born {patient.birth_date or 'unknown'}",
            f"Accession number: {study.accession_number or 'none'}",
        ]
    if due.is_digest:
        lines.append(f"Not told at once: {entry.reason}")
    if link := settings.link_to_notification(entry.notification_id):
        lines.append(f"See and acknowledge: {link}")
    return "\n".join(lines)
