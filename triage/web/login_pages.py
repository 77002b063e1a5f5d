"""The pages to log in and out."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from triage.core.audit import Outcome
from triage.store.sessions import end_session
from triage.web import oidc
from triage.web.callers import Way, caller_of, context_of
from triage.web.context import Context
from triage.web.homes import home_of
from triage.web.log_in import (
    LogInError,
    clear_session_cookie,
    local_path,
    log_in_with_password,
    record_log_in,
    set_session_cookie,
)
from triage.web.rendering import templates
from triage.web.security import require_same_origin

log = structlog.get_logger(__name__)

# Whoever comes here is nobody yet, so these routes are the ones without a permission.
router = APIRouter(include_in_schema=False)

Next = Annotated[str, Query(alias="next", max_length=2000)]
NextInForm = Annotated[str, Form(alias="next", max_length=2000)]


@router.get("/login")
def log_in_page(request: Request, return_to: Next = "", *, left: bool = False) -> Response:
    """Show the form, or where else one logs in; who is logged in already goes on."""
    caller = caller_of(request)
    if caller is not None:
        return RedirectResponse(local_path(return_to) or home_of(caller), status_code=303)
    said = "You are logged out." if left else ""
    return _page(request, local_path(return_to), said=said, left=left)


@router.post("/login", dependencies=[Depends(require_same_origin)])
def log_in(
    request: Request,
    context: Context,
    name: Annotated[str, Form(max_length=256)] = "",
    password: Annotated[str, Form(max_length=1024)] = "",
    return_to: NextInForm = "",
) -> Response:
    """Log in with a password, and go to what was asked for."""
    if context.settings.web.login.mode != "local":
        return RedirectResponse("/login", status_code=303)
    try:
        user, secret = log_in_with_password(request, name, password)
    except LogInError as error:
        return _page(
            request, local_path(return_to), name=name, wrong=str(error), status=error.status
        )
    answer = RedirectResponse(local_path(return_to) or "/login", status_code=303)
    if user.must_change_password:
        answer = RedirectResponse("/account", status_code=303)
    set_session_cookie(request, answer, secret)
    return answer


@router.get("/login/oidc")
def begin_at_provider(request: Request, context: Context, return_to: Next = "") -> Response:
    """Send the browser to the provider (OpenID Connect Core 1.0, 3.1.2.1)."""
    if context.settings.web.login.mode != "oidc":
        return RedirectResponse("/login", status_code=303)
    try:
        address, secret = oidc.begin(request, local_path(return_to))
    except LogInError as error:
        return _page(request, local_path(return_to), wrong=str(error), status=error.status)
    answer = RedirectResponse(address, status_code=303)
    oidc.set_pending_cookie(request, answer, secret)
    return answer


@router.get("/login/callback")
def back_from_provider(
    request: Request,
    context: Context,
    code: Annotated[str, Query(max_length=4096)] = "",
    state: Annotated[str, Query(max_length=256)] = "",
    error: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    """Take what the provider says of the person (OpenID Connect Core 1.0, 3.1.2.5)."""
    if context.settings.web.login.mode != "oidc":
        return RedirectResponse("/login", status_code=303)
    try:
        secret, return_to = oidc.finish(request, code=code, state=state, error=error)
    except LogInError as refusal:
        log.warning("log-in refused", reason=str(refusal))
        answer = _page(request, "", wrong=str(refusal), status=refusal.status)
    else:
        answer = RedirectResponse(return_to or "/login", status_code=303)
        set_session_cookie(request, answer, secret)
    oidc.clear_pending_cookie(request, answer)
    return answer


@router.post("/logout", dependencies=[Depends(require_same_origin)])
def log_out(request: Request, context: Context) -> Response:
    """End the session of this browser."""
    caller = caller_of(request)
    if caller is not None and caller.way is Way.SESSION:
        assert caller.session_id is not None
        assert caller.user_id is not None
        with context.database.transaction() as session:
            end_session(session, caller.session_id, user_id=caller.user_id)
        record_log_in(request, caller.name, "log-out", Outcome.SUCCESS)
    answer = RedirectResponse("/login?left=true", status_code=303)
    clear_session_cookie(request, answer)
    return answer


def _page(
    request: Request,
    return_to: str,
    *,
    name: str = "",
    said: str = "",
    wrong: str = "",
    left: bool = False,
    status: int = 200,
) -> Response:
    login = context_of(request).settings.web.login
    at_provider = oidc.log_out_address(request) if left and login.mode == "oidc" else ""
    content = {
        "mode": login.mode,
        "return_to": return_to,
        "name": name,
        "said": said,
        "wrong": wrong,
        "at_provider": at_provider,
    }
    return templates.TemplateResponse(request, "login.html", content, status)
