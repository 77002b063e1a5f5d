"""The Storage SCP: a data set that arrives becomes a stored instance (DICOM PS3.4 annex B)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from triage.receiver.intake import ArrivingInstance, Intake
from triage.receiver.journaled import AnnouncedInstance
from triage.receiver.refusals import RefusedInstanceError, StorageStatus
from triage.receiver.visits import VisitTally

log = structlog.get_logger(__name__)


class StoreSink:
    """Takes the data set of one C-STORE request and gives its answer.

    What cannot be stored is read to its end all the same, because only then may the sender be
    told why (DICOM PS3.7 9.1.1.2).
    """

    def __init__(self, intake: Intake, announced: AnnouncedInstance, tally: VisitTally) -> None:
        self._announced = announced
        self._tally = tally
        self._instance: ArrivingInstance | None = None
        self._answer: tuple[StorageStatus, str] = (
            StorageStatus.CANNOT_UNDERSTAND,
            "the request has no data set",
        )
        self._attempt(self._begin, intake)

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes."""
        if self._instance is not None:
            self._attempt(self._instance.write, fragment)

    def finish(self) -> tuple[int, str]:
        """Return status and Error Comment; success means durable and indexed."""
        if self._instance is not None:
            self._attempt(self._finish, self._instance)
        status, comment = self._answer
        if status != StorageStatus.SUCCESS:
            why = f"0x{status:04X} {comment}"
            self._tally.refused(self._announced.calling_ae_title, why)
        return int(status), comment

    def discard(self) -> None:
        """Remove what was written of an instance that will not come to its end."""
        if self._instance is not None:
            self._instance.discard()
            self._instance = None

    def _begin(self, intake: Intake) -> None:
        self._instance = intake.begin(self._announced)

    def _finish(self, instance: ArrivingInstance) -> None:
        recorded = instance.finish()
        self._instance = None
        self._answer = (StorageStatus.SUCCESS, "")
        sender = self._announced.calling_ae_title
        self._tally.stored(sender, recorded.study_id, instance.received_bytes)

    def _attempt(self, step: Callable[[Any], None], subject: Any) -> None:
        try:
            step(subject)
        except RefusedInstanceError as refusal:
            log.warning(
                "instance refused",
                sop_instance_uid=_shown_uid(self._announced.sop_instance_uid),
                status=f"0x{refusal.status:04X}",
                reason=refusal.comment,
            )
            self._refuse(refusal.status, refusal.comment)
        except Exception as error:
            log.exception("instance not stored", error=type(error).__name__)
            self._refuse(StorageStatus.PROCESSING_FAILURE, "internal error of the receiver")

    def _refuse(self, status: StorageStatus, comment: str) -> None:
        self._answer = (status, comment)
        self.discard()


def _shown_uid(uid: str) -> str:
    """Return an untrusted UID in a form that can do no harm in a log."""
    return ascii(uid)[1:65]
