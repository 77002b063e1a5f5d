"""Logging in with a password: who may, who is locked out, and the session that begins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from triage.core.audit import AuditEvent, AuditKind, Outcome
from triage.core.errors import TriageError
from triage.settings import LoginSettings
from triage.store.log_ins import LockRules, forget_failures, locked_until, record_failure
from triage.store.sessions import begin_session
from triage.store.users import User, folded, has_account, note_log_in, user_with_password
from triage.web.callers import SESSION_COOKIE, address_of, context_of, limits_of
from triage.web.context import WebContext
from triage.web.trail import new_uid


@dataclass
class LogInError(TriageError):
    """Somebody cannot log in; `status` is that of HTTP."""

    status: int
    detail: str

    def __str__(self) -> str:
        return self.detail


def rules_of(login: LoginSettings) -> LockRules:
    """Return when somebody is locked out."""
    return LockRules(login.failures_before_lock, timedelta(minutes=login.lock_minutes))


def log_in_with_password(request: Request, name: str, password: str) -> tuple[User, str]:
    """Return the person and the secret of their new session.

    The attempt counts as failed before the password is looked at, so that many at once are counted
    as well. The password is looked at outside of a transaction: it takes a tenth of a second.

    Raises:
        LogInError: 429 where they are locked out, 401 where name or password are wrong.
    """
    context = context_of(request)
    _count_attempt(context, name, address_of(request))
    with context.database.reading() as session:
        user = user_with_password(session, name, password)
        is_known = user is not None or has_account(session, name)
    if user is None:
        # What is no account's name may be a password in the wrong field.
        said = folded(name) if is_known else "an unknown name"
        record_log_in(request, said, "log-in", Outcome.MINOR_FAILURE)
        raise LogInError(
            401, "Name or password is wrong. Names are as the administrator gave them."
        )
    with context.database.transaction() as session:
        forget_failures(session, name, address_of(request))
        note_log_in(session, user.id, password, now=context.now())
    return user, begin(request, user)


def _count_attempt(context: WebContext, name: str, address: str) -> None:
    rules, now = rules_of(context.settings.web.login), context.now()
    with context.database.transaction() as session:
        until = locked_until(session, name, address, rules, now=now)
        if until is None:
            record_failure(session, name, address, rules, now=now)
            return
    minutes = _minutes_until(until, now)
    context.trail.record(
        AuditEvent(
            uid=new_uid(),
            at=now,
            kind=AuditKind.SECURITY_ALERT,
            type="locked-out",
            action="E",
            outcome=Outcome.MINOR_FAILURE,
            address=address,
        )
    )
    raise LogInError(
        429,
        f"Too many attempts failed. Try again in {minutes} min, or ask an administrator to unlock "
        "the name (`triage users unlock NAME`).",
    )


def _minutes_until(until: datetime, now: datetime) -> int:
    return max(1, -(-int((until - now).total_seconds()) // 60))


def begin(request: Request, user: User) -> str:
    """Begin a session and return its secret; that of before, if there was one, is left alone."""
    context = context_of(request)
    with context.database.transaction() as session:
        secret = begin_session(
            session,
            user,
            limits_of(context.settings.web.login),
            address=address_of(request),
            browser=request.headers.get("user-agent", ""),
            now=context.now(),
        )
    record_log_in(request, user.name, "log-in", Outcome.SUCCESS)
    return secret


def record_log_in(request: Request, name: str, what: str, outcome: Outcome) -> None:
    """Record `User Authentication` (DICOM PS3.15 A.5.3.12)."""
    context = context_of(request)
    context.trail.record(
        AuditEvent(
            uid=new_uid(),
            at=context.now(),
            kind=AuditKind.AUTHENTICATION,
            type=what,
            action="E",
            outcome=outcome,
            who=name,
            way="session",
            address=address_of(request),
        )
    )


def set_session_cookie(request: Request, response: Response, secret: str) -> None:
    """Hand the browser its session, for as long as it is open."""
    login = context_of(request).settings.web.login
    response.set_cookie(
        SESSION_COOKIE,
        secret,
        httponly=True,
        # Not strict: a link in a message of the hospital's other systems opens the study.
        samesite="lax",
        secure=is_secure(request),
        domain=login.cookie_domain or None,
    )


def clear_session_cookie(request: Request, response: Response) -> None:
    """Take the session from the browser."""
    login = context_of(request).settings.web.login
    response.delete_cookie(
        SESSION_COOKIE,
        httponly=True,
        samesite="lax",
        secure=is_secure(request),
        domain=login.cookie_domain or None,
    )


def is_secure(connection: HTTPConnection) -> bool:
    """Return whether browsers come by https, as far as the settings or the request say."""
    web = context_of(connection).settings.web
    if web.login.secure_cookies != "auto":
        return web.login.secure_cookies == "always"
    return connection.url.scheme in ("https", "wss") or web.public_url.startswith("https://")


def local_path(address: str) -> str:
    """Return an address if it is one of our own pages, "" if a browser might leave us by it.

    >>> local_path("/studies/1.2.3?tab=2"), local_path("//evil.example"), local_path("/\\\\evil")
    ('/studies/1.2.3?tab=2', '', '')
    """
    is_path = address.startswith("/") and not address.startswith(("//", "/\\"))
    is_plain = address.isascii() and address.isprintable() and "\\" not in address
    if not is_path or not is_plain:
        return ""
    parts = urlsplit(address)
    return "" if parts.scheme or parts.netloc else address
