"""Storage Commitment Push Model as an SCU: archives are asked, and their reports are taken."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from typing import Any

import structlog
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import build_context
from sqlalchemy.exc import SQLAlchemyError

from triage.associations import AssociationError, associate
from triage.core.commitment import STORAGE_COMMITMENT_INSTANCE, STORAGE_COMMITMENT_PUSH_MODEL
from triage.pausing import keep_pausable
from triage.receiver.commitment.answers import Answer, answer
from triage.receiver.commitment.backoff import retry_after
from triage.receiver.commitment.information import (
    REQUEST_STORAGE_COMMITMENT,
    CommitmentReport,
    EventType,
    InformationError,
    decoded,
    parse_report,
    request_information,
)
from triage.receiver.peers import KnownPeer, peer_by_name
from triage.receiver.statuses import NormalizedStatus
from triage.settings import Settings
from triage.store.clock import Clock
from triage.store.commitment_questions import (
    CommitmentQuestion,
    claim_question,
    has_due_question,
    mark_asked,
    mark_not_asked,
    record_report,
)
from triage.store.database import Database

log = structlog.get_logger(__name__)

_LEASE_MARGIN_S = 60.0
_WAITS_OF_ONE_REQUEST = 4  # connect, associate, ask, release
_REPORT_AT_ONCE_S = 1.0
_LONGEST_ANSWER_S = 5.0


class QuestionError(Exception):
    """The archive did not take the request; `is_permanent` where asking again cannot help."""

    def __init__(self, message: str, *, is_permanent: bool = False) -> None:
        super().__init__(message)
        self.is_permanent = is_permanent


class CommitmentRequester:
    """Asks archives for what is to be committed, and records what they report."""

    def __init__(self, settings: Settings, database: Database, clock: Clock) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock

    def go_round(self) -> bool:
        """Make one request that is due; return whether there was one."""
        now = self._clock()
        with self._database.reading() as session:
            if not has_due_question(session, now):
                return False
        with self._database.transaction() as session:
            question = claim_question(
                session,
                new_transaction_uid=_new_uid,
                maximum_attempts=self._settings.commitment.maximum_attempts,
                lease=self._lease(),
                now=now,
            )
        if question is None:
            return True  # what was due has been given up
        try:
            self._ask(question)
        except (QuestionError, AssociationError) as error:
            self._failed(question, error)
            return True
        report_by = self._clock() + timedelta(seconds=self._settings.commitment.report_timeout_s)
        with self._database.transaction() as session:
            mark_asked(session, question, report_by=report_by)
        log.info(
            "commitment asked for",
            archive=question.archive,
            transaction_uid=question.transaction_uid,
            instances=len(question.references),
        )
        return True

    def _lease(self) -> timedelta:
        peers: list[KnownPeer] = [*self._settings.archives, *self._settings.remotes]
        longest_wait_s = max((peer.timeout_s for peer in peers), default=0.0)
        return timedelta(seconds=_WAITS_OF_ONE_REQUEST * longest_wait_s + _LEASE_MARGIN_S)

    def _ask(self, question: CommitmentQuestion) -> None:
        peer = peer_by_name(self._settings, question.archive)
        if peer is None:
            raise QuestionError(
                f"no destination or remote named {question.archive!r} is configured any more",
                is_permanent=True,
            )
        reports = _ReportsAtOnce(self)
        with associate(
            peer,
            [build_context(STORAGE_COMMITMENT_PUSH_MODEL)],
            calling_ae_title=self._settings.receiver.ae_title,
            handlers=[(evt.EVT_N_EVENT_REPORT, reports.handle)],
        ) as association:
            keep_pausable(association)
            self._send(association, question, peer)
            reports.wait()

    def _send(
        self, association: Association, question: CommitmentQuestion, peer: KnownPeer
    ) -> None:
        answered, _ = association.send_n_action(
            request_information(question.transaction_uid, question.references),
            REQUEST_STORAGE_COMMITMENT,
            STORAGE_COMMITMENT_PUSH_MODEL,
            STORAGE_COMMITMENT_INSTANCE,
        )
        status = answered.get("Status")
        if status is None:
            raise QuestionError(f"{peer.name} did not answer the commitment request")
        if status != NormalizedStatus.SUCCESS:
            raise QuestionError(f"{peer.name} answered the commitment request with 0x{status:04X}")

    def _failed(self, question: CommitmentQuestion, error: Exception) -> None:
        is_permanent = isinstance(error, QuestionError) and error.is_permanent
        text = str(error)
        if isinstance(error, AssociationError) and error.no_context:
            is_permanent = True
            text = f"{question.archive} does not accept storage commitment"
        settings = self._settings.commitment
        with self._database.transaction() as session:
            mark_not_asked(
                session,
                question,
                text,
                retry_after=None if is_permanent else lambda n: retry_after(n, settings),
                maximum_attempts=settings.maximum_attempts,
                now=self._clock(),
            )
        log.warning("commitment not asked for", archive=question.archive, reason=text)

    def handle(self, event: Event) -> Answer:
        """Answer an N-EVENT-REPORT: success once the report is durable (DICOM PS3.4 J.3.3)."""
        request: Any = event.request
        if request.EventTypeID not in set(EventType):
            return answer(NormalizedStatus.NO_SUCH_EVENT_TYPE, "event types are 1 and 2")
        try:
            report = parse_report(decoded(lambda: event.event_information))
        except InformationError as error:
            return answer(NormalizedStatus.INVALID_ARGUMENT_VALUE, str(error))
        try:
            is_ours = self._record(report)
        except SQLAlchemyError as error:
            log.warning("commitment report not kept", error=type(error).__name__)
            return answer(NormalizedStatus.PROCESSING_FAILURE, "cannot be kept now; report again")
        if not is_ours:
            return answer(NormalizedStatus.INVALID_ARGUMENT_VALUE, "no such transaction")
        log.info(
            "commitment report taken",
            transaction_uid=report.transaction_uid,
            committed=len(report.committed),
            failed=len(report.failed),
        )
        return answer(NormalizedStatus.SUCCESS)

    def _record(self, report: CommitmentReport) -> bool:
        settings = self._settings.commitment
        with self._database.transaction() as session:
            return record_report(
                session,
                report.transaction_uid,
                committed=[one.sop_instance_uid for one in report.committed],
                failed={one.sop_instance_uid: why for one, why in report.failed.items()},
                retry_after=lambda n: retry_after(n, settings),
                maximum_attempts=settings.maximum_attempts,
                now=self._clock(),
            )


class _ReportsAtOnce:
    """Waits a little for a report on the association of the request, and for its answer."""

    def __init__(self, requester: CommitmentRequester) -> None:
        self._requester = requester
        self._came = threading.Event()
        self._thread: threading.Thread | None = None

    def handle(self, event: Event) -> Answer:
        """Take a report; pynetdicom calls this in a thread that also sends the answer."""
        self._thread = threading.current_thread()
        self._came.set()
        return self._requester.handle(event)

    def wait(self) -> None:
        """Return once the report is answered, or when none has come."""
        if self._came.wait(_REPORT_AT_ONCE_S) and self._thread is not None:
            self._thread.join(_LONGEST_ANSWER_S)


def _new_uid() -> str:
    return str(UID(f"2.25.{uuid.uuid4().int}"))
