"""An outside workstation: pynetdicom's own SCU of the UPS services, and SCP of its events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
)

from tests.receiver.conftest import port_of
from tests.tools import find_free_port
from triage.pausing import lose_no_answer
from triage.receiver import Receiver

EVERYTHING = "1.2.840.10008.5.1.4.34.5"
WHAT_MATCHES = "1.2.840.10008.5.1.4.34.5.1"


def item(**attributes: Any) -> Dataset:
    """Return a data set with these attributes; None is an empty value."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Return the item of a code sequence."""
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def creation(**changes: Any) -> Dataset:
    """Return what an N-CREATE must have (PS3.4 table CC.2.5-3), and no more."""
    attributes = {
        "ScheduledProcedureStepPriority": "MEDIUM",
        "ProcedureStepLabel": "Second look",
        "ScheduledProcedureStepStartDateTime": "20260301120000",
        "InputReadinessState": "READY",
        "ProcedureStepState": "SCHEDULED",
    }
    return item(**{**attributes, **changes})


def performed(transaction_uid: str) -> Dataset:
    """Return what a workstation sets before it completes a workitem."""
    interpretation = codes.DCM.Interpretation
    return item(
        TransactionUID=transaction_uid,
        UnifiedProcedureStepPerformedProcedureSequence=[
            item(
                PerformedStationNameCodeSequence=[code("WS1", "99HOSP", "Workstation 1")],
                PerformedWorkitemCodeSequence=[
                    code(interpretation.value, "DCM", interpretation.meaning)
                ],
                PerformedProcedureStepStartDateTime="20260301120500",
                PerformedProcedureStepEndDateTime="20260301121000",
                OutputInformationSequence=[],
            )
        ],
    )


@dataclass
class Workstation:
    """A workstation that asks Triage, and listens for events.

    Attributes:
        told: event type, SOP Instance UID and information of each event report, in order.
    """

    ae_title: str = "READER"
    port: int = field(default_factory=find_free_port)
    told: list[tuple[int, str, Dataset]] = field(default_factory=list)
    server: Any = None

    def listen(self) -> None:
        """Take event reports; whoever calls must be let be the SCP (PS3.7 D.3.3.4)."""
        entity = AE(ae_title=self.ae_title)
        entity.add_supported_context(UnifiedProcedureStepEvent, scu_role=False, scp_role=True)
        self.server = entity.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._report)],
        )

    def _report(self, event: evt.Event) -> tuple[int, None]:
        request: Any = event.request
        assert request.AffectedSOPClassUID == UnifiedProcedureStepPush
        uid = str(request.AffectedSOPInstanceUID)
        self.told.append((int(request.EventTypeID), uid, event.event_information))
        return 0x0000, None

    def stop(self) -> None:
        """Listen no more."""
        if self.server is not None:
            self.server.shutdown()
            self.server = None

    def as_remote(self) -> dict[str, Any]:
        """Return the entry of `[[remotes]]` that says where this workstation listens."""
        return {
            "name": self.ae_title.lower(),
            "ae_title": self.ae_title,
            "host": "127.0.0.1",
            "port": self.port,
            "timeout_s": 5,
        }

    @contextmanager
    def at(self, receiver: Receiver | int) -> Iterator[Session]:
        """Give an association with Triage, a receiver of this process or the one on a port."""
        entity = AE(ae_title=self.ae_title)
        for sop_class in (
            UnifiedProcedureStepPush,
            UnifiedProcedureStepPull,
            UnifiedProcedureStepWatch,
            UnifiedProcedureStepQuery,
        ):
            entity.add_requested_context(sop_class)
        port = receiver if isinstance(receiver, int) else port_of(receiver)
        association = entity.associate("127.0.0.1", port, ae_title="TRIAGE")
        assert association.is_established
        assert len(association.accepted_contexts) == 4
        lose_no_answer(association)
        try:
            yield Session(association)
        finally:
            association.release()


@dataclass
class Session:
    """What a workstation asks on one association; statuses come back as numbers."""

    association: Association

    def create(self, attributes: Dataset, uid: str | None = None) -> tuple[int, str]:
        """Return the status of an N-CREATE, and the SOP Instance UID."""
        uid = uid or str(generate_uid(prefix=None))
        status, _ = self.association.send_n_create(attributes, UnifiedProcedureStepPush, uid)
        return int(status.Status), uid

    def get(self, uid: str, *keywords: int) -> Dataset:
        """Return the answer to an N-GET, a data set with Status where it was refused."""
        status, found = self.association.send_n_get(list(keywords), UnifiedProcedureStepPush, uid)
        if status.Status != 0x0000:
            return status
        assert found is not None
        return found

    def set(self, uid: str, changes: Dataset) -> int:
        """Return the status of an N-SET."""
        status, _ = self.association.send_n_set(changes, UnifiedProcedureStepPush, uid)
        return int(status.Status)

    def act(self, uid: str, action: int, information: Dataset) -> int:
        """Return the status of an N-ACTION."""
        status, _ = self.association.send_n_action(
            information, action, UnifiedProcedureStepPush, uid
        )
        return int(status.Status)

    def change_state(self, uid: str, state: str, transaction_uid: str) -> int:
        """Ask for another state."""
        given = item(ProcedureStepState=state, TransactionUID=transaction_uid)
        return self.act(uid, 1, given)

    def subscribe(
        self, uid: str, ae_title: str = "READER", lock: str = "FALSE", **keys: Any
    ) -> int:
        """Subscribe `ae_title`."""
        return self.act(uid, 3, item(ReceivingAE=ae_title, DeletionLock=lock, **keys))

    def find(self, **keys: Any) -> list[Dataset]:
        """Return the matches of a C-FIND on UPS Pull."""
        responses = list(self.association.send_c_find(item(**keys), UnifiedProcedureStepPull))
        last, _ = responses[-1]
        assert last.Status == 0x0000, f"0x{last.Status:04X} {last.get('ErrorComment')}"
        return [found for _, found in responses[:-1] if found is not None]
