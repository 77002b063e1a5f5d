"""The DICOM storage SCP (DICOM PS3.4 annex B) and Verification SCP (annex A)."""

from __future__ import annotations

import gc
import math
import os
import signal
import socket
import ssl
import threading
import time
import uuid
from datetime import datetime
from typing import Any, cast

import structlog
from pydicom import config as pydicom_config
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE

from triage.core.completeness import Bounds, QuietPeriods
from triage.core.visits import Way
from triage.receiver.admission import Admission, Rejection, Request
from triage.receiver.availability import AvailabilityNotifications
from triage.receiver.command_set import StoreRequest
from triage.receiver.commitment import StorageCommitment
from triage.receiver.companions import companions
from triage.receiver.completeness import CompletenessRounds, OpenAssociations
from triage.receiver.counts import ArchiveCounts, counter_at
from triage.receiver.deadlines import Deadlines
from triage.receiver.entrance import PriorsIndexer
from triage.receiver.housekeeping import Housekeeping
from triage.receiver.indexer import Indexer
from triage.receiver.intake import Intake
from triage.receiver.journaled import AnnouncedInstance
from triage.receiver.part10 import IMPLEMENTATION_CLASS_UID
from triage.receiver.performed_steps import PerformedProcedureSteps
from triage.receiver.processes import Listener, ReceiverProcesses, Share, not_listening
from triage.receiver.query import query_retrieve_services
from triage.receiver.refusals import ReceiverError, StorageStatus
from triage.receiver.replay import Replay
from triage.receiver.retrieve.origin import is_of_priors_move
from triage.receiver.rounds import Duty
from triage.receiver.services import DimseService, handlers_of
from triage.receiver.storing import StoreSink
from triage.receiver.tls import ServerTls
from triage.receiver.transport import StorageServer
from triage.receiver.ups import ups_services
from triage.receiver.visits import RefusedCallers, VisitTally
from triage.settings import ReceiverSettings, Settings
from triage.store.clock import Clock, system_clock
from triage.store.database import Database
from triage.store.disk import watermarks_of
from triage.store.files import InstanceFiles
from triage.store.journal import Journal
from triage.store.studies import release_receiver

log = structlog.get_logger(__name__)

# Every storage SOP class is taken, private and future ones too: an image that is refused is an
# image that nobody triages. Pynetdicom has one switch for the process.
_config.UNRESTRICTED_STORAGE_SERVICE = True
# Pynetdicom's own handlers format every PDU as text, with AE titles and identifiers.
_config.LOG_HANDLER_LEVEL = "none"
# Pydicom would look at each UID of each proposed presentation context several times, for 15 ms an
# association, and warn of what breaks a rule by quoting it. What matters is checked here, by us.
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE

_MOST_PROCESSES = 4
_GARBAGE_THRESHOLDS = (20_000, 20, 20)
# Connections that have not asked for anything yet do not keep senders out; this bounds them.
_CONNECTIONS_PER_ASSOCIATION = 4
_MIB = 1024 * 1024
_GRACE_S = 2.0
_LONGEST_STORE_S = 10.0
_KNOWN_TRANSFER_SYNTAXES = frozenset(AllTransferSyntaxes)


class Receiver:
    """Receives instances over DICOM; a success status means a durable file and an index row."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        files: InstanceFiles,
        clock: Clock = system_clock,
        share: Share | None = None,
    ) -> None:
        """Prepare a receiver; with a `share` it is one of several on one port."""
        self._settings = settings.receiver
        self._tls_settings = settings.tls
        self._admission = Admission(settings, share.count if share else 1)
        self._deadlines = Deadlines(
            message_s=settings.receiver.message_timeout_s,
            association_s=settings.receiver.maximum_association_s,
        )
        self._database = database
        self._files = files
        self._share = share
        self.name = receiver_name(settings.receiver, share)
        self._clock = clock
        self._open = OpenAssociations()
        self._refused = RefusedCallers(clock)
        watermarks = watermarks_of(files, settings.receiver)
        self._journal = Journal(
            settings.data_directory / "journal",
            segment_bytes=settings.receiver.journal_mb * _MIB,
            make_durable=self._make_durable,
        )
        self._indexer = Indexer(
            database,
            files,
            self.name,
            clock,
            remote_models=[model.results_from for model in settings.remote_models],
        )
        self._replay = Replay(database, files, self._indexer)
        self._intake = Intake.configured(
            settings.receiver, files, self._indexer, clock, watermarks, journal=self._journal
        )
        # For what a C-MOVE of ours brings: it is not to be read.
        self._priors_intake = Intake.configured(
            settings.receiver,
            files,
            PriorsIndexer(database, files, self.name, clock),
            clock,
            watermarks,
            journal=self._journal,
        )
        self._rounds = CompletenessRounds(
            database,
            self.name,
            quiet_periods(settings.receiver),
            self._open,
            clock,
            bounds=bounds(settings.receiver, listening_since=clock()),
            refused=self._refused,
        )
        commitment = StorageCommitment(settings, database, files, clock)
        self._services = (
            verification_service(),
            *query_retrieve_services(settings, database, files),
            commitment.service,
            PerformedProcedureSteps(database, clock).service(),
            AvailabilityNotifications(database, clock).service(),
            *ups_services(settings, database, clock),
        )
        self._ae = _application_entity(settings.receiver, self._services, share)
        self._servers: list[StorageServer] = []
        # A process reports on the associations that it has itself, so each does its part of that.
        self._duties: list[Duty] = [commitment]
        # What is to be done once, however many processes receive.
        if share is None or share.index == 0:
            holder = f"{self.name}:{os.getpid()}"
            self._duties.append(
                Housekeeping(settings, database, files, watermarks, clock, holder=holder)
            )
            counts = archive_counts(settings, database, clock)
            if counts is not None:
                self._duties.append(counts)

    def start(self) -> None:
        """Listen, after freeing what a killed receiver of this name held.

        Raises:
            ReceiverError: the address is in use or not this machine's.
        """
        # In this order: where a receiver of this name runs, the port is taken, and what it holds
        # open must not be freed. Connections wait until the server begins to serve.
        servers = self._listen()
        self._open_journal()
        with self._database.transaction() as session:
            release_receiver(session, self.name)
        self._files.remove_abandoned()
        self._indexer.warm_up()
        self._servers = servers
        self._rounds.start()
        self._deadlines.start()
        for duty in self._duties:
            duty.start()
        for server in servers:
            threading.Thread(
                target=server.serve_forever, name="triage-receiver", daemon=True
            ).start()
        log.info("receiver listens", receiver=self.name, tls_port=self._settings.tls_port)

    def _open_journal(self) -> None:
        """Put back what a power failure has cost, and begin a journal of our own."""
        try:
            self._journal.open(self._replay.put_back)
        except OSError as error:
            log.warning("no journal: each image is synced by itself", error=error.strerror)

    def _make_durable(self) -> None:
        self._files.make_durable()
        self._database.make_durable()

    def _listen(self) -> list[StorageServer]:
        servers: list[StorageServer] = []
        try:
            for number, listener in enumerate(listeners(self._settings)):
                servers.append(self._listen_at(listener, number))
        except ReceiverError:
            for server in servers:
                server.server_close()
            raise
        return servers

    def _listen_at(self, listener: Listener, number: int) -> StorageServer:
        tls = None
        if listener.is_tls:
            tls = ServerTls(self._tls_settings, self._settings.association_request_timeout_s)
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._handle_requested),
            (evt.EVT_REJECTED, _log_association, ["association rejected"]),
            (evt.EVT_ACCEPTED, _log_association, ["association accepted"]),
            (evt.EVT_RELEASED, _log_association, ["association released"]),
            (evt.EVT_ABORTED, _log_association, ["association aborted"]),
            *handlers_of(self._services),
        ]
        try:
            server = self._ae.make_server(
                (listener.host, listener.port),
                evt_handlers=handlers,
                server_class=StorageServer,
                open_sink=self._open_sink,
                channel=self._share.channels[number] if self._share else None,
                tls=tls,
                may_connect=self._admission.may_connect,
                deadlines=self._deadlines,
            )
        except OSError as error:
            raise not_listening(listener, error) from error
        assert isinstance(server, StorageServer)
        return server

    def stop(self) -> None:
        """Stop listening, let what is under way come to its end, and abort the rest."""
        if not self._servers:
            return
        for server in self._servers:
            server.shutdown()
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
        self._deadlines.stop()
        for duty in self._duties:
            duty.stop()
        with self._database.transaction() as session:
            release_receiver(session, self.name)
        self._journal.close()
        self._servers = []
        log.info("receiver stopped", receiver=self.name)

    def _handle_requested(self, event: Event) -> None:
        """Reject who may not associate; else put the transfer syntaxes that we can read first.

        The sender's order is kept otherwise. The acceptor chooses among those proposed (DICOM PS3.8
        9.3.3.2), and pynetdicom takes the first: of a private one and a standard one, this makes it
        the standard one.
        """
        rejection = self._admission.admit(_request_of(event.assoc), event.assoc.is_alive)
        if rejection is not None:
            caller = _request_of(event.assoc)
            self._refused.add(caller.calling_ae_title, caller.address, rejection.why)
            _reject(event.assoc, rejection)
            return
        request = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
        for context in request.presentation_context_definition_list:
            context.transfer_syntax = sorted(
                context.transfer_syntax, key=lambda uid: uid not in _KNOWN_TRANSFER_SYNTAXES
            )

    def _open_sink(
        self, association: Association, request: StoreRequest, transfer_syntax_uid: str
    ) -> StoreSink:
        """Give the place where the data set of a C-STORE request goes."""
        association_id = self._association_id(association)
        announced = AnnouncedInstance(
            transfer_syntax_uid=transfer_syntax_uid,
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            calling_ae_title=association.requestor.ae_title.strip(),
            association=association_id,
        )
        is_prior = is_of_priors_move(request, self._settings.ae_title)
        intake = self._priors_intake if is_prior else self._intake
        return StoreSink(intake, announced, self._open.tally_of(association_id))

    def _association_id(self, association: Any) -> str:
        name: str | None = getattr(association, "triage_id", None)
        if name is None:
            name = association.triage_id = uuid.uuid4().hex
            caller = _request_of(association)
            way = Way.DICOM_TLS if caller.is_tls else Way.DICOM
            tally = VisitTally(way, caller.address, self._clock)
            self._open.add(name, association, tally)
        return name


def receiver_name(settings: ReceiverSettings, share: Share | None = None) -> str:
    """Return the name under which this receiver holds studies open, the same after a restart."""
    # 16 + 1 + 36 + 1 + 5 + 1 + 3 characters: the column has 64.
    port = settings.port if settings.plain else settings.tls_port
    name = f"{settings.ae_title}@{socket.gethostname()[:36]}:{port}"
    return f"{name}#{share.index}" if share else name


def listeners(settings: ReceiverSettings) -> list[Listener]:
    """Return where a receiver with these settings listens."""
    found = []
    if settings.plain:
        found.append(Listener(settings.host, settings.port, "receiver.port"))
    if settings.tls_port is not None:
        found.append(Listener(settings.host, settings.tls_port, "receiver.tls_port", is_tls=True))
    return found


def quiet_periods(settings: ReceiverSettings) -> QuietPeriods:
    """Return the quiet periods that are configured."""
    return QuietPeriods(
        settings.quiet_period_s,
        settings.quiet_period_by_modality_s,
        settings.quiet_period_by_calling_ae_title_s,
    )


def bounds(settings: ReceiverSettings, *, listening_since: datetime) -> Bounds:
    """Return how long studies wait at the most."""
    return Bounds(
        settings.expected_wait_s,
        settings.maximum_age_s,
        frozenset(settings.wrong_images_in_acquisition_from),
        listening_since,
    )


def archive_counts(settings: Settings, database: Database, clock: Clock) -> ArchiveCounts | None:
    """Return who asks `receiver.count_at` for its counts, or None where nobody is named.

    Raises:
        ReceiverError: it names no remote.
    """
    named = settings.receiver.count_at
    if not named:
        return None
    remote = next((r for r in settings.remotes if r.name == named), None)
    if remote is None:
        known = ", ".join(r.name for r in settings.remotes) or "none"
        raise ReceiverError(
            f"receiver.count_at names {named!r}, which is not among the [[remotes]] ({known}); "
            "add it there, or leave receiver.count_at empty"
        )
    return ArchiveCounts(
        database,
        counter_at(remote, calling_ae_title=settings.receiver.ae_title),
        clock,
        pause_s=settings.receiver.count_pause_s,
        timeout_s=remote.timeout_s,
    )


def verification_service() -> DimseService:
    """Return the Verification SCP (DICOM PS3.4 annex A)."""
    return DimseService(
        sop_classes=("1.2.840.10008.1.1",),
        handlers=((evt.EVT_C_ECHO, lambda _: int(StorageStatus.SUCCESS)),),
    )


def _application_entity(
    settings: ReceiverSettings, services: tuple[DimseService, ...], share: Share | None
) -> AE:
    entity = AE(ae_title=settings.ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = "TRIAGE"
    # Connections come to the processes in turn, so a part of the limit for each keeps the whole.
    share_of_all = math.ceil(settings.maximum_associations / (share.count if share else 1))
    entity.maximum_associations = share_of_all * _CONNECTIONS_PER_ASSOCIATION
    entity.maximum_pdu_size = settings.maximum_pdu_bytes
    entity.network_timeout = settings.network_timeout_s
    # A connection on which no association request comes counts as an association until then.
    entity.acse_timeout = min(settings.association_request_timeout_s, settings.network_timeout_s)
    for service in services:
        for sop_class in service.sop_classes:
            entity.add_supported_context(sop_class)
    return entity


def _request_of(association: Any) -> Request:
    primitive = association.requestor.primitive
    return Request(
        calling_ae_title=primitive.calling_ae_title,
        called_ae_title=primitive.called_ae_title,
        address=association.requestor.address,
        is_tls=isinstance(association.dul.socket.socket, ssl.SSLSocket),
    )


def _reject(association: Any, rejection: Rejection) -> None:
    """Send A-ASSOCIATE-RJ (DICOM PS3.8 9.3.4) and end the association."""
    log.warning(
        "association refused",
        calling_ae_title=association.requestor.primitive.calling_ae_title.strip(),
        address=association.requestor.address,
        reason=rejection.why,
    )
    association.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
    evt.trigger(association, evt.EVT_REJECTED, {})
    association.kill()  # returns once the answer is sent


def _log_association(event: Event, what: str) -> None:
    requestor = event.assoc.requestor
    primitive = requestor.primitive
    log.info(
        what,
        calling_ae_title=str(getattr(primitive, "calling_ae_title", "")).strip(),
        address=requestor.address,
        tls=_tls_version(event.assoc),
    )


def _tls_version(association: Any) -> str | None:
    transport = association.dul.socket
    connection = transport.socket if transport is not None else None
    return connection.version() if isinstance(connection, ssl.SSLSocket) else None


def run_receiver(settings: Settings) -> None:
    """Run the receiver until SIGTERM or SIGINT: the `triage receive` command.

    Raises:
        ReceiverError: the address is in use or not this machine's.
    """
    database = Database(settings.database_url)
    try:
        database.check_schema()
    finally:
        database.close()
    count = settings.receiver.processes or min(_MOST_PROCESSES, os.cpu_count() or 1)
    if count == 1:
        _serve(settings, None)
        return
    processes = ReceiverProcesses(
        listeners(settings.receiver), count, lambda share: _serve(settings, share)
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: processes.stop())
    processes.run()


def _serve(settings: Settings, share: Share | None) -> None:
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    # What was imported lives as long as the process: the collector need not look at it again and
    # again, which costs a tenth of the time at full speed.
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    database = Database(settings.database_url)
    try:
        files = InstanceFiles(settings.data_directory)
        receiver = Receiver(settings, database, files, share=share)
        receiver.start()
        is_first = share is None or share.index == 0
        beside = (
            companions(settings, database, files, system_clock, receiver.name) if is_first else []
        )
        for companion in beside:
            companion.start()
        stopping.wait()
        for companion in beside:
            companion.stop()
        receiver.stop()
    finally:
        database.close()
