"""What is written down of who uses the pages: the audit trail, and that sessions are in use.

Nothing here makes a page fail, or wait for the database. An event goes to a file before the answer
leaves and from there into the trail. Where even the disk refuses, the answer leaves all the same:
a radiologist who gets no images because a log is full is the greater harm. It is said in the
process's own log, and `Security Alert` (recording stopped) is the first event that can be written
again.
"""

from __future__ import annotations

import socket
import threading
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError

from triage.core.audit import AuditEvent, AuditKind, Outcome
from triage.settings import AuditSettings
from triage.store.api_tokens import note_use
from triage.store.audit import write_events
from triage.store.audit_spool import AuditSpool
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.sessions import keep_alive

log = structlog.get_logger(__name__)

_GATHER_S = 0.1
_AGAIN_S = 2.0
_REMEMBERED = 50_000
_SHIFT = timedelta(hours=12)


@dataclass(slots=True)
class _Seen:
    """Which accesses were recorded lately, so that further images of a study are not another."""

    window: timedelta
    at: dict[tuple[str, ...], datetime] = field(default_factory=dict)

    def is_new(self, key: tuple[str, ...], now: datetime) -> bool:
        before = self.at.get(key)
        if before is not None and now - before < self.window:
            return False
        if len(self.at) >= _REMEMBERED:
            self.at.clear()
        self.at[key] = now
        return True


class Trail:
    """Takes events from the pages and writes them into the database from a thread of its own."""

    def __init__(
        self, database: Database, folder: Path, settings: AuditSettings, clock: Clock
    ) -> None:
        self._database = database
        self._spool = AuditSpool(folder)
        self._tells = bool(settings.host)
        self._clock = clock
        self._seen = _Seen(timedelta(minutes=settings.same_access_minutes))
        self._listed = _Seen(_SHIFT)
        self._lock = threading.Lock()
        self._sessions: set[int] = set()
        self._tokens: set[int] = set()
        self._has_lost = False
        self._is_announced = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write what is recorded, first what a process that is gone has left."""
        self._thread = threading.Thread(target=self._run, name="audit-trail", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what there is, and stop; what cannot be written stays in its file."""
        if self._is_announced:
            # Here and not after the server: that ends the process by the signal that it got.
            self._record_application("application-stop")
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._flush_if_possible()
        self._spool.close()

    def now(self) -> datetime:
        """Return the present moment."""
        return self._clock()

    def record(self, event: AuditEvent) -> None:
        """Keep an event; it never raises."""
        try:
            if self._has_lost:
                self._spool.append(self._lost(event))
                self._has_lost = False
            self._spool.append(event)
        except OSError as error:
            self._has_lost = True
            log.error("audit.not-recorded", kind=event.kind, error=error.strerror)
        self._wake.set()

    def announce(self) -> None:
        """Record that the pages begin, and when this is closed that they end."""
        self._is_announced = True
        self._record_application("application-start")

    def _record_application(self, what: str) -> None:
        """Record Application Activity (DICOM PS3.15 A.5.3.1)."""
        self.record(
            AuditEvent(
                uid=new_uid(),
                at=self._clock(),
                kind=AuditKind.APPLICATION,
                type=what,
                action="E",
                who="triage web",
                way="program",
                address=socket.gethostname(),
            )
        )

    def record_access(self, event: AuditEvent) -> None:
        """Keep an event of reading, unless it is part of an access that was recorded already.

        An open list is asked for again and again; each study on it is told once a shift.
        """
        by = (event.who, event.address, event.kind)
        # Images of a study are one access whatever the route; lists that show one study are as
        # different as what they list: what a page asks by itself must not hide what was opened.
        is_by_study = bool(event.study_instance_uid) and event.kind is not AuditKind.QUERY
        what = (event.study_instance_uid, "" if is_by_study else event.type, event.detail)
        with self._lock:
            is_new = self._seen.is_new((*by, *what), event.at)
            fresh = [uid for uid in event.studies if self._listed.is_new((*by, uid), event.at)]
        if is_new or fresh:
            self.record(replace(event, studies=tuple(fresh)))

    def note_session(self, session_id: int) -> None:
        """Note that a session is in use."""
        with self._lock:
            self._sessions.add(session_id)
        self._wake.set()

    def note_token(self, token_id: int) -> None:
        """Note that a token is in use."""
        with self._lock:
            self._tokens.add(token_id)
        self._wake.set()

    def flush(self) -> None:
        """Write what there is, at once.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        while events := self._spool.take():
            with self._database.transaction() as session:
                write_events(session, events, tell=self._tells)
            self._spool.done()
        self._write_uses()

    def _lost(self, event: AuditEvent) -> AuditEvent:
        return replace(
            event,
            uid=new_uid(),
            kind=AuditKind.SECURITY_ALERT,
            type="audit-recording-stopped",
            action="E",
            outcome=Outcome.SERIOUS_FAILURE,
            detail="The disk refused audit events before this one.",
        )

    def _run(self) -> None:
        has_adopted = False
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            self._stop.wait(_GATHER_S)  # what comes together is written together
            try:
                if not has_adopted:
                    self._adopt()
                    has_adopted = True
                self.flush()
            except SQLAlchemyError as error:
                log.warning("audit.database-away", error=type(error).__name__)
                self._stop.wait(_AGAIN_S)
                self._wake.set()

    def _flush_if_possible(self) -> None:
        try:
            self.flush()
        except SQLAlchemyError as error:
            log.warning("audit.database-away", error=type(error).__name__)

    def _adopt(self) -> None:
        for events in self._spool.orphans():
            with self._database.transaction() as session:
                write_events(session, events, tell=self._tells)

    def _write_uses(self) -> None:
        with self._lock:
            sessions, self._sessions = self._sessions, set()
            tokens, self._tokens = self._tokens, set()
        if not sessions and not tokens:
            return
        with self._database.transaction() as session:
            keep_alive(session, sessions, now=self._clock())
            note_use(session, tokens, now=self._clock())


def new_uid() -> str:
    """Return a new identity for an event."""
    return uuid.uuid4().hex
