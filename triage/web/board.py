"""The worklist as all open pages see it, made once for each change.

When a study is flagged, every open page asks for the list at the same moment. Two hundred pages
that look at the same studies get the same answer: it is made for the first that asks, in a thread,
and the others wait for it in the event loop. A page that names the answer it has is sent only the
rows that differ.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from jinja2 import Environment
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.policies import PolicyInForce, policy_in_force
from triage.worklist.changes import ChangeToken, change_token
from triage.worklist.filters import WorklistSearch
from triage.worklist.queue import (
    COUNTED_TO,
    EVERYTHING,
    PAGE_SIZE,
    WorklistEntry,
    count_filtered,
    reading_list,
    take_tally,
)
from triage.worklist.tally import Tally

Key = TypeVar("Key")
Value = TypeVar("Value")

_ANSWERS_KEPT = 64
_TALLY_HOLDS_S = 5.0
# To count 100,000 studies takes SQLite 0.2 s: the figures of a long list may be this old.
_LONG_LIST = 5000
_LONG_TALLY_HOLDS_S = 2.0
_ANSWER_HOLDS_S = 15.0  # a claim that has run out is seen at the latest then

ALL = WorklistSearch()


@dataclass(frozen=True, slots=True)
class Asked:
    """Which part of the list a page shows; `who` matters only where the filter says "me"."""

    wanted: WorklistSearch = ALL
    who: str = ""
    page: int = 1

    def shared(self) -> Asked:
        """Return the same without the person, where it makes no difference who asks."""
        is_personal = self.wanted.assigned in ("me", "others")
        return self if is_personal else Asked(self.wanted, "", self.page)


@dataclass(frozen=True, slots=True)
class Answer:
    """A part of the list as HTML: rows by study, their order, and what stands above and below."""

    tag: str
    rows: Mapping[str, str]
    summary: str
    below: str

    def as_json(self, known: Answer | None) -> bytes:
        """Return it for a page that has `known`: only the rows that differ from that."""
        rows = self.rows
        if known is not None:
            rows = {uid: html for uid, html in rows.items() if known.rows.get(uid) != html}
        said = {
            "tag": self.tag,
            "order": list(self.rows),
            "rows": rows,
            "summary": self.summary,
            "below": self.below,
        }
        return json.dumps(said, ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Given:
    """What a page is sent: the tag of the list as it is, and the JSON, empty where it has that.

    `studies` are the UIDs of those that the page shows.
    """

    tag: str
    content: bytes
    studies: tuple[str, ...]


@dataclass(slots=True)
class _Made:
    answer: Answer
    token: ChangeToken
    at: float
    changes: dict[str, bytes] = field(default_factory=dict)


class Board:
    """Gives the list, and remembers what it gave; answers are asked for in one event loop.

    `followed` gives the token up to which open pages have been told of changes, None where none is
    open: a page that asks because it was told need not have the database looked at again. Rows are
    written by the macros of `templates`.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        followed: Callable[[], ChangeToken | None],
        templates: Environment,
    ) -> None:
        self._database = database
        self._clock = clock
        self._templates = templates
        self._followed = followed
        self._making: dict[Asked, asyncio.Task[_Made]] = {}
        self._counting = threading.Lock()
        self._keeping = threading.Lock()
        self._made: OrderedDict[Asked, _Made] = OrderedDict()
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._tally: tuple[Tally, ChangeToken, float] | None = None

    def tally(self) -> Tally:
        """Return what the list consists of, counted anew where something has changed."""
        with self._database.reading() as session:
            return self._counted(session, change_token(session))

    async def answer(self, asked: Asked, known_tag: str = "") -> Given:
        """Return what a page must be sent that has the list of the tag `known_tag`.

        Where the list is made already, that takes neither a thread nor the database.
        """
        asked = asked.shared()
        token = self._followed()
        if token is None:
            token = await run_in_threadpool(self._looked_up)
        made = await self._current(asked, token)
        shown = tuple(made.answer.rows)
        if made.answer.tag == known_tag:
            return Given(known_tag, b"", shown)
        known = self._answers.get(known_tag)
        tag = known.tag if known is not None else ""
        if tag not in made.changes:
            made.changes[tag] = made.answer.as_json(known)
        return Given(made.answer.tag, made.changes[tag], shown)

    async def _current(self, asked: Asked, token: ChangeToken) -> _Made:
        if (made := self._holding(asked, token)) is not None:
            return made
        making = self._making.get(asked)
        if making is not None:
            await asyncio.shield(making)
            if (made := self._holding(asked, token)) is not None:
                return made
            # That one began before this was asked, and knows less. One that began since will do.
            making = self._making.get(asked)
        if making is None:
            making = asyncio.create_task(self._make_for_all(asked, token))
            self._making[asked] = making
        return await asyncio.shield(making)

    def _holding(self, asked: Asked, token: ChangeToken) -> _Made | None:
        made = self._made.get(asked)
        if made is None or made.token != token:
            return None
        return made if time.monotonic() - made.at < _ANSWER_HOLDS_S else None

    async def _make_for_all(self, asked: Asked, token: ChangeToken) -> _Made:
        try:
            return await run_in_threadpool(self._made_anew, asked, token)
        finally:
            del self._making[asked]

    def _made_anew(self, asked: Asked, token: ChangeToken) -> _Made:
        now = time.monotonic()
        before = self._made.get(asked)
        answer = self._make(asked, token)
        if before is not None and before.answer.tag == answer.tag:
            before.token, before.at = token, now
            return before
        made = _Made(answer, token, now)
        with self._keeping:
            _keep(self._made, asked, made)
            _keep(self._answers, answer.tag, answer)
        return made

    def _looked_up(self) -> ChangeToken:
        with self._database.reading() as session:
            return change_token(session)

    def _make(self, asked: Asked, token: ChangeToken) -> Answer:
        now = self._clock()
        with self._database.reading() as session:
            part = look(session, asked, now, self._counted(session, token))
        rows = {entry.study_instance_uid: self._row(entry) for entry in part.entries}
        summary, below = (
            self._templates.get_template(name).render(part.content())
            for name in ("_summary.html", "_below.html")
        )
        said = "\0".join((summary, below, *rows.values()))
        return Answer(hashlib.sha256(said.encode()).hexdigest()[:32], rows, summary, below)

    def _row(self, entry: WorklistEntry) -> str:
        # Pages write places and times by themselves: else one study that comes would change all.
        macros = self._templates.get_template("_macros.html").module
        return str(macros.row(entry, False, 0))  # type: ignore[attr-defined]

    def _counted(self, session: Session, token: ChangeToken) -> Tally:
        with self._counting:
            now = time.monotonic()
            if self._tally is not None:
                tally, counted_at_token, at = self._tally
                is_long = tally.number_of(EVERYTHING) >= _LONG_LIST
                if (counted_at_token == token and now - at < _TALLY_HOLDS_S) or (
                    is_long and now - at < _LONG_TALLY_HOLDS_S
                ):
                    return tally
            tally = take_tally(session, self._clock())
            self._tally = (tally, token, time.monotonic())
            return tally


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the list, and what is said about the whole.

    Where `is_counted` is false, `number` is only how far was counted.
    """

    entries: Sequence[WorklistEntry]
    tally: Tally
    policy: PolicyInForce
    number: int
    is_counted: bool
    page: int

    def content(self) -> dict[str, Any]:
        """Return what the templates show."""
        pages = max(1, -(-self.number // PAGE_SIZE))
        if not self.is_counted and len(self.entries) == PAGE_SIZE:
            pages = max(pages, self.page + 1)
        return {
            "entries": self.entries,
            "counts": self.tally.counts(),
            "policy": self.policy,
            "number": self.number,
            "is_counted": self.is_counted,
            "page": self.page,
            "first_place": (self.page - 1) * PAGE_SIZE + 1,
            "pages": pages,
        }


def look(session: Session, asked: Asked, now: datetime, tally: Tally) -> Part:
    """Return a part of the list."""
    entries = reading_list(
        session,
        now,
        wanted=asked.wanted,
        who=asked.who,
        limit=PAGE_SIZE,
        offset=(asked.page - 1) * PAGE_SIZE,
    )
    number = count_filtered(session, tally, asked.wanted, now, asked.who)
    is_counted = asked.wanted.is_by_list or number < COUNTED_TO
    return Part(entries, tally, policy_in_force(session), number, is_counted, asked.page)


def _keep(kept: OrderedDict[Key, Value], key: Key, value: Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > _ANSWERS_KEPT:
        kept.popitem(last=False)
