"""Who asks: the person or program behind a request, and what they may do."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from triage.core.audit import AuditKind
from triage.core.permissions import (
    ALL_PERMISSIONS,
    Permission,
    Role,
    permissions_of,
)
from triage.settings import LoginSettings, Settings
from triage.store.api_tokens import PREFIX, find_token
from triage.store.sessions import SessionLimits, find_session
from triage.web.context import WebContext

SESSION_COOKIE = "triage-session"
_LONGEST_NAME = 128


class Way(StrEnum):
    """How it is known who somebody is."""

    OPEN = "open"
    """Nobody logs in: whoever reaches the pages may do everything."""
    SESSION = "session"
    TOKEN = "token"  # noqa: S105 - a word, no secret
    PROXY = "proxy"
    PROGRAM = "program"
    """It has the Authorization header of `[stow]`, `[dicomweb]` or `[ups]`."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        name: what history and audit call them, "" where the proxy in front names nobody.
        way: how that is known.
        permissions: what they may do.
        roles: the roles that give it; empty for programs.
        user_id: the account, None where there is none.
        session_id: the session of the browser.
        token_id: the token of the program.
        must_change_password: whether they may do nothing before they have done that.
    """

    name: str
    way: Way
    permissions: frozenset[Permission]
    roles: tuple[Role, ...] = ()
    user_id: int | None = None
    session_id: int | None = None
    token_id: int | None = None
    must_change_password: bool = False

    def may(self, permission: str) -> bool:
        """Return whether they may do it; templates ask by the permission's word."""
        return Permission(permission) in self.permissions and (
            not self.must_change_password or permission == Permission.OWN_ACCOUNT
        )


NOBODY = Caller("", Way.OPEN, frozenset())
"""Somebody who has not logged in."""


@dataclass(slots=True)
class Access:
    """What one request turned out to be; it travels with the request for the audit trail."""

    caller: Caller | None = None
    is_identified: bool = False
    permission: Permission | None = None
    kind: AuditKind | None = None
    type: str = ""
    study_instance_uid: str = ""
    studies: list[str] = field(default_factory=list)
    detail: str = ""
    is_refused: bool = False
    is_audited: bool = True
    is_background: bool = False


def access_of(connection: HTTPConnection) -> Access:
    """Return what is known of a request so far."""
    state = connection.scope.setdefault("state", {})
    access = state.setdefault("access", Access())
    assert isinstance(access, Access)
    return access


def note_studies(connection: HTTPConnection, studies: list[str]) -> None:
    """Say for the audit trail which studies the answer shows or the request changed.

    A study in the address is noted by itself.
    """
    access_of(connection).studies.extend(studies)


def context_of(connection: HTTPConnection) -> WebContext:
    """Return the context of the app that answers."""
    context = connection.app.state.context
    assert isinstance(context, WebContext)
    return context


def address_of(connection: HTTPConnection) -> str:
    """Return the network address that a request came from, "" where it has none."""
    return connection.client.host if connection.client else ""


def caller_of(connection: HTTPConnection) -> Caller | None:
    """Return who asks, None where nobody is logged in; looked up once for each request.

    Raises:
        HTTPException: 401, a token is no longer valid.
    """
    access = access_of(connection)
    if not access.is_identified:
        access.caller = _identify(connection)
        access.is_identified = True
    return access.caller


def is_open(settings: Settings) -> bool:
    """Return whether nobody logs in."""
    return settings.web.login.mode == "off"


def limits_of(login: LoginSettings) -> SessionLimits:
    """Return how long sessions last."""
    return SessionLimits(
        timedelta(minutes=login.idle_minutes), timedelta(hours=login.session_hours)
    )


def named_by_proxy(connection: HTTPConnection, header: str) -> str:
    """Return the name in the proxy's header, "" where it gives none."""
    name = "".join(c for c in connection.headers.get(header, "") if c.isprintable())
    return name.strip()[:_LONGEST_NAME]


def _identify(connection: HTTPConnection) -> Caller | None:
    context = context_of(connection)
    web = context.settings.web
    if web.login.mode == "off":
        name = f"reader at {address_of(connection) or 'an unknown computer'}"
        if web.user_header:
            name = named_by_proxy(connection, web.user_header)
        return Caller(name, Way.OPEN, ALL_PERMISSIONS, tuple(Role))
    secret = bearer_token(connection)
    if secret.startswith(PREFIX):
        return _with_token(context, secret)
    if web.login.mode == "proxy":
        return _behind_proxy(connection, context)
    return _with_cookie(connection, context)


def bearer_token(connection: HTTPConnection) -> str:
    """Return the token of an Authorization header (RFC 6750 2.1), "" where there is none."""
    scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _with_token(context: WebContext, secret: str) -> Caller:
    with context.database.reading() as session:
        token = find_token(session, secret, now=context.now())
    if token is None:
        raise HTTPException(
            401,
            "this token is not valid: it is over, was revoked, or its owner's account is disabled; "
            "make another at /account",
            headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
        )
    context.trail.note_token(token.id)
    return Caller(
        f"{token.owner.name} ({token.name})"[:_LONGEST_NAME],
        Way.TOKEN,
        token.permissions,
        user_id=token.owner.id,
        token_id=token.id,
    )


def _behind_proxy(connection: HTTPConnection, context: WebContext) -> Caller | None:
    web = context.settings.web
    name = named_by_proxy(connection, web.user_header)
    if not name:
        return None
    said = connection.headers.get(web.login.groups_header, "") if web.login.groups_header else ""
    roles = web.login.roles_of({group.strip() for group in said.split(",")})
    return Caller(name, Way.PROXY, permissions_of(roles), roles)


def _with_cookie(connection: HTTPConnection, context: WebContext) -> Caller | None:
    secret = connection.cookies.get(SESSION_COOKIE, "")
    login = context.settings.web.login
    if not secret:
        return None
    with context.database.reading() as session:
        found = find_session(session, secret, limits_of(login), now=context.now())
    # A session from before the mode was changed is none: its account is another's to judge.
    if found is None or found.user.origin != login.mode:
        return None
    user = found.user
    return Caller(
        user.name,
        Way.SESSION,
        user.permissions,
        user.roles,
        user_id=user.id,
        session_id=found.id,
        must_change_password=user.must_change_password,
    )


def as_program(connection: HTTPConnection, wanted: str, permission: Permission) -> Caller | None:
    """Return the program that has the configured Authorization header, None for everybody else."""
    given = connection.headers.get("authorization", "")
    if not wanted or not hmac.compare_digest(given.encode(), wanted.encode()):
        return None
    return Caller("a program with the configured header", Way.PROGRAM, frozenset({permission}))
