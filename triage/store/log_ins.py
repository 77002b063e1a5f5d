"""Attempts to log in that failed, and whom they lock out for a while."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from triage.store.user_tables import LogInFailureRow, PendingLogInRow
from triage.store.users import folded

_MANY = 10


@dataclass(frozen=True, slots=True)
class LockRules:
    """When somebody is locked out.

    Attributes:
        failures: with one name from one address; ten times as many with one name, or from one
            address, lock that. One address alone cannot lock a person out everywhere else so soon:
            a radiologist whom a stranger locks out reads no emergency.
        duration: how long a failure counts.
    """

    failures: int
    duration: timedelta


def locked_until(
    session: Session, name: str, address: str, rules: LockRules, *, now: datetime
) -> datetime | None:
    """Return until when nobody may try this name from this address, None if they may now.

    A name counts whether there is such an account or not, so that a lock tells nobody.
    """
    key, row = folded(name)[:128], LogInFailureRow
    limits: list[tuple[ColumnElement[bool], int]] = [
        ((row.name == key) & (row.address == address), rules.failures),
        (row.name == key, rules.failures * _MANY),
        (row.address == address, rules.failures * _MANY),
    ]
    ends = [_locked_until(session, which, limit, rules.duration, now) for which, limit in limits]
    return max((end for end in ends if end is not None), default=None)


def _locked_until(
    session: Session, which: ColumnElement[bool], limit: int, duration: timedelta, now: datetime
) -> datetime | None:
    since = now - duration
    moments = select(LogInFailureRow.at).where(which, LogInFailureRow.at > since)
    newest_first = moments.order_by(LogInFailureRow.at.desc())
    # The lock ends when so many of them are too old that fewer than the limit are left.
    decisive = session.scalars(newest_first.offset(limit - 1).limit(1)).one_or_none()
    return None if decisive is None else decisive + duration


def record_failure(
    session: Session, name: str, address: str, rules: LockRules, *, now: datetime
) -> None:
    """Keep a failed attempt; those that count no longer go."""
    session.execute(delete(LogInFailureRow).where(LogInFailureRow.at <= now - rules.duration))
    session.add(LogInFailureRow(name=folded(name)[:128], address=address[:64], at=now))


def forget_failures(session: Session, name: str, address: str = "") -> int:
    """Let a name be tried again, from one address or from all; return how many failures went."""
    gone = delete(LogInFailureRow).where(LogInFailureRow.name == folded(name)[:128])
    if address:
        gone = gone.where(LogInFailureRow.address == address[:64])
    where = select(func.count()).select_from(LogInFailureRow)
    before = session.scalars(where).one()
    session.execute(gone)
    return before - session.scalars(where).one()


@dataclass(frozen=True, slots=True)
class PendingLogIn:
    """What has to fit when a browser comes back from the provider."""

    state: str
    nonce: str
    code_verifier: str
    return_to: str


def keep_pending(
    session: Session, secret_sha256: str, pending: PendingLogIn, *, until: datetime, now: datetime
) -> None:
    """Keep what a browser has to bring back before `until`; those of before go."""
    session.execute(delete(PendingLogInRow).where(PendingLogInRow.expires_at <= now))
    session.add(
        PendingLogInRow(
            secret_sha256=secret_sha256,
            state=pending.state,
            nonce=pending.nonce,
            code_verifier=pending.code_verifier,
            return_to=pending.return_to,
            expires_at=until,
        )
    )


def take_pending(session: Session, secret_sha256: str, *, now: datetime) -> PendingLogIn | None:
    """Return what was kept, once only, or None."""
    row = session.get(PendingLogInRow, secret_sha256, with_for_update=True)
    if row is None:
        return None
    session.delete(row)
    if row.expires_at <= now:
        return None
    return PendingLogIn(row.state, row.nonce, row.code_verifier, row.return_to)
