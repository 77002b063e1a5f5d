"""C-MOVE and C-GET as an SCP (DICOM PS3.4 C.4.2, C.4.3).

Pynetdicom's own providers hand every instance through a decoded data set and name themselves as the
originator of a move; here the bytes of the file are sent as they were received.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext, build_context
from sqlalchemy.exc import SQLAlchemyError

from triage.associations import AssociationError, Peer, associate
from triage.core.query import QueryError
from triage.pausing import exclusive
from triage.receiver.query.identifier import check_names_what_to_retrieve, parse_identifier
from triage.receiver.query.payload import contexts_for
from triage.receiver.query.statuses import QueryStatus
from triage.receiver.query.sub_operations import (
    Counters,
    Originator,
    SubOperations,
)
from triage.receiver.statuses import error_comment
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.query import HeldInstance, TooManyInstancesError, instances_to_retrieve

log = structlog.get_logger(__name__)

PATIENT_ROOT = frozenset({"1.2.840.10008.5.1.4.1.2.1.2", "1.2.840.10008.5.1.4.1.2.1.3"})
FindPeer = Callable[[str], Peer | None]


class RefusedRetrievalError(Exception):
    """Nothing is sent; `status` and the message are the answer."""

    def __init__(self, status: QueryStatus, comment: str) -> None:
        super().__init__(comment)
        self.status = status


class Retrieval:
    """One C-MOVE or C-GET request, from its identifier to its final response."""

    def __init__(
        self,
        association: Association,
        request: C_MOVE | C_GET,
        context: PresentationContext,
        database: Database,
        files: InstanceFiles,
    ) -> None:
        self.association = association
        self.request = request
        self._context = context
        self._database = database
        self._files = files
        self._counters = Counters(remaining=0)

    def run(self, find_peer: FindPeer, ae_title: str) -> None:
        """Send what was asked for, with a pending response for each instance."""
        try:
            instances = self._instances()
            destination = None
            if isinstance(self.request, C_MOVE):
                destination = self._destination(find_peer)
        except RefusedRetrievalError as refusal:
            self.refuse(refusal.status, str(refusal))
            return
        self._counters.remaining = len(instances)
        if destination is None:
            status = self._send(instances, self._on_same_association())
        else:
            status = self._move(instances, destination, ae_title)
        if status is not None:
            self._finish(status)

    def refuse(self, status: QueryStatus, comment: str) -> None:
        """Answer that nothing is sent."""
        log.warning("retrieval refused", status=f"0x{status:04X}", reason=comment)
        self._respond(status, comment=comment)

    def _instances(self) -> list[HeldInstance]:
        try:
            is_patient_root = self._context.abstract_syntax in PATIENT_ROOT
            query = parse_identifier(self._identifier(), is_patient_root=is_patient_root)
            check_names_what_to_retrieve(query)
            with self._database.reading() as session:
                return instances_to_retrieve(session, query)
        except TooManyInstancesError as error:
            raise RefusedRetrievalError(QueryStatus.CANNOT_COUNT_MATCHES, str(error)) from error
        except QueryError as error:
            status = QueryStatus.IDENTIFIER_DOES_NOT_MATCH
            raise RefusedRetrievalError(status, str(error)) from error
        except SQLAlchemyError as error:
            raise RefusedRetrievalError(
                QueryStatus.UNABLE_TO_PROCESS, "the index cannot be read now"
            ) from error

    def _identifier(self) -> Dataset:
        syntax = self._context.transfer_syntax[0]
        encoded = self.request.Identifier or BytesIO()
        try:
            return decode(
                encoded, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
            )
        except Exception as error:  # whatever hostile bytes make the parser raise
            raise QueryError(f"the identifier cannot be decoded: {type(error).__name__}") from error

    def _destination(self, find_peer: FindPeer) -> Peer:
        assert isinstance(self.request, C_MOVE)
        peer = find_peer(str(self.request.MoveDestination or "").strip())
        if peer is None:
            raise RefusedRetrievalError(
                QueryStatus.MOVE_DESTINATION_UNKNOWN,
                "the move destination is no configured remote or destination",
            )
        return peer

    def _move(
        self, instances: Sequence[HeldInstance], destination: Peer, ae_title: str
    ) -> QueryStatus | None:
        if not instances:
            return QueryStatus.SUCCESS
        contexts = [build_context(*context) for context in contexts_for(instances)]
        try:
            with associate(destination, contexts, calling_ae_title=ae_title) as association:
                return self._send(instances, self._to_destination(association))
        except AssociationError as error:
            log.warning("move destination not reached", reason=str(error))
            self._fail_all(instances)
            return QueryStatus.CANNOT_PERFORM_SUB_OPERATIONS

    def _to_destination(self, association: Association) -> SubOperations:
        asked_by = self.association.requestor.ae_title.strip()
        return SubOperations(
            association,
            association.accepted_contexts,
            self._files,
            priority=int(self.request.Priority or 0),
            originator=Originator(asked_by, int(self.request.MessageID or 0)),
        )

    def _on_same_association(self) -> SubOperations:
        # Without role selection the requestor is no storage SCP (DICOM PS3.7 D.3.3.4).
        roles = self.association.requestor.role_selection
        contexts = [
            context
            for context in self.association.accepted_contexts
            if context.as_scu
            and context.abstract_syntax in roles
            and roles[context.abstract_syntax].scp_role
        ]
        return SubOperations(
            self.association, contexts, self._files, priority=int(self.request.Priority or 0)
        )

    def _send(
        self, instances: Sequence[HeldInstance], sub_operations: SubOperations
    ) -> QueryStatus | None:
        """Return the final status, or None where nobody is left to hear it."""
        with _exclusive_unless_own(sub_operations.association, self.association):
            for position, instance in enumerate(instances):
                if self.request.MessageID in self.association.dimse.cancel_req:
                    return QueryStatus.CANCEL
                if _has_gone(self.association):
                    return None
                try:
                    self._counters.count(instance, sub_operations.send(instance))
                except ConnectionError:
                    self._fail_all(instances[position:])
                    break
                if self._counters.remaining:
                    self._respond(QueryStatus.PENDING)
        return None if _has_gone(self.association) else self._outcome(len(instances))

    def _outcome(self, total: int) -> QueryStatus:
        if total and self._counters.failed == total:
            return QueryStatus.CANNOT_PERFORM_SUB_OPERATIONS
        if self._counters.failed or self._counters.warning:
            return QueryStatus.SUB_OPERATIONS_FAILED
        return QueryStatus.SUCCESS

    def _fail_all(self, instances: Sequence[HeldInstance]) -> None:
        for instance in instances:
            self._counters.count(instance, None)

    def _finish(self, status: QueryStatus) -> None:
        counters = self._counters
        log.info(
            "retrieval answered",
            status=f"0x{status:04X}",
            completed=counters.completed,
            failed=counters.failed,
            calling_ae_title=self.association.requestor.ae_title.strip(),
        )
        self._respond(status)

    def _respond(self, status: QueryStatus, *, comment: str = "") -> None:
        response: Any = type(self.request)()
        response.MessageID = self.request.MessageID
        response.MessageIDBeingRespondedTo = self.request.MessageID
        response.AffectedSOPClassUID = self.request.AffectedSOPClassUID
        response.Status = int(status)
        if comment:
            response.ErrorComment = error_comment(comment)
        else:
            self._add_counters(response, status)
        self.association.dimse.send_msg(response, self._context.context_id or 0)

    def _add_counters(self, response: C_MOVE | C_GET, status: QueryStatus) -> None:
        counters = self._counters
        if status in (QueryStatus.PENDING, QueryStatus.CANCEL):
            response.NumberOfRemainingSuboperations = counters.remaining
        response.NumberOfCompletedSuboperations = counters.completed
        response.NumberOfFailedSuboperations = counters.failed
        response.NumberOfWarningSuboperations = counters.warning
        if status not in (QueryStatus.PENDING, QueryStatus.SUCCESS):
            identifier = Dataset()
            identifier.FailedSOPInstanceUIDList = counters.failed_sop_instance_uids
            syntax = self._context.transfer_syntax[0]
            encoded = encode(
                identifier, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
            )
            response.Identifier = BytesIO(encoded or b"")


@contextmanager
def _exclusive_unless_own(association: Association, own: Association) -> Iterator[None]:
    """Hold the reactor of the other association; that of `own` is the caller."""
    if association is own:
        yield
        return
    with exclusive(association):
        yield


def _has_gone(association: Any) -> bool:
    """Return whether the peer has aborted, released or hung up while its request is served."""
    return bool(association.acse.is_aborted()) or not association.dul.is_alive()
