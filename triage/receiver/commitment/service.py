"""How storage commitment joins the receiver."""

from __future__ import annotations

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from triage.core.commitment import STORAGE_COMMITMENT_PUSH_MODEL
from triage.receiver.commitment.provider import CommitmentProvider
from triage.receiver.commitment.requester import CommitmentRequester
from triage.receiver.commitment.sources import SourceRequests
from triage.receiver.rounds import Rounds
from triage.receiver.services import DimseService
from triage.settings import Settings
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.files import InstanceFiles

_REPORTERS = 2


class StorageCommitment:
    """Both roles of storage commitment: the service on our port, and the threads behind it.

    A requester that hangs keeps one reporter waiting; there is another.
    """

    def __init__(
        self, settings: Settings, database: Database, files: InstanceFiles, clock: Clock
    ) -> None:
        provider = CommitmentProvider(settings, database, files, clock)
        requester = CommitmentRequester(settings, database, clock)
        self.service = DimseService(
            (STORAGE_COMMITMENT_PUSH_MODEL,),
            (
                (evt.EVT_REQUESTED, _accept_proposed_roles),
                (evt.EVT_ACCEPTED, provider.answers.attach),
                (evt.EVT_DIMSE_RECV, provider.answers.notice),
                (evt.EVT_N_ACTION, provider.handle),
                (evt.EVT_N_EVENT_REPORT, requester.handle),
            ),
        )
        self._rounds = [
            *(Rounds(f"commitment-reports-{n + 1}", provider.go_round) for n in range(_REPORTERS)),
            Rounds("commitment-requests", requester.go_round),
        ]
        if settings.commitment.sources_at:
            sources = SourceRequests(settings.commitment.sources_at, database, clock)
            self._rounds.append(Rounds("commitment-sources", sources.go_round, pause_s=5.0))

    def start(self) -> None:
        """Start asking and reporting."""
        for rounds in self._rounds:
            rounds.start()

    def stop(self) -> None:
        """Stop; what is left to do is done after the next start."""
        for rounds in self._rounds:
            rounds.end()
        for rounds in self._rounds:
            rounds.join()


def _accept_proposed_roles(event: Event) -> None:
    """Accept the roles that a peer proposes: we are SCU and SCP (DICOM PS3.7 D.3.3.4).

    An archive that reports on a new association proposes to be the SCP. Where every storage class
    is accepted, pynetdicom answers role proposals for storage classes only.
    """
    proposed = event.assoc.requestor.role_selection.get(UID(STORAGE_COMMITMENT_PUSH_MODEL))
    if proposed is None:
        return
    accepted = SCP_SCU_RoleSelectionNegotiation()
    accepted.sop_class_uid = UID(STORAGE_COMMITMENT_PUSH_MODEL)
    accepted.scu_role = bool(proposed.scu_role)
    accepted.scp_role = bool(proposed.scp_role)
    event.assoc.acceptor.add_negotiation_item(accepted)
