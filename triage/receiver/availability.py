"""The Instance Availability Notification SCP (DICOM PS3.4 annex R).

An archive says which instances of a study it has, and how soon they can be fetched.
"""

from __future__ import annotations

from collections.abc import Iterator

import structlog
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.events import Event

from triage.receiver.announcements import (
    RefusedRequestError,
    answered,
    calling_ae_title,
    instance_uid_of,
    read,
    references,
    required_uid,
)
from triage.receiver.services import DimseService
from triage.receiver.statuses import NormalizedStatus
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.signals import Reference, record_availability

log = structlog.get_logger(__name__)

INSTANCE_AVAILABILITY_NOTIFICATION = "1.2.840.10008.5.1.4.33"
_WITHIN_REACH = ("ONLINE", "NEARLINE")  # Instance Availability (0008,0056), PS3.3 C.4.23.1.1


class AvailabilityNotifications:
    """Keeps notifications; success means that the notification is in the database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def service(self) -> DimseService:
        """Return the service for the receiver."""
        return DimseService(
            sop_classes=(INSTANCE_AVAILABILITY_NOTIFICATION,),
            handlers=((evt.EVT_N_CREATE, lambda event: answered(self._create, event)),),
        )

    def _create(self, event: Event) -> str:
        uid = instance_uid_of(event)
        notification = read(lambda: event.attribute_list)
        study_instance_uid = required_uid(notification, "StudyInstanceUID")
        named = list(_instances_of(notification))
        if not named:
            raise RefusedRequestError(
                NormalizedStatus.MISSING_ATTRIBUTE, "ReferencedSeriesSequence is missing"
            )
        with self._database.transaction() as session:
            record_availability(
                session,
                uid,
                study_instance_uid,
                references=named,
                calling_ae_title=calling_ae_title(event),
                now=self._clock(),
            )
        log.info("instances available", study=study_instance_uid, instances=len(named))
        return uid


def _instances_of(notification: Dataset) -> Iterator[Reference]:
    for series in notification.get("ReferencedSeriesSequence") or ():
        yield from references(series, "ReferencedSOPSequence", _is_within_reach)


def _is_within_reach(item: Dataset) -> bool:
    return str(item.get("InstanceAvailability") or "").strip().upper() in _WITHIN_REACH
