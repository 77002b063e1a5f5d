"""Where somebody begins, and which pages they see in the bar."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from triage.core.permissions import Permission
from triage.settings import Settings
from triage.web.callers import NOBODY, Caller, Way, caller_of, context_of, is_open
from triage.web.loopback import is_for_this_machine_only

_HOMES = (
    (Permission.SEE_PATIENTS, "/"),
    (Permission.SEE_MODELS, "/models"),
    (Permission.SEE_OPERATIONS, "/status"),
    (Permission.READ_AUDIT, "/audit"),
)


def home_of(caller: Caller) -> str:
    """Return the first page that somebody may open."""
    return next((page for permission, page in _HOMES if caller.may(permission)), "/account")


def visitor(request: Request) -> dict[str, Any]:
    """Return what every template knows of who looks at it."""
    try:
        caller = caller_of(request) or NOBODY
    except (SQLAlchemyError, HTTPException):
        caller = NOBODY  # the page that says so needs nobody
    settings = context_of(request).settings
    return {
        "visitor": caller,
        "home": home_of(caller),
        "has_session": caller.way is Way.SESSION,
        "is_open": is_open(settings),
        "open_to_others": _is_open_to_others(settings),
    }


def _is_open_to_others(settings: Settings) -> bool:
    is_protected = not is_open(settings) or bool(settings.web.user_header)
    return not is_protected and not is_for_this_machine_only(settings.web)
