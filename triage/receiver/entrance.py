"""Instances that come without an association of the receiver: over HTTP, by a pull, in a folder.

They take the way of every other instance: written durably, indexed, and holding their study open
until their sender is done.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import structlog
from sqlalchemy.exc import SQLAlchemyError

from triage.core.visits import Ending, Way
from triage.receiver.encoded import EncodedInstance
from triage.receiver.indexer import Indexer
from triage.receiver.intake import IncomingInstance, Intake
from triage.receiver.refusals import RefusedInstanceError
from triage.receiver.visits import VisitTally
from triage.settings import ReceiverSettings
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.disk import watermarks_of
from triage.store.files import InstanceFiles
from triage.store.studies import (
    ReceivedInstance,
    Recorded,
    keep_associations_alive,
    release_association,
)
from triage.store.visits import record_visit_parts

log = structlog.get_logger(__name__)

_HEARTBEAT_S = 10.0


class PriorsIndexer(Indexer):
    """Records instances as those of priors: kept for comparison, not put on the worklist."""

    is_for_priors = True

    def record(
        self, received: ReceivedInstance, association: str, *, is_journaled: bool = False
    ) -> Recorded:
        """Return once the instance's row is committed; see `Indexer.record`."""
        received = replace(received, is_prior=True)
        return super().record(received, association, is_journaled=is_journaled)


class Visit:
    """One sender's stay: what it stores holds its studies open until the stay ends."""

    def __init__(self, intake: Intake, tally: VisitTally) -> None:
        self.association = uuid.uuid4().hex
        self.tally = tally
        self._intake = intake

    def store(self, instance: EncodedInstance, *, sender: str) -> Recorded:
        """Return once the instance is durable and indexed.

        Args:
            instance: what came, as it was sent.
            sender: the AE title, or what stands for one, that the study is said to come from.

        Raises:
            RefusedInstanceError: the instance is not stored; the error says why.
        """
        incoming = IncomingInstance(
            dataset=instance.dataset,
            transfer_syntax_uid=instance.transfer_syntax_uid,
            sop_class_uid=instance.header.sop_class_uid,
            sop_instance_uid=instance.header.sop_instance_uid,
            calling_ae_title=sender,
            association=self.association,
        )
        try:
            recorded = self._intake.store(incoming)
        except RefusedInstanceError as refusal:
            self.tally.refused(sender, f"0x{refusal.status:04X} {refusal.comment}")
            raise
        self.tally.stored(sender, recorded.study_id, len(instance.dataset))
        return recorded


class Entrance:
    """Lets senders in, and keeps what they hold open alive while they stay."""

    def __init__(
        self,
        database: Database,
        files: InstanceFiles,
        settings: ReceiverSettings,
        clock: Clock,
        *,
        kind: str,
        as_priors: bool = False,
    ) -> None:
        """Prepare an entrance; `as_priors` lets everything in as a prior.

        `kind` is a `triage.core.visits.Way` and begins the name under which studies are held open.
        The name is another after each start, so that nobody keeps alive what a process that died
        has left.
        """
        self._database = database
        self._clock = clock
        self._name = f"{kind} {uuid.uuid4().hex}"[:64]
        self._way = Way(kind)
        indexer = (PriorsIndexer if as_priors else Indexer)(database, files, self._name, clock)
        self._intake = Intake.configured(
            settings, files, indexer, clock, watermarks_of(files, settings)
        )
        self._staying: set[str] = set()
        self._closing = threading.Event()
        self._heartbeat = threading.Thread(
            target=self._keep_alive, name=f"triage-{kind}-heartbeat", daemon=True
        )
        self._heartbeat.start()

    def enter(self, address: str = "") -> Visit:
        """Begin a stay; `leave` ends it. `address` is where its sender calls from, if it calls."""
        visit = Visit(self._intake, VisitTally(self._way, address, self._clock))
        self._staying.add(visit.association)
        return visit

    def leave(self, visit: Visit) -> None:
        """End a stay: its studies are no longer held open by it."""
        self._staying.discard(visit.association)
        try:
            with self._database.transaction() as session:
                release_association(session, visit.association)
                record_visit_parts(session, visit.tally.unwritten(Ending.RELEASED))
        except SQLAlchemyError as error:
            # What is stored is stored: the heartbeat of the note runs out by itself.
            log.warning("studies stay held open for a while", error=type(error).__name__)

    @contextmanager
    def visit(self) -> Iterator[Visit]:
        """Give a stay that ends with the block."""
        visit = self.enter()
        try:
            yield visit
        finally:
            self.leave(visit)

    def close(self) -> None:
        """End the heartbeat; nobody may be staying any more."""
        self._closing.set()
        self._heartbeat.join()

    def _keep_alive(self) -> None:
        while not self._closing.wait(_HEARTBEAT_S):
            if not self._staying:
                continue
            try:
                with self._database.transaction() as session:
                    keep_associations_alive(session, self._name, self._clock())
            except SQLAlchemyError as error:
                log.warning("heartbeat not written", error=type(error).__name__)
