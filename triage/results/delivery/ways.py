"""Which way a delivery goes: one for each kind of destination."""

from __future__ import annotations

from triage.core.notices import Notice
from triage.results.delivery import dicom
from triage.results.errors import DeliveryError
from triage.settings import DicomDestination, NoticeDestination, ObjectDestination, Settings
from triage.store.files import InstanceFiles
from triage.store.outbox import DueDelivery


def send_object(
    due: DueDelivery, destination: ObjectDestination, files: InstanceFiles, settings: Settings
) -> None:
    """Send one object and return once it was taken.

    Raises:
        DeliveryError: the destination did not take it; the message says why.
    """
    if isinstance(destination, DicomDestination):
        dicom.store(due, destination, files, calling_ae_title=settings.receiver.ae_title)
    else:
        raise DeliveryError(
            f"{destination.name}: objects cannot be sent by {destination.kind}", is_permanent=True
        )


def send_notice(notice: Notice, destination: NoticeDestination, settings: Settings) -> None:
    """Send one notice and return once it was taken.

    Raises:
        DeliveryError: the destination did not take it; the message says why.
    """
    del notice, settings
    raise DeliveryError(
        f"{destination.name}: notices cannot be sent by {destination.kind}", is_permanent=True
    )
