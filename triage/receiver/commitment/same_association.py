"""A report sent on the association on which it was asked for (DICOM PS3.4 J.3.3)."""

from __future__ import annotations

import itertools
import threading
import time
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.dimse_messages import N_EVENT_REPORT_RSP
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext

from triage.core.commitment import STORAGE_COMMITMENT_INSTANCE, STORAGE_COMMITMENT_PUSH_MODEL
from triage.receiver.commitment.information import EventType

_POLL_S = 0.05


class Answers:
    """Sends reports on associations that the requester opened, and waits for the answers.

    The association's own thread goes on serving meanwhile: pynetdicom's `send_n_event_report` would
    take the next request of the requester for the answer to the report. So the answer is watched
    for as it arrives, and messages of two threads are kept from mixing.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._awaited: dict[tuple[int, int], list[int]] = {}
        self._arrived = threading.Condition(self._lock)

    def attach(self, event: Event) -> None:
        """Prepare an association for it, if it has negotiated storage commitment."""
        association: Any = event.assoc
        if context_of(association) is None:
            return
        whole_message = threading.Lock()
        send = association.dimse.send_msg

        def send_whole(primitive: Any, context_id: int) -> None:
            with whole_message:
                send(primitive, context_id)

        association.dimse.send_msg = send_whole

    def notice(self, event: Event) -> None:
        """Take note of an answer to a report."""
        if not isinstance(event.message, N_EVENT_REPORT_RSP):
            return
        command = event.message.command_set
        key = (id(event.assoc), int(command.get("MessageIDBeingRespondedTo") or 0))
        with self._lock:
            if key in self._awaited:
                self._awaited[key].append(int(command.get("Status") or 0))
                self._arrived.notify_all()

    def send(
        self,
        association: Association,
        event_type: EventType,
        information: Dataset,
        *,
        timeout_s: float,
    ) -> int | None:
        """Return the requester's status, None where it did not answer."""
        context = context_of(association)
        if context is None or not association.is_established:
            return None
        message_id = next(self._numbers) % 65535 + 1
        key = (id(association), message_id)
        with self._lock:
            self._awaited[key] = []
        try:
            request = _request(message_id, event_type, information, context)
            association.dimse.send_msg(request, context.context_id or 0)
            deadline = time.monotonic() + timeout_s
            with self._lock:
                while not self._awaited[key]:
                    if not association.is_established or time.monotonic() > deadline:
                        return None
                    self._arrived.wait(_POLL_S)  # nobody announces the end of an association
                return self._awaited[key][0]
        finally:
            with self._lock:
                del self._awaited[key]


def context_of(association: Association) -> PresentationContext | None:
    """Return the accepted presentation context for storage commitment, if there is one."""
    return next(
        (
            context
            for context in association.accepted_contexts
            if context.abstract_syntax == STORAGE_COMMITMENT_PUSH_MODEL
        ),
        None,
    )


def _request(
    message_id: int, event_type: EventType, information: Dataset, context: PresentationContext
) -> N_EVENT_REPORT:
    syntax = context.transfer_syntax[0]
    encoded = encode(
        information, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
    )
    request = N_EVENT_REPORT()
    request.MessageID = message_id
    request.AffectedSOPClassUID = STORAGE_COMMITMENT_PUSH_MODEL
    request.AffectedSOPInstanceUID = STORAGE_COMMITMENT_INSTANCE
    request.EventTypeID = int(event_type)
    request.EventInformation = BytesIO(encoded or b"")
    return request
