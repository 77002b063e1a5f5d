"""Tokens of programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.core.permissions import SCOPES, Permission
from triage.store.secrets import digest_of, new_secret
from triage.store.user_tables import ApiTokenRow, UserRow
from triage.store.users import User, as_user

PREFIX = "triage_"
"""What every token begins with, so that people and scanners for lost secrets know it."""
LONGEST_NAME = 128


class TokenError(TriageError):
    """A token cannot be made so; the message says why."""


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token as others see it: everything but the secret."""

    id: int
    name: str
    owner: User
    scopes: frozenset[Permission]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None

    @property
    def permissions(self) -> frozenset[Permission]:
        """What it may do: its scopes, as far as its owner may do that still."""
        return self.scopes & self.owner.permissions


def make_token(
    session: Session,
    owner: User,
    name: str,
    scopes: Iterable[Permission],
    *,
    lifetime: timedelta,
    longest: timedelta,
    now: datetime,
) -> tuple[ApiToken, str]:
    """Make a token for what its owner may do, and return it with its secret, which is not kept.

    Raises:
        TokenError: it has no name or scope, is for more than the owner may do, or lasts too long.
    """
    wanted = frozenset(scopes)
    if not 0 < len(name.strip()) <= LONGEST_NAME:
        raise TokenError(f"name: say in 1 to {LONGEST_NAME} characters which program it is for")
    if not wanted:
        raise TokenError("scopes: choose at least one")
    if excess := wanted - (owner.permissions & frozenset(SCOPES)):
        raise TokenError(f"scopes: {owner.name} may not {', '.join(sorted(excess))}; leave it out")
    if not timedelta() < lifetime <= longest:
        raise TokenError(f"days: choose 1 to {longest.days}")
    secret = new_secret(PREFIX)
    row = ApiTokenRow(
        secret_sha256=digest_of(secret),
        user_id=owner.id,
        name=name.strip(),
        scopes=sorted(scope.value for scope in wanted),
        created_at=now,
        expires_at=now + lifetime,
    )
    session.add(row)
    session.flush()
    return _as_token(row), secret


def find_token(session: Session, secret: str, *, now: datetime) -> ApiToken | None:
    """Return the token of a secret, None if it is over, revoked, or its owner is disabled."""
    row = session.scalars(
        select(ApiTokenRow)
        .join(UserRow)
        .where(
            ApiTokenRow.secret_sha256 == digest_of(secret),
            ApiTokenRow.expires_at > now,
            ApiTokenRow.revoked_at.is_(None),
            ~UserRow.is_disabled,
        )
    ).one_or_none()
    return _as_token(row) if row is not None else None


def tokens(session: Session, *, user_id: int | None = None) -> list[ApiToken]:
    """Return the tokens of one person, or of all, the newest first."""
    found = select(ApiTokenRow).order_by(ApiTokenRow.created_at.desc(), ApiTokenRow.id.desc())
    if user_id is not None:
        found = found.where(ApiTokenRow.user_id == user_id)
    return [_as_token(row) for row in session.scalars(found)]


def revoke_token(
    session: Session, token_id: int, *, user_id: int | None = None, now: datetime
) -> bool:
    """Revoke a token of one person, or of anybody, and return whether there was one to revoke."""
    row = session.get(ApiTokenRow, token_id)
    if row is None or user_id not in (None, row.user_id) or row.revoked_at is not None:
        return False
    row.revoked_at = now
    return True


def note_use(session: Session, token_ids: Iterable[int], *, now: datetime) -> None:
    """Note that these tokens were used."""
    session.execute(
        update(ApiTokenRow).where(ApiTokenRow.id.in_(list(token_ids))).values(last_used_at=now)
    )


def _as_token(row: ApiTokenRow) -> ApiToken:
    known = {scope.value for scope in SCOPES}
    return ApiToken(
        row.id,
        row.name,
        as_user(row.user),
        frozenset(Permission(scope) for scope in row.scopes if scope in known),
        row.created_at,
        row.expires_at,
        row.last_used_at,
        row.revoked_at,
    )
