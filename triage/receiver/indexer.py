"""Index rows of all associations, committed together.

Each commit waits for the disk, and SQLite has one writer at a time. So the handler whose turn it is
commits, in one transaction, its own instance and all that have come to wait behind it meanwhile;
every handler answers its sender only after its own row is durable.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from triage.receiver.refusals import RefusedInstanceError, StorageStatus
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.studies import (
    FileIsGoneError,
    ReceivedInstance,
    Recorded,
    hold_open,
    record_instance,
)

log = structlog.get_logger(__name__)

_LARGEST_BATCH = 128
_ATTEMPTS = 5
_MOST_REMEMBERED_HOLDS = 10_000


@dataclass(frozen=True, slots=True)
class _Pending:
    received: ReceivedInstance
    association: str
    recorded: Future[Recorded] = field(default_factory=Future)


class Indexer:
    """Records received instances for many threads, as many in one commit as wait for it."""

    def __init__(
        self,
        database: Database,
        receiver_name: str,
        clock: Clock,
        *,
        files: InstanceFiles | None = None,
    ) -> None:
        self._database = database
        self._receiver_name = receiver_name
        self._clock = clock
        # Without the files, an instance that retention has purged cannot come again.
        self._file_exists = files.exists if files is not None else lambda _: False
        self._waiting: deque[_Pending] = deque()
        self._committing = threading.Lock()
        # Which associations are known to hold which studies open: asked once, not for each image.
        self._held: set[tuple[int, str]] = set()

    def record(self, received: ReceivedInstance, association: str) -> Recorded:
        """Return once the instance's row is committed.

        The row says, in the same transaction, that `association` holds the study open.

        Raises:
            RefusedInstanceError: 0xA700 where the database is away or busy, so that the sender
                tries again; 0x0110 where it refuses this instance.
        """
        pending = _Pending(received, association)
        self._waiting.append(pending)
        with self._committing:
            while not pending.recorded.done():  # another handler may have committed it
                self._record_batch(self._next_batch())
        try:
            return pending.recorded.result()
        except FileIsGoneError as error:
            raise RefusedInstanceError(
                StorageStatus.OUT_OF_RESOURCES, "an older copy is just being deleted, send again"
            ) from error
        except SQLAlchemyError as error:
            # Without the error's text: databases quote the row in it, and with it the patient.
            log.warning(
                "instance could not be indexed",
                sop_instance_uid=received.sop_instance_uid,
                error=type(getattr(error, "orig", None) or error).__name__,
            )
            raise _refusal(error) from error

    def _next_batch(self) -> list[_Pending]:
        size = min(len(self._waiting), _LARGEST_BATCH)
        return [self._waiting.popleft() for _ in range(size)]

    def _record_batch(self, batch: Sequence[_Pending]) -> None:
        # In one order everywhere, so that two receivers do not wait for each other's studies.
        ordered = sorted(batch, key=lambda p: p.received.study_instance_uid)
        try:
            recorded = self._commit(ordered)
        except Exception:  # noqa: BLE001 - found again below, for the instance that caused it
            for pending in ordered:
                self._record_alone(pending)
            return
        for pending, outcome in zip(ordered, recorded, strict=True):
            pending.recorded.set_result(outcome)

    def _record_alone(self, pending: _Pending) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                (outcome,) = self._commit([pending])
            except Exception as error:  # noqa: BLE001 - handed to the handler that waits for it
                # Another receiver may just have added the same study, series or patient, or
                # crossed our locks: the next attempt sees what it committed.
                if attempt < _ATTEMPTS and _is_worth_another_attempt(error):
                    continue
                pending.recorded.set_exception(error)
                return
            pending.recorded.set_result(outcome)
            return

    def _commit(self, batch: Sequence[_Pending]) -> list[Recorded]:
        if len(self._held) > _MOST_REMEMBERED_HOLDS:
            self._held.clear()
        new_holds: set[tuple[int, str]] = set()
        with self._database.transaction() as session:
            outcomes = []
            for pending in batch:
                recorded = record_instance(session, pending.received, self._file_exists)
                hold = (recorded.study_id, pending.association)
                if hold not in self._held and hold not in new_holds:
                    new_holds.add(hold)
                    hold_open(
                        session,
                        recorded.study_id,
                        association=pending.association,
                        receiver=self._receiver_name,
                        now=self._clock(),
                    )
                outcomes.append(recorded)
        self._held |= new_holds
        return outcomes


def _is_worth_another_attempt(error: Exception) -> bool:
    if isinstance(error, IntegrityError):
        return True
    # Class 40 of SQLSTATE is a rolled back transaction: deadlock or serialization failure.
    sqlstate = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
    return str(sqlstate or "").startswith("40")


def _refusal(error: SQLAlchemyError) -> RefusedInstanceError:
    # A DataError or an unsuitable statement would fail in the same way for ever.
    is_permanent = isinstance(error, DBAPIError) and type(error).__name__ in {
        "DataError",
        "IntegrityError",
        "ProgrammingError",
        "StatementError",
    }
    if is_permanent:
        return RefusedInstanceError(
            StorageStatus.PROCESSING_FAILURE, "the index refuses this instance"
        )
    return RefusedInstanceError(
        StorageStatus.OUT_OF_RESOURCES, "the index cannot be written now, send again"
    )
