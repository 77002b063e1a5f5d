"""The worklist as all open pages see it, made once for each change.

When a study is flagged, every open page asks for the list at the same moment. Two hundred pages
that look at the same studies get the same answer: it is made for the first that asks. A page that
names the answer it has is sent only the rows that differ.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from jinja2 import Environment
from sqlalchemy.orm import Session

from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.policies import PolicyInForce, policy_in_force
from triage.worklist.changes import ChangeToken, change_token
from triage.worklist.filters import WorklistSearch
from triage.worklist.queue import (
    COUNTED_TO,
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
_ANSWER_HOLDS_S = 15.0  # a claim that has run out is seen at the latest then
_TOKEN_HOLDS_S = 0.05  # of two hundred requests at once, a few look at the database


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
    """Gives the list, and remembers what it gave."""

    def __init__(self, database: Database, clock: Clock, templates: Environment) -> None:
        """Prepare the list; its rows are written by the macros of `templates`."""
        self._database = database
        self._clock = clock
        self._templates = templates
        self._lock = threading.Lock()
        self._made: OrderedDict[Asked, _Made] = OrderedDict()
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._tally: tuple[Tally, ChangeToken, float] | None = None
        self._token = (ChangeToken(), float("-inf"))

    def tally(self) -> Tally:
        """Return what the list consists of, counted anew where something has changed."""
        with self._lock:
            self._looked_at(time.monotonic())
            with self._database.reading() as session:
                return self._recounted(session, self._clock())

    def answer(self, asked: Asked, known_tag: str = "") -> Given:
        """Return what a page must be sent that has the list of the tag `known_tag`."""
        with self._lock:
            made = self._current(asked.shared())
            shown = tuple(made.answer.rows)
            if made.answer.tag == known_tag:
                return Given(known_tag, b"", shown)
            known = self._answers.get(known_tag)
            tag = known.tag if known is not None else ""
            if tag not in made.changes:
                made.changes[tag] = made.answer.as_json(known)
            return Given(made.answer.tag, made.changes[tag], shown)

    def _current(self, asked: Asked) -> _Made:
        now = time.monotonic()
        made = self._made.get(asked)
        token = self._looked_at(now)
        if made is not None and made.token == token and now - made.at < _ANSWER_HOLDS_S:
            return made
        answer = self._make(asked)
        if made is not None and made.answer.tag == answer.tag:
            made.token, made.at = token, now
            return made
        made = _Made(answer, token, now)
        _keep(self._made, asked, made)
        _keep(self._answers, answer.tag, answer)
        return made

    def _looked_at(self, now: float) -> ChangeToken:
        token, at = self._token
        if now - at >= _TOKEN_HOLDS_S:
            with self._database.reading() as session:
                token = change_token(session)
            self._token = (token, now)
        return token

    def _make(self, asked: Asked) -> Answer:
        now = self._clock()
        with self._database.reading() as session:
            part = look(session, asked, now, self._recounted(session, now))
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

    def _recounted(self, session: Session, now: datetime) -> Tally:
        known = self._tally
        token = self._token[0]
        if known is None or known[1] != token or time.monotonic() - known[2] > _TALLY_HOLDS_S:
            self._tally = known = (take_tally(session, now), token, time.monotonic())
        return known[0]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the list, and what is said about the whole."""

    entries: Sequence[WorklistEntry]
    tally: Tally
    policy: PolicyInForce
    number: int
    page: int

    def content(self) -> dict[str, Any]:
        """Return what the templates show."""
        counts = self.tally.counts()
        return {
            "entries": self.entries,
            "counts": counts,
            "policy": self.policy,
            "number": self.number,
            "is_counted": self.number < COUNTED_TO or self.number == counts.total,
            "page": self.page,
            "first_place": (self.page - 1) * PAGE_SIZE + 1,
            "pages": max(1, -(-self.number // PAGE_SIZE)),
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
    return Part(entries, tally, policy_in_force(session), number, asked.page)


def _keep(kept: OrderedDict[Key, Value], key: Key, value: Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > _ANSWERS_KEPT:
        kept.popitem(last=False)
