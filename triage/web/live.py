"""Live updates: one look at the database for all open pages, told by Server-Sent Events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cached_property

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from triage.store.database import Database
from triage.worklist.changes import Change, ChangeToken, change_token, recent_changes

log = structlog.get_logger()

_POLL_S = 0.2
_POLL_AFTER_ERROR_S = 2.0
_HEARTBEAT_S = 15.0
_QUEUE_LENGTH = 64


@dataclass(frozen=True)
class Update:
    """What open pages are told: which studies changed, and how."""

    newest_event_id: int
    changes: tuple[Change, ...] = ()
    is_complete: bool = True

    @cached_property
    def as_event(self) -> str:
        """The message as an event stream writes it (WHATWG HTML, 9.2); the same for all pages."""
        studies = {c.study_instance_uid: [] for c in self.changes}  # type: dict[str, list[str]]
        for change in self.changes:
            studies[change.study_instance_uid].append(change.kind)
        content = {"newest": self.newest_event_id, "studies": studies, "all": not self.is_complete}
        return f"id: {self.newest_event_id}\nevent: changed\ndata: {json.dumps(content)}\n\n"


@dataclass(slots=True, eq=False)
class _Page:
    updates: asyncio.Queue[Update | None] = field(
        default_factory=lambda: asyncio.Queue(_QUEUE_LENGTH)
    )


class LiveUpdates:
    """Follows the history of all studies while at least one page is open."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pages: set[_Page] = set()
        self._poller: asyncio.Task[None] | None = None
        self._token = ChangeToken()
        self._seen: set[int] = set()
        self._starting = asyncio.Lock()
        self._is_closed = False

    async def stream(self) -> AsyncIterator[str]:
        """Yield the event stream of one page until it goes away or `close` is called."""
        page = _Page()
        self._pages.add(page)
        try:
            await self._start_following()
            # The page asks for the list anew when it hears this, so nothing is missed between.
            yield f"retry: 1000\n{Update(self._token.newest_event_id, (), False).as_event}"
            while not self._is_closed:
                try:
                    update = await asyncio.wait_for(page.updates.get(), _HEARTBEAT_S)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if update is None:
                    return
                yield update.as_event
        finally:
            self._pages.discard(page)

    def told_up_to(self) -> ChangeToken | None:
        """Return up to where open pages have been told of changes, None while none is open."""
        is_following = self._poller is not None and not self._poller.done()
        return self._token if is_following else None

    def close(self) -> None:
        """End all streams, so that the server can stop at once."""
        self._is_closed = True
        if self._poller is not None:
            self._poller.cancel()
        for page in self._pages:
            _tell(page, None)

    async def _start_following(self) -> None:
        async with self._starting:
            if self._poller is not None and not self._poller.done():
                return
            # The first look is taken before the page asks for the list: what is added later is
            # told, what was added earlier is on the list.
            with contextlib.suppress(SQLAlchemyError):
                await run_in_threadpool(self._look)
            self._poller = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while self._pages and not self._is_closed:
            pause = _POLL_S
            try:
                update = await run_in_threadpool(self._look)
                for page in self._pages if update is not None else ():
                    _tell(page, update)
            except SQLAlchemyError as error:
                log.warning("live.database-away", error=type(error).__name__)
                pause = _POLL_AFTER_ERROR_S
            await asyncio.sleep(pause)

    def _look(self) -> Update | None:
        with self._database.reading() as session:
            token = change_token(session)
            if token == self._token:
                return None
            recent = recent_changes(session, token, self._token)
        new = tuple(change for change in recent if change.event_id not in self._seen)
        self._seen = {change.event_id for change in recent}
        is_same_policy = token.policy_event_id == self._token.policy_event_id
        self._token = token
        if new or not is_same_policy:
            return Update(token.newest_event_id, new, is_complete=is_same_policy)
        return None


def _tell(page: _Page, update: Update | None) -> None:
    if page.updates.full():
        # A page that does not listen loses the details, not the news: it is told to look anew.
        with contextlib.suppress(asyncio.QueueEmpty):
            while True:
                page.updates.get_nowait()
        if update is not None:
            update = Update(update.newest_event_id, update.changes, is_complete=False)
    page.updates.put_nowait(update)
