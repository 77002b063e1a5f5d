"""How storage commitment joins the receiver."""

from __future__ import annotations

import time

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from triage.core.commitment import STORAGE_COMMITMENT_PUSH_MODEL
from triage.core.errors import TriageError
from triage.receiver.commitment.provider import CommitmentProvider
from triage.receiver.commitment.requester import CommitmentRequester
from triage.receiver.commitment.sources import SourceRequests
from triage.receiver.peers import peer_by_name
from triage.receiver.rounds import Rounds
from triage.receiver.services import DimseService
from triage.settings import Settings
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.files import InstanceFiles

_REPORTERS = 2
_LONGEST_WAIT_FOR_END_S = 5.0


class CommitmentSettingsError(TriageError):
    """Storage commitment is configured with somebody who is not known."""


class StorageCommitment:
    """Both roles of storage commitment: the service on our port, and the threads behind it.

    A requester that hangs keeps one reporter waiting; there is another.

    Raises:
        CommitmentSettingsError: `commitment.sources_at` names nobody.
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
            *(
                Rounds(
                    f"commitment-reports-{n + 1}",
                    provider.go_round,
                    commits_to=database,
                    is_pressing=provider.waits_for_associations,
                )
                for n in range(_REPORTERS)
            ),
            Rounds("commitment-requests", requester.go_round, commits_to=database),
        ]
        archive = settings.commitment.sources_at
        if archive:
            if peer_by_name(settings, archive) is None:
                raise CommitmentSettingsError(
                    f"commitment.sources_at names {archive!r}, but no remote or destination has "
                    "that name; add it, or leave commitment.sources_at empty"
                )
            sources = SourceRequests(archive, database, clock)
            self._rounds.append(Rounds("commitment-sources", sources.go_round, pause_s=5.0))

    def start(self) -> None:
        """Start asking and reporting."""
        for rounds in self._rounds:
            rounds.start()

    def stop(self) -> None:
        """Stop; what is left to do is done after the next start."""
        for rounds in self._rounds:
            rounds.end()
        deadline = time.monotonic() + _LONGEST_WAIT_FOR_END_S
        for rounds in self._rounds:
            rounds.join(max(0.0, deadline - time.monotonic()))


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
