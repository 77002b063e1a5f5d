"""What a journal holds, put where it belongs after its receiver has ended without doing so."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import structlog
from sqlalchemy import select

from triage.receiver.headers import parse_header
from triage.receiver.indexer import Indexer
from triage.receiver.intake import received_instance
from triage.receiver.journaled import Arrival
from triage.receiver.refusals import RefusedInstanceError, StorageStatus
from triage.store.database import Database
from triage.store.files import InstanceFiles, StoredFile
from triage.store.journal import Entry
from triage.store.tables import InstanceRow

log = structlog.get_logger(__name__)


class Replay:
    """Writes and indexes journaled instances again where file or row did not outlive their writer.

    After a killed process nothing is missing but what was never acknowledged; after a power failure
    files may be empty and rows gone. Doing it twice changes nothing.
    """

    def __init__(self, database: Database, files: InstanceFiles, indexer: Indexer) -> None:
        self._database = database
        self._files = files
        self._indexer = indexer

    def put_back(self, entry: Entry) -> None:
        """Let file and row of a journaled instance be there.

        Raises:
            OSError: the disk refused.
            RefusedInstanceError: the index cannot be written now.
        """
        arrival = Arrival.of(entry)
        sha256 = hashlib.sha256(entry.content).hexdigest()
        known = self._row(arrival.sop_instance_uid, sha256)
        if known is not None and known.purged_at is not None:
            return
        if known is None or not self._holds(known.path, entry.content):
            file = self._files.put(
                arrival.study_instance_uid, arrival.sop_instance_uid, [entry.content], sha256
            )
            if known is None:
                self._index(arrival, file, entry.content)

    def _row(self, sop_instance_uid: str, sha256: str) -> InstanceRow | None:
        with self._database.reading() as session:
            return session.scalar(
                select(InstanceRow).where(
                    InstanceRow.sop_instance_uid == sop_instance_uid, InstanceRow.sha256 == sha256
                )
            )

    def _holds(self, path: str, content: bytes) -> bool:
        try:
            return self._files.absolute(path).read_bytes() == content
        except FileNotFoundError:
            return False

    def _index(self, arrival: Arrival, file: StoredFile, content: bytes) -> None:
        announced = arrival.announced
        header = parse_header(content, announced.transfer_syntax_uid, start=arrival.data_set_offset)
        received = received_instance(header, announced, file, arrival.received_at)
        try:
            self._indexer.record(
                replace(received, is_prior=arrival.is_prior),
                announced.association,
                is_journaled=True,
            )
        except RefusedInstanceError as refusal:
            if refusal.status is StorageStatus.OUT_OF_RESOURCES:
                raise
            # It was refused when it came, too: nobody was told that it is here.
            log.warning("journaled instance refused again", reason=refusal.comment)
