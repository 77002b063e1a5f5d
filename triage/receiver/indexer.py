"""Index rows of all associations, committed together.

Each commit waits for the disk, and SQLite has one writer at a time. So the handler whose turn it is
commits, in one transaction, its own instance and all that have come to wait behind it meanwhile;
every handler answers its sender only after its own row is durable.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4

import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from triage.receiver.refusals import RefusedInstanceError, StorageStatus
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.files import InstanceFiles, StoredFile
from triage.store.remote_models import keep_returned
from triage.store.short_way import Arrived, Place, ShortWay
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
_MOST_REMEMBERED = 10_000


@dataclass(slots=True, eq=False)
class _Pending:
    """An instance that waits for its row, and then what became of it: one or the other."""

    received: ReceivedInstance
    association: str
    is_journaled: bool
    recorded: Recorded | None = None
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self.recorded is not None or self.error is not None

    def result(self) -> Recorded:
        if self.recorded is None:
            raise self.error or RuntimeError("not recorded yet")
        return self.recorded


class Indexer:
    """Records received instances for many threads, as many in one commit as wait for it."""

    is_for_priors = False

    def __init__(
        self,
        database: Database,
        files: InstanceFiles,
        receiver_name: str,
        clock: Clock,
        *,
        remote_models: Collection[str] = (),
    ) -> None:
        """Prepare an indexer.

        Args:
            database: where the rows go.
            files: where the files are.
            receiver_name: who holds studies open.
            clock: the time.
            remote_models: AE titles that results of remote models come from. What comes from them
                belongs to no study before its pseudonyms are resolved.
        """
        self._remote_models = frozenset(title.strip() for title in remote_models)
        self._database = database
        self._files = files
        self._receiver_name = receiver_name
        self._clock = clock
        self._short_way = ShortWay(database, receiver_name, clock)
        self._waiting: deque[_Pending] = deque()
        self._committing = threading.Lock()
        # Which associations are known to hold which studies open, and which series are known:
        # asked once, not for each image.
        self._held: set[tuple[int, str]] = set()
        self._series: dict[tuple[str, str, str], Place] = {}

    def warm_up(self) -> None:
        """Do what the first instance of a study asks for, and take it back.

        SQLAlchemy prepares a statement when it first meets it. Together that is a tenth of a
        second, for which all who send to a receiver that has just started would wait.
        """
        uid = f"2.25.{uuid4().int}"
        made_up = ReceivedInstance(
            file=StoredFile(path=uid, size_bytes=0, sha256=""),
            sop_instance_uid=uid,
            sop_class_uid=uid,
            transfer_syntax_uid="",
            study_instance_uid=uid,
            series_instance_uid=uid,
            calling_ae_title="",
            received_at=self._clock(),
            patient_id=uid,
        )
        pending = _Pending(made_up, uid, is_journaled=True)
        with (
            suppress(_TakenBackError),
            self._database.connection(is_durable=False) as connection,
            Session(connection, expire_on_commit=False) as session,
        ):
            self._record_fully(session, pending, _Learned())
            session.flush()
            raise _TakenBackError

    def record(
        self, received: ReceivedInstance, association: str, *, is_journaled: bool = False
    ) -> Recorded:
        """Return once the instance's row is committed.

        The row says, in the same transaction, that `association` holds the study open. The commit
        waits for the disk, unless the instance `is_journaled`: its row is then made again after a
        power failure.

        Raises:
            RefusedInstanceError: 0xA700 where the database is away or busy, so that the sender
                tries again; 0x0110 where it refuses this instance.
        """
        if received.calling_ae_title.strip() in self._remote_models:
            return self._keep_returned(received)
        pending = _Pending(received, association, is_journaled)
        self._waiting.append(pending)
        with self._committing:
            while not pending.is_done:  # another handler may have committed it
                self._record_batch(self._next_batch())
        try:
            return pending.result()
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

    def _keep_returned(self, received: ReceivedInstance) -> Recorded:
        try:
            with self._database.transaction() as session:
                keep_returned(session, received)
        except SQLAlchemyError as error:
            raise _refusal(error) from error
        return Recorded(0, 0)

    def _next_batch(self) -> list[_Pending]:
        size = min(len(self._waiting), _LARGEST_BATCH)
        return [self._waiting.popleft() for _ in range(size)]

    def _record_batch(self, batch: Sequence[_Pending]) -> None:
        # In one order everywhere, so that two receivers do not wait for each other's studies.
        ordered = sorted(batch, key=lambda p: p.received.study_instance_uid)
        left = self._record_shortly(ordered)
        if not left:
            return
        try:
            self._record_together(left)
        except Exception:  # noqa: BLE001 - found again below, for the instance that caused it
            for pending in left:
                self._record_alone(pending)

    def _record_shortly(self, batch: Sequence[_Pending]) -> list[_Pending]:
        """Record what asks for nothing special, and return what has to go the long way."""
        arrived = [Arrived(p.received, p.association, self._known_place(p)) for p in batch]
        try:
            places = self._short_way.record(arrived, is_durable=_is_to_wait_for_disk(batch))
        except Exception as error:  # noqa: BLE001 - the long way finds it again, and says which
            log.debug("instances go the long way", error=type(error).__name__)
            return list(batch)
        left = []
        learned = _Learned()
        for pending, one, place in zip(batch, arrived, places, strict=True):
            if place is None:
                left.append(pending)
                continue
            pending.recorded = Recorded(place.study_id, place.series_id)
            if one.place is None:
                learned.note(pending, place)
        self._remember(learned)
        return left

    def _known_place(self, pending: _Pending) -> Place | None:
        """Return where an instance belongs, None if series or association are not known."""
        place = self._series.get(_series_key(pending.received))
        if place is None or (place.study_id, pending.association) not in self._held:
            return None
        return place

    def _record_alone(self, pending: _Pending) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._record_together([pending])
            except Exception as error:  # noqa: BLE001 - handed to the handler that waits for it
                # Another receiver may just have added the same study, series or patient, or
                # crossed our locks: the next attempt sees what it committed.
                if attempt < _ATTEMPTS and _is_worth_another_attempt(error):
                    continue
                pending.error = error
            return

    def _record_together(self, batch: Sequence[_Pending]) -> None:
        learned = _Learned()
        with (
            self._database.connection(is_durable=_is_to_wait_for_disk(batch)) as connection,
            Session(connection, expire_on_commit=False) as session,
        ):
            outcomes = [self._record_fully(session, pending, learned) for pending in batch]
            session.commit()
        self._remember(learned)
        for pending, outcome in zip(batch, outcomes, strict=True):
            pending.recorded = outcome

    def _record_fully(self, session: Session, pending: _Pending, learned: _Learned) -> Recorded:
        recorded = record_instance(session, pending.received, self._files.exists)
        hold = (recorded.study_id, pending.association)
        if hold not in self._held and hold not in learned.holds:
            hold_open(
                session,
                recorded.study_id,
                association=pending.association,
                receiver=self._receiver_name,
                now=self._clock(),
            )
        learned.note(pending, Place(recorded.study_id, recorded.series_id))
        return recorded

    def _remember(self, learned: _Learned) -> None:
        """Keep what is now committed."""
        if len(self._held) > _MOST_REMEMBERED:
            self._held.clear()
        if len(self._series) > _MOST_REMEMBERED:
            self._series.clear()
        self._held |= learned.holds
        self._series |= learned.series


class _TakenBackError(Exception):
    """Ends a transaction that is not to be committed."""


@dataclass(slots=True)
class _Learned:
    """What a transaction has found out, true once it is committed."""

    holds: set[tuple[int, str]] = field(default_factory=set)
    series: dict[tuple[str, str, str], Place] = field(default_factory=dict)

    def note(self, pending: _Pending, place: Place) -> None:
        """Note where an instance belongs, and that its association holds the study open."""
        self.holds.add((place.study_id, pending.association))
        self.series[_series_key(pending.received)] = place


def _is_to_wait_for_disk(batch: Sequence[_Pending]) -> bool:
    return not all(pending.is_journaled for pending in batch)


def _series_key(received: ReceivedInstance) -> tuple[str, str, str]:
    # With the modality: one that is new to the study must be added to it.
    return received.study_instance_uid, received.series_instance_uid, received.modality


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
