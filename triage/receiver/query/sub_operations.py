"""C-STORE sub-operations of C-MOVE and C-GET (DICOM PS3.4 C.4.2.2, C.4.3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from triage.receiver.query.payload import Payload, PayloadError, choose_context, payload_of
from triage.store.files import InstanceFiles
from triage.store.query import HeldInstance

log = structlog.get_logger(__name__)

_LARGEST_MESSAGE_ID = 65535


@dataclass
class Counters:
    """How the sub-operations of one request stand (DICOM PS3.7 9.1.3.1, 9.1.4.1)."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_sop_instance_uids: list[str] = field(default_factory=list)

    def count(self, instance: HeldInstance, status: int | None) -> None:
        """Count the answer to one C-STORE; None is no answer."""
        self.remaining -= 1
        if status == 0x0000:
            self.completed += 1
        elif status is not None and (status & 0xF000 == 0xB000 or status in (0x0107, 0x0116)):
            self.warning += 1
        else:
            self.failed += 1
            self.failed_sop_instance_uids.append(instance.sop_instance_uid)


@dataclass(frozen=True, slots=True)
class Originator:
    """Who asked for a C-MOVE: AE title and Message ID of its request (DICOM PS3.7 9.1.1.1)."""

    ae_title: str
    message_id: int


class SubOperations:
    """Sends instances over an established association, one at a time.

    Args:
        association: where they go.
        contexts: the presentation contexts on which this side may be the SCU.
        files: where the instances are.
        priority: of the request that they belong to.
        originator: for C-MOVE only.
    """

    def __init__(
        self,
        association: Association,
        contexts: Sequence[PresentationContext],
        files: InstanceFiles,
        *,
        priority: int,
        originator: Originator | None = None,
    ) -> None:
        self.association = association
        self._contexts = list(contexts)
        self._files = files
        self._priority = priority
        self._originator = originator
        self._message_id = 0

    def send(self, instance: HeldInstance) -> int | None:
        """Return the peer's status for one instance, None if it could not be sent.

        Raises:
            ConnectionError: the association is over, or the peer does not answer.
        """
        try:
            context = choose_context(instance, self._contexts)
            path = self._files.absolute(instance.path)
            payload = payload_of(instance, path, str(context.transfer_syntax[0]))
        except PayloadError as error:
            log.warning(
                "instance not sent", sop_instance_uid=instance.sop_instance_uid, reason=str(error)
            )
            return None
        self.association.dimse.send_msg(self._request(instance, payload), context.context_id or 0)
        _, answer = self.association.dimse.get_msg(block=True)
        if not isinstance(answer, C_STORE) or answer.Status is None:
            raise ConnectionError("the peer did not answer C-STORE")
        return int(answer.Status)

    def _request(self, instance: HeldInstance, payload: Payload) -> C_STORE:
        self._message_id = self._message_id % _LARGEST_MESSAGE_ID + 1
        request = C_STORE()
        request.MessageID = self._message_id
        request.AffectedSOPClassUID = instance.sop_class_uid
        request.AffectedSOPInstanceUID = instance.sop_instance_uid
        request.Priority = self._priority
        request.DataSet = payload.data
        request._dataset_path = payload.file
        if self._originator is not None:
            request.MoveOriginatorApplicationEntityTitle = self._originator.ae_title
            request.MoveOriginatorMessageID = self._originator.message_id
        return request
