"""Storage Commitment Push Model as an SCP: what senders ask, and what they are told."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import build_context, build_role
from sqlalchemy.exc import SQLAlchemyError

from triage.associations import AssociationError, associate
from triage.core.commitment import (
    STORAGE_COMMITMENT_INSTANCE,
    STORAGE_COMMITMENT_PUSH_MODEL,
    FailureReason,
    Reference,
)
from triage.receiver.commitment.answers import Answer, answer
from triage.receiver.commitment.backoff import retry_after
from triage.receiver.commitment.information import (
    REQUEST_STORAGE_COMMITMENT,
    CommitmentRequest,
    EventType,
    InformationError,
    decoded,
    parse_request,
    report_information,
)
from triage.receiver.commitment.same_association import Answers
from triage.receiver.peers import peer_by_ae_title
from triage.receiver.statuses import NormalizedStatus
from triage.settings import Settings
from triage.store.clock import Clock
from triage.store.commitment_requests import (
    DueReport,
    IndexedFile,
    add_request,
    claim_report,
    has_due_report,
    indexed_files,
    mark_not_reported,
    mark_reported,
)
from triage.store.database import Database
from triage.store.files import InstanceFiles

log = structlog.get_logger(__name__)

_ANSWER_TIMEOUT_S = 10.0
_HEAD_START = timedelta(seconds=3)
_LEASE = timedelta(seconds=180)


class ReportError(Exception):
    """The requester did not take the report; says why."""


class CommitmentProvider:
    """Keeps each request, and reports on it until the requester has taken the report."""

    def __init__(
        self, settings: Settings, database: Database, files: InstanceFiles, clock: Clock
    ) -> None:
        self._settings = settings
        self._database = database
        self._files = files
        self._clock = clock
        self.answers = Answers()
        self._lock = threading.Lock()
        self._open: dict[int, tuple[Association, float]] = {}

    def handle(self, event: Event) -> Answer:
        """Answer an N-ACTION: success once the request is durable (DICOM PS3.4 J.3.2)."""
        request: Any = event.request
        if request.RequestedSOPInstanceUID != STORAGE_COMMITMENT_INSTANCE:
            return answer(NormalizedStatus.NO_SUCH_SOP_INSTANCE, "not the well-known SOP instance")
        if request.ActionTypeID != REQUEST_STORAGE_COMMITMENT:
            return answer(NormalizedStatus.NO_SUCH_ACTION, "the only action type is 1")
        try:
            asked = parse_request(decoded(lambda: event.action_information))
        except InformationError as error:
            return answer(NormalizedStatus.INVALID_ARGUMENT_VALUE, str(error))
        try:
            self._keep(asked, event.assoc)
        except SQLAlchemyError as error:
            log.warning("commitment request not kept", error=type(error).__name__)
            return answer(NormalizedStatus.PROCESSING_FAILURE, "cannot be kept now; ask again")
        return answer(NormalizedStatus.SUCCESS)

    def _keep(self, asked: CommitmentRequest, association: Association) -> None:
        now, grace_s = self._clock(), self._settings.commitment.same_association_s
        calling = association.requestor.ae_title.strip()
        with self._database.transaction() as session:
            # Until then it is for this receiver, which has the association.
            request_id = add_request(
                session,
                transaction_uid=asked.transaction_uid,
                calling_ae_title=calling,
                references=asked.references,
                report_at=now + timedelta(seconds=grace_s) + _HEAD_START,
                now=now,
            )
        with self._lock:
            self._open[request_id] = (association, time.monotonic() + grace_s)
        log.info(
            "commitment requested",
            transaction_uid=asked.transaction_uid,
            instances=len(asked.references),
            calling_ae_title=calling,
        )

    def go_round(self) -> bool:
        """Send one report that is due; return whether there was one."""
        on_same = self._next_open()
        if on_same is not None:
            request_id, association = on_same
            return self._report(request_id, association)
        with self._database.reading() as session:
            if not has_due_report(session, self._clock()):
                return False
        return self._report(None, None)

    def waits_for_associations(self) -> bool:
        """Return whether a report becomes due by the end of an association, or with time."""
        return bool(self._open)

    def _next_open(self) -> tuple[int, Association] | None:
        """Return a request whose association has ended, or has been open for long enough."""
        with self._lock:
            for request_id, (association, due_at) in self._open.items():
                if time.monotonic() >= due_at or not association.is_established:
                    del self._open[request_id]
                    return request_id, association
        return None

    def _report(self, request_id: int | None, association: Association | None) -> bool:
        with self._database.transaction() as session:
            now = self._clock()
            due = claim_report(session, lease=_LEASE, now=now, request_id=request_id)
        if due is None:
            return request_id is not None
        if association is None:
            with self._lock:
                association, _ = self._open.pop(due.request_id, (None, 0.0))
        try:
            event_type, information = self._outcome(due)
            if association is None or not self._tell_on(association, event_type, information):
                self._tell_anew(due, event_type, information)
        except (ReportError, AssociationError) as error:
            self._failed(due, str(error))
            return True
        with self._database.transaction() as session:
            mark_reported(session, due, now=self._clock())
        log.info(
            "commitment reported",
            transaction_uid=due.transaction_uid,
            event_type=int(event_type),
            calling_ae_title=due.calling_ae_title,
        )
        return True

    def _outcome(self, due: DueReport) -> tuple[EventType, Dataset]:
        with self._database.reading() as session:
            held = indexed_files(session, [one.sop_instance_uid for one in due.references])
        return report_information(
            due.transaction_uid,
            due.references,
            lambda reference: self._failure_of(reference, held),
            ae_title=self._settings.receiver.ae_title,
        )

    def _failure_of(
        self, reference: Reference, held: dict[str, IndexedFile]
    ) -> FailureReason | None:
        """Return why an instance is not committed to: only what is on disk, whole, is."""
        indexed = held.get(reference.sop_instance_uid)
        if indexed is None or not indexed.path:
            return FailureReason.NO_SUCH_OBJECT_INSTANCE
        if indexed.sop_class_uid != reference.sop_class_uid:
            return FailureReason.CLASS_INSTANCE_CONFLICT
        path: Path = self._files.absolute(indexed.path)
        try:
            size_bytes = path.stat().st_size
        except FileNotFoundError:
            return FailureReason.NO_SUCH_OBJECT_INSTANCE
        except OSError:
            return FailureReason.PROCESSING_FAILURE
        is_whole = size_bytes == indexed.size_bytes
        return None if is_whole else FailureReason.PROCESSING_FAILURE

    def _tell_on(self, association: Association, event_type: EventType, report: Dataset) -> bool:
        status = self.answers.send(association, event_type, report, timeout_s=_ANSWER_TIMEOUT_S)
        return status == NormalizedStatus.SUCCESS

    def _tell_anew(self, due: DueReport, event_type: EventType, report: Dataset) -> None:
        peer = peer_by_ae_title(self._settings, due.calling_ae_title)
        if peer is None:
            raise ReportError(
                f"{due.calling_ae_title} is no configured remote or destination, so its address "
                "is not known; add it to [[remotes]]"
            )
        with associate(
            peer,
            [build_context(STORAGE_COMMITMENT_PUSH_MODEL)],
            calling_ae_title=self._settings.receiver.ae_title,
            roles=[build_role(STORAGE_COMMITMENT_PUSH_MODEL, scp_role=True)],
        ) as association:
            answered, _ = association.send_n_event_report(
                report, event_type, STORAGE_COMMITMENT_PUSH_MODEL, STORAGE_COMMITMENT_INSTANCE
            )
        status = answered.get("Status")
        if status is None:
            raise ReportError(f"{peer.name} did not answer the report")
        if status != NormalizedStatus.SUCCESS:
            raise ReportError(f"{peer.name} answered the report with 0x{status:04X}")

    def _failed(self, due: DueReport, error: str) -> None:
        settings = self._settings.commitment
        is_last = due.attempt >= settings.maximum_attempts
        wait = None if is_last else retry_after(due.attempt, settings)
        with self._database.transaction() as session:
            mark_not_reported(session, due, error, retry_after=wait, now=self._clock())
        log.warning(
            "commitment not reported",
            transaction_uid=due.transaction_uid,
            reason=error,
            gives_up=is_last,
        )
