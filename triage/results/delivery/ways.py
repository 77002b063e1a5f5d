"""Which way a delivery goes: one for each kind of destination."""

from __future__ import annotations

from collections.abc import Collection

from triage.core.notices import Notice
from triage.results.delivery import dicom, email, folder, hl7, stow, webhook
from triage.results.delivery.outside import leaving, leaving_notice
from triage.settings import (
    DicomDestination,
    EmailDestination,
    Hl7Destination,
    NoticeDestination,
    ObjectDestination,
    Settings,
    StowDestination,
    WebhookDestination,
)
from triage.store.files import InstanceFiles
from triage.store.outbox import DueDelivery


def send_object(
    due: DueDelivery,
    destination: ObjectDestination,
    files: InstanceFiles,
    settings: Settings,
    absent: Collection[str] = (),
) -> None:
    """Send one object and return once it was taken; `absent` are those that are not sent there.

    Raises:
        DeliveryError: the destination did not take it; the message says why.
    """
    with leaving(due, destination, files, settings, absent) as sent:
        if isinstance(destination, DicomDestination):
            dicom.store(sent, destination, files, calling_ae_title=settings.receiver.ae_title)
        elif isinstance(destination, StowDestination):
            stow.store(sent, destination, files)
        else:
            folder.store(sent, destination, files)


def send_notice(notice: Notice, destination: NoticeDestination, settings: Settings) -> None:
    """Send one notice and return once it was taken.

    Raises:
        DeliveryError: the destination did not take it; the message says why.
    """
    is_outside = destination.deidentify != "none"
    link = "" if is_outside else settings.link_to(notice.study.study_instance_uid)
    notice = leaving_notice(notice, destination, settings)
    if isinstance(destination, WebhookDestination):
        webhook.post(notice, destination, link)
    elif isinstance(destination, EmailDestination):
        email.send(notice, destination, link)
    elif isinstance(destination, Hl7Destination):
        hl7.tell(notice, destination)
    else:
        # The resources of FHIR take long to import, and few destinations want them.
        from triage.results.delivery import fhir  # noqa: PLC0415

        fhir.tell(notice, destination)
