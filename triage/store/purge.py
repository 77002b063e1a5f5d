"""Deletes what retention says, in an order that a crash at any point leaves consistent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy.orm import Session

from triage.settings import RetentionSettings
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.leases import give_up_lease, take_lease
from triage.store.retention import (
    Candidate,
    due_by_age,
    due_by_space,
    due_to_be_forgotten,
    forget_patient,
    instances_to_delete,
    lock_study,
    mark_purged,
    note_deleted,
    studies_with_files_to_delete,
)
from triage.store.tables import InstanceRow

log = structlog.get_logger(__name__)

_MB = 1024 * 1024
_LEASE_NAME = "retention"
_LEASE = timedelta(minutes=5)
# One transaction deletes so many files: SQLite has one writer, and senders wait for it.
_FILES_IN_ONE_GO = 64
_STUDIES_IN_ONE_GO = 100


class LeaseTakenError(Exception):
    """Another process is deleting at the moment."""


@dataclass
class Purged:
    """What a round has deleted."""

    studies: list[Candidate] = field(default_factory=list)
    forgotten: int = 0
    files: int = 0


class Purger:
    """Carries out retention. Several may run on one database: one of them works at a time."""

    def __init__(
        self,
        database: Database,
        files: InstanceFiles,
        retention: RetentionSettings,
        clock: Clock,
        *,
        holder: str,
    ) -> None:
        self._database = database
        self._files = files
        self._retention = retention
        self._clock = clock
        self._holder = holder[:128]

    def plan(self) -> list[Candidate]:
        """Return what a round would delete now, without deleting anything."""
        with self._database.reading() as session:
            by_age = list(due_by_age(session, self._retention, self._clock()))
            known = {one.study_id for one in by_age}
            free = self._files.free_bytes() + sum(one.size_bytes for one in by_age)
            by_space: list[Candidate] = []
            if free < self._retention.start_below_free_mb * _MB:
                for one in due_by_space(session, self._retention):
                    if free >= self._retention.until_free_mb * _MB:
                        break
                    if one.study_id not in known:
                        by_space.append(one)
                        free += one.size_bytes
        return by_age + by_space

    def go_round(self, is_stopping: Callable[[], bool] = lambda: False) -> Purged:
        """Delete what is due now, after what an earlier round was kept from deleting.

        Raises:
            LeaseTakenError: another process is at it.
        """
        purged = Purged()
        with self._holding_lease():
            purged.files += self._delete_files()
            self._purge_by_age(purged, is_stopping)
            self._purge_by_space(purged, is_stopping)
            self._forget(purged, is_stopping)
        return purged

    @contextmanager
    def _holding_lease(self) -> Iterator[None]:
        self._keep_lease()
        try:
            yield
        finally:
            with self._database.transaction() as session:
                give_up_lease(session, _LEASE_NAME, self._holder)

    def _keep_lease(self) -> None:
        with self._database.transaction() as session:
            held = take_lease(session, _LEASE_NAME, self._holder, lease=_LEASE, now=self._clock())
        if not held:
            raise LeaseTakenError("another process is deleting at the moment; try again later")

    def _purge_by_age(self, purged: Purged, is_stopping: Callable[[], bool]) -> None:
        with self._database.reading() as session:
            due = list(due_by_age(session, self._retention, self._clock()))
        for candidate in due:
            if is_stopping():
                return
            self._purge(candidate, purged)

    def _purge_by_space(self, purged: Purged, is_stopping: Callable[[], bool]) -> None:
        if self._files.free_bytes() >= self._retention.start_below_free_mb * _MB:
            return
        with self._database.reading() as session:
            due = list(due_by_space(session, self._retention))
        for candidate in due:
            if is_stopping() or self._files.free_bytes() >= self._retention.until_free_mb * _MB:
                return
            self._purge(candidate, purged)

    def _purge(self, candidate: Candidate, purged: Purged) -> None:
        self._keep_lease()
        with self._database.transaction() as session:
            is_marked = mark_purged(session, candidate, self._retention, now=self._clock())
        if not is_marked:
            return
        purged.studies.append(candidate)
        purged.files += self._delete_files_of(candidate.study_id)
        log.info("images purged", study_id=candidate.study_id, reason=candidate.reason)

    def _forget(self, purged: Purged, is_stopping: Callable[[], bool]) -> None:
        with self._database.reading() as session:
            due = due_to_be_forgotten(session, self._retention, self._clock())
        for study_id in due:
            if is_stopping():
                return
            self._keep_lease()
            with self._database.transaction() as session:
                is_forgotten = forget_patient(session, study_id, self._retention, now=self._clock())
            if is_forgotten:
                purged.forgotten += 1
                purged.files += self._delete_files_of(study_id)
                log.info("patient data forgotten", study_id=study_id)

    def _delete_files(self) -> int:
        with self._database.reading() as session:
            study_ids = studies_with_files_to_delete(session, _STUDIES_IN_ONE_GO)
        return sum(self._delete_files_of(study_id) for study_id in study_ids)

    def _delete_files_of(self, study_id: int) -> int:
        """Delete the files of a study that are marked, each with its study locked.

        Under the lock no image of the study can be indexed. One that is sent again at this moment
        finds, when it gets the lock, its row still purged and looks whether its file is there; one
        that was quicker is no longer marked. What is left of a study that has been reopened stays.
        """
        deleted = 0
        while True:
            with self._database.transaction() as session:
                study = lock_study(session, study_id)
                if study is None:
                    return deleted
                rows = instances_to_delete(session, study_id, _FILES_IN_ONE_GO)
                if study.purged_at is None:
                    self._keep(session, rows)
                    gone = []
                else:
                    gone = [row for row in rows if self._unlink(row.path)]
                    for row in gone:
                        note_deleted(session, row)
            deleted += len(gone)
            if len(gone) < _FILES_IN_ONE_GO:
                return deleted

    def _keep(self, session: Session, rows: Sequence[InstanceRow]) -> None:
        for row in rows:
            if self._files.exists(row.path):
                row.purged_at = None
            else:
                note_deleted(session, row)

    def _unlink(self, path: str) -> bool:
        try:
            self._files.absolute(path).unlink(missing_ok=True)
        except OSError as error:
            log.error("file not deleted", path=path, error=error.strerror)
            return False
        return True
