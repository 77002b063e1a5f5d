"""One's own account: sessions, password and tokens, on a page and over the API."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Path, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from triage.core.permissions import SCOPES, Permission, Role
from triage.settings import LoginSettings
from triage.store import api_tokens
from triage.store.api_tokens import ApiToken, TokenError, make_token, revoke_token
from triage.store.passwords import PasswordError
from triage.store.sessions import WebSession, end_session, sessions_of
from triage.store.user_tables import Origin
from triage.store.users import (
    User,
    UserError,
    change_password,
    find_user,
    keep_user_from_outside,
    user_id_of,
    user_with_password,
)
from triage.web.access import may
from triage.web.callers import Caller, Way, caller_of, limits_of
from triage.web.context import Context, WebContext
from triage.web.refusals import Refusal, RefusedRequestError
from triage.web.rendering import templates
from triage.web.security import require_same_origin

_OWN = Depends(may(Permission.OWN_ACCOUNT))
_CHANGING = [_OWN, Depends(require_same_origin)]
router = APIRouter(tags=["account"], dependencies=[_OWN])

Number = Annotated[int, Path(ge=1, le=2**63 - 1)]
Days = Annotated[int, Field(ge=1, le=36500)]
_REFUSED: dict[int | str, dict[str, Any]] = {
    404: {"model": Refusal, "description": "There is no such session or token of yours."},
    409: {"model": Refusal, "description": "Nobody logs in here, so there are no accounts."},
    422: {"model": Refusal, "description": "A field is wrong; `field` says which, and why."},
}


class SessionView(BaseModel):
    """A browser that is logged in."""

    id: int
    is_this: bool
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    address: str
    browser: str


class TokenView(BaseModel):
    """A token, without its secret."""

    id: int
    name: str
    owner: str
    scopes: list[Permission]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewToken(TokenView):
    """A token that was just made; the secret is shown this once."""

    secret: str


class AccountView(BaseModel):
    """Who asks, and what they may do."""

    name: str
    way: Way
    roles: list[Role]
    permissions: list[Permission]
    must_change_password: bool
    sessions: list[SessionView]
    tokens: list[TokenView]


class PasswordChange(BaseModel):
    """The old password and the new one."""

    old: Annotated[str, Field(max_length=1024)]
    new: Annotated[str, Field(max_length=1024)]


class WantedToken(BaseModel):
    """Which token is wanted: for which program, what it may do, and for how long."""

    name: Annotated[str, Field(min_length=1, max_length=api_tokens.LONGEST_NAME)]
    scopes: Annotated[list[Permission], Field(min_length=1)]
    days: Annotated[Days, Field(strict=True)] = 90


@router.get("/account", include_in_schema=False)
def account_page(request: Request, context: Context) -> Response:
    """Show who is logged in, where else, and which tokens they have."""
    return _page(request, context)


@router.get("/api/v1/account")
def account(request: Request, context: Context) -> AccountView:
    """Give who asks, what they may do, and their sessions and tokens."""
    return _view(request, context)


@router.post("/account/password", include_in_schema=False, dependencies=_CHANGING)
def change_password_on_page(
    request: Request,
    context: Context,
    old: Annotated[str, Form(max_length=1024)] = "",
    new: Annotated[str, Form(max_length=1024)] = "",
    again: Annotated[str, Form(max_length=1024)] = "",
) -> Response:
    """Change the password; all other sessions end."""
    if new != again:
        wrong = "The two new passwords differ; write the same twice."
        return _page(request, context, wrong=wrong, status=422)
    try:
        _change_password(request, context, PasswordChange(old=old, new=new))
    except RefusedRequestError as error:
        return _page(request, context, wrong=str(error.detail), status=error.status_code)
    return RedirectResponse("/account?changed=true", status_code=303)


@router.put("/api/v1/account/password", status_code=204, dependencies=_CHANGING, responses=_REFUSED)
def put_password(request: Request, context: Context, change: PasswordChange) -> None:
    """Change the password; all other sessions end."""
    _change_password(request, context, change)


def _change_password(request: Request, context: WebContext, change: PasswordChange) -> None:
    caller = _caller(request)
    if caller.way is not Way.SESSION or caller.user_id is None:
        raise RefusedRequestError(409, "password: you logged in elsewhere; change it there", "old")
    with context.database.reading() as session:
        is_right = user_with_password(session, caller.name, change.old) is not None
    if not is_right:
        raise RefusedRequestError(422, "old: this is not your password", "old")
    try:
        with context.database.transaction() as session:
            change_password(
                session,
                caller.user_id,
                change.new,
                minimum_length=context.settings.web.login.minimum_password_length,
                keep_session=caller.session_id,
            )
    except (PasswordError, UserError) as error:
        raise RefusedRequestError(422, str(error), "new") from error


@router.post("/account/sessions/{session_id}/end", include_in_schema=False, dependencies=_CHANGING)
def end_session_on_page(request: Request, session_id: Number, context: Context) -> Response:
    """Log out another browser of one's own."""
    _end_session(request, context, session_id)
    return RedirectResponse("/account", status_code=303)


@router.delete(
    "/api/v1/account/sessions/{session_id}",
    status_code=204,
    dependencies=_CHANGING,
    responses=_REFUSED,
)
def delete_session(request: Request, session_id: Number, context: Context) -> None:
    """End one of one's own sessions."""
    _end_session(request, context, session_id)


def _end_session(request: Request, context: WebContext, session_id: int) -> None:
    caller = _caller(request)
    with context.database.transaction() as session:
        is_ended = caller.user_id is not None and end_session(
            session, session_id, user_id=caller.user_id
        )
    if not is_ended:
        raise HTTPException(404, "You have no such session; look at /account for those you have.")


@router.post("/account/tokens", include_in_schema=False, dependencies=_CHANGING)
def make_token_on_page(
    request: Request,
    context: Context,
    name: Annotated[str, Form(max_length=1024)] = "",
    days: Annotated[int, Form()] = 90,
    scopes: Annotated[list[Permission] | None, Form()] = None,
) -> Response:
    """Make a token, and show its secret this once."""
    try:
        made = _make_token(request, context, name, scopes or [], days)
    except RefusedRequestError as error:
        return _page(request, context, wrong=str(error.detail), status=error.status_code)
    return _page(request, context, made=made)


@router.post("/api/v1/account/tokens", status_code=201, dependencies=_CHANGING, responses=_REFUSED)
def post_token(request: Request, context: Context, wanted: WantedToken) -> NewToken:
    """Make a token for a program; the answer is the only place that shows its secret."""
    return _make_token(request, context, wanted.name, wanted.scopes, wanted.days)


def _make_token(
    request: Request, context: WebContext, name: str, scopes: list[Permission], days: int
) -> NewToken:
    caller = _caller(request)
    try:
        with context.database.transaction() as session:
            made, secret = make_token(
                session,
                _owner(session, caller, context),
                name,
                scopes,
                lifetime=timedelta(days=min(days, 36500)),
                longest=timedelta(days=context.settings.web.login.token_days),
                now=context.now(),
            )
    except TokenError as error:
        raise RefusedRequestError(422, str(error), str(error).partition(":")[0]) from error
    return NewToken(**token_view(made).model_dump(), secret=secret)


def _owner(session: Session, caller: Caller, context: WebContext) -> User:
    """Return the account of who asks; whom the proxy names has one from now on."""
    if caller.way is Way.PROXY:
        return keep_user_from_outside(
            session, Origin.PROXY, caller.name, caller.name, caller.roles, now=context.now()
        )
    user = find_user(session, caller.user_id) if caller.user_id is not None else None
    if user is None:
        raise RefusedRequestError(
            409, "nobody logs in here, so no token is needed; set web.login.mode first", ""
        )
    return user


@router.post("/account/tokens/{token_id}/revoke", include_in_schema=False, dependencies=_CHANGING)
def revoke_on_page(request: Request, token_id: Number, context: Context) -> Response:
    """Revoke a token of one's own."""
    _revoke(request, context, token_id)
    return RedirectResponse("/account", status_code=303)


@router.delete(
    "/api/v1/account/tokens/{token_id}",
    status_code=204,
    dependencies=_CHANGING,
    responses=_REFUSED,
)
def delete_token(request: Request, token_id: Number, context: Context) -> None:
    """Revoke a token of one's own."""
    _revoke(request, context, token_id)


def _revoke(request: Request, context: WebContext, token_id: int) -> None:
    caller = _caller(request)
    with context.database.transaction() as session:
        user_id = _user_id(session, caller)
        is_revoked = user_id is not None and revoke_token(
            session, token_id, user_id=user_id, now=context.now()
        )
    if not is_revoked:
        raise HTTPException(404, "You have no such token; look at /account for those you have.")


def _user_id(session: Session, caller: Caller) -> int | None:
    if caller.way is not Way.PROXY:
        return caller.user_id
    return user_id_of(session, Origin.PROXY, caller.name)


def _caller(request: Request) -> Caller:
    caller = caller_of(request)
    assert caller is not None  # the permission of the route saw to it
    return caller


def _view(request: Request, context: WebContext) -> AccountView:
    caller = _caller(request)
    login: LoginSettings = context.settings.web.login
    with context.database.reading() as session:
        user_id = _user_id(session, caller)
        own = api_tokens.tokens(session, user_id=user_id) if user_id is not None else []
        sessions = (
            sessions_of(session, user_id, limits_of(login), now=context.now())
            if user_id is not None
            else []
        )
    return AccountView(
        name=caller.name,
        way=caller.way,
        roles=list(caller.roles),
        permissions=sorted(caller.permissions),
        must_change_password=caller.must_change_password,
        sessions=[_session(one, caller) for one in sessions],
        tokens=[token_view(one) for one in own],
    )


def _session(one: WebSession, caller: Caller) -> SessionView:
    return SessionView(
        id=one.id,
        is_this=one.id == caller.session_id,
        created_at=one.created_at,
        last_seen_at=one.last_seen_at,
        expires_at=one.expires_at,
        address=one.address,
        browser=one.browser,
    )


def token_view(one: ApiToken) -> TokenView:
    """Return a token as the API shows it."""
    return TokenView(
        id=one.id,
        name=one.name,
        owner=one.owner.name,
        scopes=sorted(one.scopes),
        created_at=one.created_at,
        expires_at=one.expires_at,
        last_used_at=one.last_used_at,
        revoked_at=one.revoked_at,
    )


def _page(
    request: Request,
    context: WebContext,
    *,
    wrong: str = "",
    made: NewToken | None = None,
    status: int = 200,
) -> Response:
    caller = _caller(request)
    login = context.settings.web.login
    content = {
        "account": _view(request, context),
        "may_change_password": caller.way is Way.SESSION and login.mode == "local",
        "may_make_tokens": caller.way in (Way.SESSION, Way.PROXY),
        "scopes": [scope for scope in SCOPES if scope in caller.permissions],
        "minimum_length": login.minimum_password_length,
        "longest_days": login.token_days,
        "wrong": wrong,
        "made": made,
        "changed": "changed" in request.query_params,
        "now": context.now(),
    }
    return templates.TemplateResponse(request, "account.html", content, status)
