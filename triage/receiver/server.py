"""The DICOM storage SCP (DICOM PS3.4 annex B) and Verification SCP (annex A)."""

from __future__ import annotations

import errno
import signal
import socket
import threading
import time
import uuid
from typing import Any, cast

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, _config, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE

from triage.core.completeness import QuietPeriods
from triage.core.errors import TriageError
from triage.receiver.commitment import StorageCommitment
from triage.receiver.completeness import CompletenessRounds, OpenAssociations
from triage.receiver.indexer import Indexer
from triage.receiver.intake import IncomingInstance, Intake
from triage.receiver.part10 import IMPLEMENTATION_CLASS_UID
from triage.receiver.query import query_retrieve_services
from triage.receiver.refusals import RefusedInstanceError, StorageStatus
from triage.receiver.services import DimseService
from triage.receiver.transport import StorageServer
from triage.settings import ReceiverSettings, Settings
from triage.store.clock import Clock, system_clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.studies import release_receiver

log = structlog.get_logger(__name__)

# Every storage SOP class is taken, private and future ones too: an image that is refused is an
# image that nobody triages. Pynetdicom has one switch for the process.
_config.UNRESTRICTED_STORAGE_SERVICE = True
# Pynetdicom's own handlers format every PDU as text, with AE titles and identifiers.
_config.LOG_HANDLER_LEVEL = "none"

_GRACE_S = 2.0
_LONGEST_STORE_S = 10.0
_KNOWN_TRANSFER_SYNTAXES = frozenset(AllTransferSyntaxes)


class ReceiverError(TriageError):
    """The receiver cannot run; the message says why and what to do."""


class Receiver:
    """Receives instances over DICOM; a success status means a durable file and an index row."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        files: InstanceFiles,
        clock: Clock = system_clock,
    ) -> None:
        self._settings = settings.receiver
        self._database = database
        self.name = receiver_name(settings.receiver)
        self._open = OpenAssociations()
        self._intake = Intake(
            files,
            Indexer(database, self.name, clock),
            clock,
            minimum_free_bytes=settings.receiver.minimum_free_mb * 1024 * 1024,
        )
        quiet = QuietPeriods(
            settings.receiver.quiet_period_s, settings.receiver.quiet_period_by_modality_s
        )
        self._rounds = CompletenessRounds(database, self.name, quiet, self._open, clock)
        self._commitment = StorageCommitment(settings, database, files, clock)
        self._services = (
            verification_service(),
            *query_retrieve_services(settings, database, files),
            self._commitment.service,
        )
        self._ae = _application_entity(settings.receiver, self._services)
        self._server: StorageServer | None = None

    def start(self) -> None:
        """Listen, after freeing what a killed receiver of this name held.

        Raises:
            ReceiverError: the address is in use or not this machine's.
        """
        # In this order: where a receiver of this name runs, the port is taken, and what it holds
        # open must not be freed. Connections wait until the server begins to serve.
        server = self._listen()
        with self._database.transaction() as session:
            release_receiver(session, self.name)
        self._server = server
        self._rounds.start()
        self._commitment.start()
        threading.Thread(target=server.serve_forever, name="triage-receiver", daemon=True).start()
        log.info("receiver listens", receiver=self.name)

    def _listen(self) -> StorageServer:
        address = (self._settings.host, self._settings.port)
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._handle_requested),
            (evt.EVT_C_STORE, self._handle_store),
            (evt.EVT_REJECTED, _log_association, ["association rejected"]),
            (evt.EVT_ACCEPTED, _log_association, ["association accepted"]),
            (evt.EVT_RELEASED, _log_association, ["association released"]),
            (evt.EVT_ABORTED, _log_association, ["association aborted"]),
            *(handler for service in self._services for handler in service.handlers),
        ]
        try:
            server = self._ae.make_server(
                address, evt_handlers=handlers, server_class=StorageServer
            )
        except OSError as error:
            host, port = address
            if error.errno == errno.EADDRINUSE:
                raise ReceiverError(
                    f"port {port} of {host} is in use by another program; stop it, or choose "
                    "another with receiver.port"
                ) from error
            raise ReceiverError(
                f"cannot listen on {host} port {port}: {error.strerror}; check receiver.host and "
                "receiver.port"
            ) from error
        assert isinstance(server, StorageServer)
        return server

    def stop(self) -> None:
        """Stop listening, let what is under way come to its end, and abort the rest."""
        if self._server is None:
            return
        self._server.shutdown()
        deadline = time.monotonic() + _GRACE_S
        while self._ae.active_associations and time.monotonic() < deadline:
            time.sleep(0.02)
        # An abort does not cut off a handler: what is being stored is stored, and only the answer
        # may be lost, so that the sender sends it again.
        remaining = self._ae.active_associations
        for association in remaining:
            association.abort(block=False)
        for association in remaining:
            association.join(_LONGEST_STORE_S)
        self._rounds.stop()
        self._commitment.stop()
        with self._database.transaction() as session:
            release_receiver(session, self.name)
        self._server = None
        log.info("receiver stopped", receiver=self.name)

    def _handle_requested(self, event: Event) -> None:
        """Put the transfer syntaxes that we can read first (the sender's order is kept otherwise).

        The acceptor chooses among those proposed (DICOM PS3.8 9.3.3.2), and pynetdicom takes the
        first: of a private one and a standard one, this makes it the standard one.
        """
        request = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
        for context in request.presentation_context_definition_list:
            context.transfer_syntax = sorted(
                context.transfer_syntax, key=lambda uid: uid not in _KNOWN_TRANSFER_SYNTAXES
            )

    def _handle_store(self, event: Event) -> int | Dataset:
        """Answer a C-STORE request (DICOM PS3.7 9.1.1, statuses of PS3.4 B.2.3)."""
        incoming = self._incoming(event)
        try:
            self._intake.store(incoming)
        except RefusedInstanceError as refusal:
            log.warning(
                "instance refused",
                sop_instance_uid=_shown_uid(incoming.sop_instance_uid),
                status=f"0x{refusal.status:04X}",
                reason=refusal.comment,
            )
            return _failure(refusal.status, refusal.comment)
        except Exception as error:
            log.exception("instance not stored", error=type(error).__name__)
            return _failure(StorageStatus.PROCESSING_FAILURE, "internal error of the receiver")
        return int(StorageStatus.SUCCESS)

    def _incoming(self, event: Event) -> IncomingInstance:
        request = cast(C_STORE, event.request)
        return IncomingInstance(
            dataset=request.DataSet.getvalue() if request.DataSet is not None else b"",
            transfer_syntax_uid=str(event.context.transfer_syntax),
            sop_class_uid=str(request.AffectedSOPClassUID or ""),
            sop_instance_uid=str(request.AffectedSOPInstanceUID or ""),
            calling_ae_title=event.assoc.requestor.ae_title.strip(),
            association=self._association_id(event.assoc),
        )

    def _association_id(self, association: Any) -> str:
        name: str | None = getattr(association, "triage_id", None)
        if name is None:
            name = association.triage_id = uuid.uuid4().hex
            self._open.add(name, association)
        return name


def receiver_name(settings: ReceiverSettings) -> str:
    """Return the name under which this receiver holds studies open, the same after a restart."""
    # 16 + 1 + 40 + 1 + 5 characters: the column has 64.
    return f"{settings.ae_title}@{socket.gethostname()[:40]}:{settings.port}"


def verification_service() -> DimseService:
    """Return the Verification SCP (DICOM PS3.4 annex A)."""
    return DimseService(
        sop_classes=("1.2.840.10008.1.1",),
        handlers=((evt.EVT_C_ECHO, lambda _: int(StorageStatus.SUCCESS)),),
    )


def _application_entity(settings: ReceiverSettings, services: tuple[DimseService, ...]) -> AE:
    entity = AE(ae_title=settings.ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = "TRIAGE"
    entity.maximum_associations = settings.maximum_associations
    entity.maximum_pdu_size = settings.maximum_pdu_bytes
    entity.network_timeout = settings.network_timeout_s
    entity.require_calling_aet = list(settings.allowed_calling_ae_titles)
    entity.require_called_aet = settings.require_called_ae_title
    for service in services:
        for sop_class in service.sop_classes:
            entity.add_supported_context(sop_class)
    return entity


def _failure(status: StorageStatus, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status = int(status)
    answer.ErrorComment = comment
    return answer


def _shown_uid(uid: str) -> str:
    """Return an untrusted UID in a form that can do no harm in a log."""
    return ascii(uid)[1:65]


def _log_association(event: Event, what: str) -> None:
    requestor = event.assoc.requestor
    primitive = requestor.primitive
    log.info(
        what,
        calling_ae_title=str(getattr(primitive, "calling_ae_title", "")).strip(),
        address=requestor.address,
    )


def run_receiver(settings: Settings) -> None:
    """Run the receiver until SIGTERM or SIGINT: the `triage receive` command.

    Raises:
        ReceiverError: the address is in use or not this machine's.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    database = Database(settings.database_url)
    try:
        database.check_schema()
        receiver = Receiver(settings, database, InstanceFiles(settings.data_directory))
        receiver.start()
        stopping.wait()
        receiver.stop()
    finally:
        database.close()
