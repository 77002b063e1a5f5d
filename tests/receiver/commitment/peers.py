"""Peers of storage commitment that do as a test says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.dsutils import encode
from pynetdicom.presentation import build_role

from tests.tools import find_free_port
from triage.pausing import exclusive, keep_pausable, lose_no_answer

PUSH_MODEL = "1.2.840.10008.1.20.1"
WELL_KNOWN = "1.2.840.10008.1.20.1.1"


def information(transaction_uid: str, references: Sequence[tuple[str, str]]) -> Dataset:
    """Return Action Information."""
    dataset = Dataset()
    dataset.TransactionUID = transaction_uid
    dataset.ReferencedSOPSequence = [item(*reference) for reference in references]
    return dataset


def item(sop_class_uid: str, sop_instance_uid: str, reason: int | None = None) -> Dataset:
    """Return an item of a sequence of references."""
    dataset = Dataset()
    dataset.ReferencedSOPClassUID = sop_class_uid
    dataset.ReferencedSOPInstanceUID = sop_instance_uid
    if reason is not None:
        dataset.FailureReason = reason
    return dataset


@dataclass
class Modality:
    """A sender: asks for commitment, and takes reports on its own port or on the association.

    Attributes:
        statuses: the answers to the coming reports; then success.
        reports: event type and Event Information of each report, in order.
        places: "same" or "new" association, for each report.
        roles: the roles that reporting associations proposed, as (SCU, SCP).
    """

    ae_title: str = "MODALITY"
    port: int = field(default_factory=find_free_port)
    statuses: list[int] = field(default_factory=list)
    reports: list[tuple[int, Dataset]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    roles: list[tuple[bool, bool]] = field(default_factory=list)
    server: Any = None

    def listen(self) -> None:
        """Take reports on its own port."""
        entity = AE(ae_title=self.ae_title)
        entity.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
        self.server = entity.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._report, ["new"])],
        )

    def _report(self, event: evt.Event, place: str) -> tuple[int, None]:
        request: Any = event.request
        self.reports.append((int(request.EventTypeID), event.event_information))
        self.places.append(place)
        proposed = event.assoc.requestor.role_selection.get(PUSH_MODEL)
        if proposed is not None:
            self.roles.append((bool(proposed.scu_role), bool(proposed.scp_role)))
        return (self.statuses.pop(0) if self.statuses else 0x0000), None

    def associate(self, port: int) -> Association:
        """Open an association to Triage on which reports are taken too."""
        entity = AE(ae_title=self.ae_title)
        entity.add_requested_context(PUSH_MODEL)
        entity.add_requested_context("1.2.840.10008.1.1")
        association = entity.associate(
            "127.0.0.1",
            port,
            ae_title="TRIAGE",
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._report, ["same"])],
        )
        assert association.is_established
        keep_pausable(lose_no_answer(association))
        return association

    def ask(
        self, association: Association, asked: Dataset, *, action: int = 1, of: str = WELL_KNOWN
    ) -> Dataset:
        """Return the answer to an N-ACTION."""
        answer, _ = association.send_n_action(asked, action, PUSH_MODEL, of)
        return answer

    def ask_in_a_row(self, association: Association, every: Sequence[Dataset]) -> list[int]:
        """Return the answers to N-ACTIONs that are sent while reports come.

        Pynetdicom's own call is not made for that: the association's thread would take an answer.
        """
        (context_id,) = (
            c.context_id for c in association.accepted_contexts if c.abstract_syntax == PUSH_MODEL
        )
        statuses = []
        with exclusive(association):
            for asked in every:
                request = N_ACTION()
                request.MessageID = len(statuses) + 1
                request.RequestedSOPClassUID = PUSH_MODEL
                request.RequestedSOPInstanceUID = WELL_KNOWN
                request.ActionTypeID = 1
                request.ActionInformation = BytesIO(encode(asked, True, True) or b"")
                association.dimse.send_msg(request, context_id or 0)
                _, answer = association.dimse.get_msg(block=True)
                assert isinstance(answer, N_ACTION)
                statuses.append(int(answer.Status or 0))
        return statuses

    def stop(self) -> None:
        """Stop listening."""
        if self.server is not None:
            self.server.shutdown()
            self.server = None


@dataclass
class Archive:
    """An archive that takes commitment requests and reports as it is told.

    Attributes:
        failing: Failure Reason by SOP Instance UID.
        statuses: the answers to the coming requests; then success.
        asked: the Action Information of each request.
        reports: whether it reports by itself, on the "same" association or a "new" one, or not.
    """

    triage_port: int
    reports: str = "new"
    port: int = field(default_factory=find_free_port)
    failing: dict[str, int] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    asked: list[Dataset] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    server: Any = None

    def listen(self, *, supports_commitment: bool = True) -> None:
        """Take requests."""
        entity = AE(ae_title="ARCHIVE")
        entity.add_supported_context("1.2.840.10008.1.1")
        if supports_commitment:
            entity.add_supported_context(PUSH_MODEL)
        self.server = entity.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[(evt.EVT_N_ACTION, self._take)],
        )

    def _take(self, event: evt.Event) -> tuple[int, None]:
        self.asked.append(event.action_information)
        status = self.statuses.pop(0) if self.statuses else 0x0000
        if status == 0 and self.reports == "same":
            self._report_before_the_answer(event)
        return status, None

    def _report_before_the_answer(self, event: evt.Event) -> None:
        answer, _ = event.assoc.send_n_event_report(
            *self.report_on(self.asked[-1]), PUSH_MODEL, WELL_KNOWN
        )
        self.answers.append(int(answer.Status))

    def report_on(self, asked: Dataset) -> tuple[Dataset, int]:
        """Return Event Information and type for a request."""
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        pairs = [
            (str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID))
            for one in asked.ReferencedSOPSequence
        ]
        committed = [item(*pair) for pair in pairs if pair[1] not in self.failing]
        failed = [item(*pair, self.failing[pair[1]]) for pair in pairs if pair[1] in self.failing]
        if committed:
            report.ReferencedSOPSequence = committed
        if failed:
            report.FailedSOPSequence = failed
        return report, 2 if failed else 1

    def report(self, asked: Dataset) -> int:
        """Report on a new association, in the role of the SCP, and return the answer."""
        entity = AE(ae_title="ARCHIVE")
        entity.add_requested_context(PUSH_MODEL)
        association = entity.associate(
            "127.0.0.1",
            self.triage_port,
            ae_title="TRIAGE",
            ext_neg=[build_role(PUSH_MODEL, scp_role=True)],
        )
        assert association.is_established
        (context,) = association.accepted_contexts
        assert context.as_scp, "Triage did not accept the proposed role"
        answer, _ = association.send_n_event_report(*self.report_on(asked), PUSH_MODEL, WELL_KNOWN)
        association.release()
        return int(answer.Status)

    def stop(self) -> None:
        """Stop listening."""
        if self.server is not None:
            self.server.shutdown()
            self.server = None
