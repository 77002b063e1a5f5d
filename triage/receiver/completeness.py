"""The receiver's own rounds: released associations, heartbeats, and studies that fall quiet."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from triage.core.completeness import Bounds, QuietPeriods
from triage.core.visits import Ending
from triage.receiver.rounds import Rounds
from triage.receiver.visits import RefusedCallers, VisitTally
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.early_runs import queue_early_runs, studies_with_enough
from triage.store.signals import forget_signals_before
from triage.store.studies import (
    complete_quiet_studies,
    has_quiet_studies,
    is_any_arriving,
    keep_associations_alive,
    release_association,
)
from triage.store.visits import (
    forget_visits_before,
    record_refused_callers,
    record_visit_parts,
)

log = structlog.get_logger(__name__)

_ROUND_S = 0.25
_SHARE_OF_TIME = 9  # pauses are this many times as long as the rounds between them
_HEARTBEAT = timedelta(seconds=10)
_SIGNALS_ARE_KEPT_FOR = timedelta(days=30)
_VISITS_OF_NO_STUDY_ARE_KEPT_FOR = timedelta(days=30)
_TIDIES_EVERY = timedelta(hours=6)


class OpenAssociations:
    """The associations that have sent an instance, each with the thread that serves it.

    An association is over when its thread has ended, whether by release, abort, a broken
    connection or an error: no event can be missed, and no handler of it can still be storing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._tallies: dict[str, VisitTally] = {}

    def add(self, association: str, thread: threading.Thread, tally: VisitTally) -> None:
        """Note that `association` is about to store an instance; `tally` counts them."""
        with self._lock:
            self._threads[association] = thread
            self._tallies[association] = tally

    def tally_of(self, association: str) -> VisitTally:
        """Return what counts the instances of an association that is not yet forgotten."""
        with self._lock:
            return self._tallies[association]

    def tallies(self) -> list[VisitTally]:
        """Return what counts the instances of each association."""
        with self._lock:
            return list(self._tallies.values())

    def ending_of(self, association: str) -> Ending:
        """Return how an association ended, as its thread has left it."""
        with self._lock:
            thread = self._threads[association]
        if getattr(thread, "is_released", False):
            return Ending.RELEASED
        return Ending.ABORTED if getattr(thread, "is_aborted", False) else Ending.BROKEN

    def ended(self) -> list[str]:
        """Return the associations that are over and not yet forgotten."""
        with self._lock:
            return [name for name, thread in self._threads.items() if not thread.is_alive()]

    def forget(self, association: str) -> None:
        """Drop an association that is over."""
        with self._lock:
            self._threads.pop(association, None)
            self._tallies.pop(association, None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._threads)


class CompletenessRounds:
    """A thread that completes studies, and queues early runs of urgent ones, a few times a second.

    Several receivers may do so on one database: each study is completed by one of them.
    """

    def __init__(
        self,
        database: Database,
        receiver_name: str,
        quiet: QuietPeriods,
        open_associations: OpenAssociations,
        clock: Clock,
        *,
        bounds: Bounds | None = None,
        refused: RefusedCallers | None = None,
    ) -> None:
        self._database = database
        self._refused = refused or RefusedCallers(clock)
        self._receiver_name = receiver_name
        self._quiet = quiet
        self._bounds = bounds or Bounds()
        self._open = open_associations
        self._clock = clock
        self._heartbeat_at: datetime | None = None
        self._tidied_at = clock()
        self._is_any_arriving = True
        # Many large studies make a round long; receiving goes before.
        self._rounds = Rounds(
            "completeness",
            self.go_round,
            pause_s=_ROUND_S,
            pauses_first=True,
            share_of_time=_SHARE_OF_TIME,
            failing="completeness cannot be judged",
            commits_to=database,
            is_pressing=self._is_pressing,
        )

    def start(self) -> None:
        """Start the thread."""
        self._rounds.start()

    def stop(self) -> None:
        """End the thread after the round that is under way, and write who sent what until now."""
        self._rounds.end()
        self._rounds.join()
        self._heartbeat_at = None
        try:
            self._release_ended()
            self._keep_alive(self._clock())
        except SQLAlchemyError as error:
            log.warning("visits not written", error=type(error).__name__)

    def go_round(self) -> list[int]:
        """Do what is due now and return the ids of the studies that became complete."""
        self._release_ended()
        now = self._clock()
        self._keep_alive(now)
        self._tidy(now)
        with self._database.reading() as session:
            self._is_any_arriving = is_any_arriving(session)
            if not self._is_any_arriving:
                return []
            has_quiet = has_quiet_studies(session, self._quiet, now, self._bounds)
            has_early = bool(studies_with_enough(session, self._quiet, now, self._bounds))
        completed = self._complete(now) if has_quiet else []
        if has_early:
            self._queue_early(now)
        return completed

    def _is_pressing(self) -> bool:
        """Return whether time alone, or the end of an association, may have brought work."""
        return self._is_any_arriving or bool(self._open.ended())

    def _complete(self, now: datetime) -> list[int]:
        with self._database.transaction() as session:
            completed = complete_quiet_studies(session, self._quiet, now, self._bounds)
        for study_id in completed:
            log.info("study complete", study_id=study_id)
        return completed

    def _queue_early(self, now: datetime) -> None:
        with self._database.transaction() as session:
            queued = queue_early_runs(session, self._quiet, now, self._bounds)
        for study_id in queued:
            log.info("series of an urgent study queued", study_id=study_id)

    def _tidy(self, now: datetime) -> None:
        if now - self._tidied_at < _TIDIES_EVERY:
            return
        with self._database.transaction() as session:
            forget_signals_before(session, now - _SIGNALS_ARE_KEPT_FOR)
            forget_visits_before(session, now - _VISITS_OF_NO_STUDY_ARE_KEPT_FOR)
        self._tidied_at = now

    def _release_ended(self) -> None:
        ended = self._open.ended()
        if not ended:
            return
        parts = {
            association: self._open.tally_of(association).unwritten(
                self._open.ending_of(association)
            )
            for association in ended
        }
        with self._database.transaction() as session:
            for association in ended:
                release_association(session, association)
                record_visit_parts(session, parts[association])
        for association in ended:
            self._open.forget(association)

    def _keep_alive(self, now: datetime) -> None:
        if self._heartbeat_at is not None and now - self._heartbeat_at < _HEARTBEAT:
            return
        going_on = self._open.tallies()
        refused = self._refused.unwritten()
        if going_on or refused:
            parts = [(tally, tally.unwritten()) for tally in going_on]
            with self._database.transaction() as session:
                keep_associations_alive(session, self._receiver_name, now)
                for _, unwritten in parts:
                    record_visit_parts(session, unwritten)
                record_refused_callers(session, refused)
            for tally, unwritten in parts:
                tally.written(unwritten)
            self._refused.written(refused)
        self._heartbeat_at = now
