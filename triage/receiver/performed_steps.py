"""The Modality Performed Procedure Step SCP (DICOM PS3.4 annex F).

A modality says when it begins a step and, at its end, which instances it made. Only that is kept:
patient and order data of the step are the business of the information system.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import structlog
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_SET
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
from triage.store.signals import Reference, SignalState, create_step, update_step

log = structlog.get_logger(__name__)

MODALITY_PERFORMED_PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"
_REFERENCE_KEYWORDS = (
    "ReferencedImageSequence",
    "ReferencedNonImageCompositeSOPInstanceSequence",
)
_STATES = {
    str(state): state
    for state in (SignalState.IN_PROGRESS, SignalState.COMPLETED, SignalState.DISCONTINUED)
}


class PerformedProcedureSteps:
    """Keeps performed procedure steps; success means that the step is in the database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def service(self) -> DimseService:
        """Return the service for the receiver."""
        return DimseService(
            sop_classes=(MODALITY_PERFORMED_PROCEDURE_STEP,),
            handlers=(
                (evt.EVT_N_CREATE, lambda event: answered(self._create, event)),
                (evt.EVT_N_SET, lambda event: answered(self._set, event)),
            ),
        )

    def _create(self, event: Event) -> str:
        uid = instance_uid_of(event)
        step = read(lambda: event.attribute_list)
        # PS3.4 F.7.2.1.3: a step is created in progress.
        if _state_of(step) is not SignalState.IN_PROGRESS:
            raise RefusedRequestError(
                NormalizedStatus.INVALID_ATTRIBUTE_VALUE, "a new step must be IN PROGRESS"
            )
        studies = _studies_of(step)
        named = list(_instances_of(step))
        with self._database.transaction() as session:
            create_step(
                session,
                uid,
                studies,
                named,
                calling_ae_title=calling_ae_title(event),
                now=self._clock(),
            )
        log.info("performed procedure step begun", sop_instance_uid=uid, studies=studies)
        return uid

    def _set(self, event: Event) -> str:
        uid = str(cast(N_SET, event.request).RequestedSOPInstanceUID or "")
        if not uid:
            raise RefusedRequestError(
                NormalizedStatus.NO_SUCH_SOP_INSTANCE, "Requested SOP Instance UID is empty"
            )
        changes = read(lambda: event.modification_list)
        is_ending = "PerformedProcedureStepStatus" in changes
        state = _state_of(changes) if is_ending else SignalState.IN_PROGRESS
        # A list of series replaces the one before; where it is absent, that one stays.
        has_series = "PerformedSeriesSequence" in changes
        named = list(_instances_of(changes)) if has_series else None
        with self._database.transaction() as session:
            update_step(session, uid, state=state, references=named, now=self._clock())
        log.info(
            "performed procedure step set",
            sop_instance_uid=uid,
            state=str(state),
            instances=None if named is None else len(named),
        )
        return uid


def _state_of(step: Dataset) -> SignalState:
    value = str(step.get("PerformedProcedureStepStatus") or "").strip().upper()
    if not value:
        raise RefusedRequestError(
            NormalizedStatus.MISSING_ATTRIBUTE, "PerformedProcedureStepStatus is missing"
        )
    if value not in _STATES:
        raise RefusedRequestError(
            NormalizedStatus.INVALID_ATTRIBUTE_VALUE,
            "PerformedProcedureStepStatus has no such value",
        )
    return _STATES[value]


def _studies_of(step: Dataset) -> list[str]:
    """Return the Study Instance UIDs: several where one step fulfils the orders of several."""
    items = step.get("ScheduledStepAttributesSequence") or ()
    if not items:
        raise RefusedRequestError(
            NormalizedStatus.MISSING_ATTRIBUTE, "ScheduledStepAttributesSequence is missing"
        )
    return sorted({required_uid(item, "StudyInstanceUID") for item in items})


def _instances_of(step: Dataset) -> Iterator[Reference]:
    for series in step.get("PerformedSeriesSequence") or ():
        for keyword in _REFERENCE_KEYWORDS:
            yield from references(series, keyword)
