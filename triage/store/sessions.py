"""Browsers that are logged in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from triage.store.secrets import digest_of, new_secret
from triage.store.user_tables import UserRow, WebSessionRow
from triage.store.users import User, as_user


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long a session lasts: without a request, and in any case."""

    idle: timedelta
    absolute: timedelta


@dataclass(frozen=True, slots=True)
class WebSession:
    """A browser that is logged in."""

    id: int
    user: User
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    address: str
    browser: str


def begin_session(
    session: Session,
    user: User,
    limits: SessionLimits,
    *,
    address: str,
    browser: str,
    now: datetime,
) -> str:
    """Begin a session and return its secret, which is kept nowhere; those that are over go."""
    session.execute(delete(WebSessionRow).where(_is_over(limits, now)))
    secret = new_secret()
    session.add(
        WebSessionRow(
            secret_sha256=digest_of(secret),
            user_id=user.id,
            created_at=now,
            last_seen_at=now,
            expires_at=now + limits.absolute,
            address=address[:64],
            browser=browser[:256],
        )
    )
    return secret


def _is_over(limits: SessionLimits, now: datetime) -> ColumnElement[bool]:
    return (WebSessionRow.expires_at <= now) | (WebSessionRow.last_seen_at <= now - limits.idle)


def find_session(
    session: Session, secret: str, limits: SessionLimits, *, now: datetime
) -> WebSession | None:
    """Return the session of a secret, None if it is over or its account is disabled."""
    row = session.scalars(
        select(WebSessionRow)
        .join(UserRow)
        .where(
            WebSessionRow.secret_sha256 == digest_of(secret),
            ~_is_over(limits, now),
            ~UserRow.is_disabled,
        )
    ).one_or_none()
    return _as_session(row) if row is not None else None


def sessions_of(
    session: Session, user_id: int, limits: SessionLimits, *, now: datetime
) -> list[WebSession]:
    """Return the sessions of a person that are not over, the newest first."""
    rows = session.scalars(
        select(WebSessionRow)
        .where(WebSessionRow.user_id == user_id, ~_is_over(limits, now))
        .order_by(WebSessionRow.created_at.desc())
    )
    return [_as_session(row) for row in rows]


def keep_alive(session: Session, session_ids: Iterable[int], *, now: datetime) -> None:
    """Note that these sessions were used."""
    session.execute(
        update(WebSessionRow)
        .where(WebSessionRow.id.in_(list(session_ids)), WebSessionRow.last_seen_at < now)
        .values(last_seen_at=now)
    )


def end_session(session: Session, session_id: int, *, user_id: int) -> bool:
    """End a session of this person, and return whether they had it."""
    row = session.get(WebSessionRow, session_id)
    if row is None or row.user_id != user_id:
        return False
    session.delete(row)
    return True


def _as_session(row: WebSessionRow) -> WebSession:
    return WebSession(
        row.id,
        as_user(row.user),
        row.created_at,
        row.last_seen_at,
        row.expires_at,
        row.address,
        row.browser,
    )
