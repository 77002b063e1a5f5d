"""What comes in and from where, who is refused, and who is unusually silent."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from triage.core.visits import Ending, Way, unusual_silence
from triage.store.visit_tables import VisitRow
from triage.store.visits import refused_callers
from triage.worklist.visits import WAYS
from triage.worklist.wording import duration

_REMEMBERED = timedelta(days=14)
_MOST_REFUSED = 20
_Key = tuple[str, str, str]


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class SenderView(_View):
    """A sender at an address, by a way in; counts are of instances since midnight or in the hour.

    `broken` counts visits of today that ended without a release. `silence` says in words that it
    has sent nothing for longer than usual.
    """

    calling_ae_title: str
    address: str
    way: Way
    way_in_words: str
    today: int
    today_bytes: int
    last_hour: int
    refused: int
    broken: int
    last_at: datetime
    last_error: str
    silence: str


class RefusedCallerView(_View):
    """A caller whose associations were rejected in the last day, why, and what to do."""

    calling_ae_title: str
    address: str
    reason: str
    times: int
    last_at: datetime
    next_step: str


class Intake(_View):
    """What comes in."""

    senders: tuple[SenderView, ...]
    refused: tuple[RefusedCallerView, ...]


_REFUSED_NEXT = {
    "no sender has this calling AE title": "If it is one of yours, add it to [[senders]].",
    "the sender of this AE title does not call from this address": (
        "Add this address to its [[senders]] entry, or find out who uses its name."
    ),
    "this sender must call over TLS": "Let it call receiver.tls_port, or take back require_tls.",
    "another AE title was called": "Correct the called AE title at the sender.",
}


def intake(session: Session, now: datetime) -> Intake:
    """Return the senders of the last fourteen days, the silent first, and refused callers."""
    moments: dict[_Key, list[datetime]] = defaultdict(list)
    for title, address, way, at in session.execute(
        select(VisitRow.calling_ae_title, VisitRow.address, VisitRow.way, VisitRow.last_at)
        .where(VisitRow.last_at >= now - _REMEMBERED, VisitRow.instances > 0)
        .order_by(VisitRow.last_at)
    ):
        moments[title, address, way].append(at)
    counts = _counts(session, now)
    keys = sorted(moments.keys() | counts.keys())
    senders = [_sender(key, counts.get(key), moments.get(key, []), now) for key in keys]
    return Intake(
        senders=tuple(sorted(senders, key=lambda s: (not s.silence, -s.last_at.timestamp()))),
        refused=tuple(
            RefusedCallerView(
                calling_ae_title=row.calling_ae_title,
                address=row.address,
                reason=row.reason,
                times=row.times,
                last_at=row.last_at,
                next_step=_REFUSED_NEXT.get(
                    row.reason, "Let it call again; raise the limit if this comes often."
                ),
            )
            for row in refused_callers(session, now - timedelta(days=1))[:_MOST_REFUSED]
        ),
    )


class _Counts(_View):
    today: int
    today_bytes: int
    last_hour: int
    refused: int
    broken: int
    last_at: datetime
    last_error: str


def _counts(session: Session, now: datetime) -> dict[_Key, _Counts]:
    midnight = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    is_recent = VisitRow.last_at >= now - timedelta(hours=1)
    is_broken = VisitRow.ended.in_((Ending.ABORTED.value, Ending.BROKEN.value))
    key = (VisitRow.calling_ae_title, VisitRow.address, VisitRow.way)
    rows = session.execute(
        select(
            *key,
            func.sum(VisitRow.instances),
            func.sum(VisitRow.size_bytes),
            func.sum(case((is_recent, VisitRow.instances), else_=0)),
            func.sum(VisitRow.refused),
            func.sum(case((is_broken, 1), else_=0)),
            func.max(VisitRow.last_at),
            func.max(VisitRow.last_error),
        )
        .where(VisitRow.last_at >= min(midnight, now - timedelta(hours=1)))
        .group_by(*key)
    )
    return {
        (title, address, way): _Counts(
            today=int(today),
            today_bytes=int(size),
            last_hour=int(hour),
            refused=int(refused),
            broken=int(broken),
            last_at=last_at,
            last_error=error,
        )
        for title, address, way, today, size, hour, refused, broken, last_at, error in rows
    }


def _sender(
    key: _Key, counts: _Counts | None, moments: list[datetime], now: datetime
) -> SenderView:
    title, address, way = key
    silence = unusual_silence(moments, now)
    said = ""
    if silence is not None:
        passed = duration((now - silence.since).total_seconds())
        usual = duration(silence.usual_pause.total_seconds())
        said = f"has sent nothing for {passed}; at these hours it usually sends every {usual}"
    return SenderView(
        calling_ae_title=title,
        address=address,
        way=Way(way),
        way_in_words=WAYS[way],
        today=counts.today if counts else 0,
        today_bytes=counts.today_bytes if counts else 0,
        last_hour=counts.last_hour if counts else 0,
        refused=counts.refused if counts else 0,
        broken=counts.broken if counts else 0,
        last_at=counts.last_at if counts else moments[-1],
        last_error=counts.last_error if counts else "",
        silence=said,
    )
