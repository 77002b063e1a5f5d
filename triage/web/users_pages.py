"""Accounts, for the administrator: on a page and over the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Path, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.core.permissions import Permission, Role
from triage.store import api_tokens
from triage.store.log_ins import forget_failures
from triage.store.passwords import PasswordError
from triage.store.user_tables import Origin
from triage.store.users import (
    UnknownUserError,
    User,
    UserError,
    add_user,
    change_password,
    disable,
    enable,
    find_user,
    set_roles,
    users,
)
from triage.web.access import may
from triage.web.account import TokenView, token_view
from triage.web.context import Context, WebContext
from triage.web.refusals import Refusal, RefusedRequestError
from triage.web.rendering import templates
from triage.web.security import require_same_origin

_MANAGING = Depends(may(Permission.MANAGE_USERS))
_CHANGING = [_MANAGING, Depends(require_same_origin)]
router = APIRouter(tags=["users"], dependencies=[_MANAGING])

Number = Annotated[int, Path(ge=1, le=2**63 - 1)]
_REFUSED: dict[int | str, dict[str, Any]] = {
    404: {"model": Refusal, "description": "There is no such account or token."},
    422: {"model": Refusal, "description": "A field is wrong; `field` says which, and why."},
}


class UserView(BaseModel):
    """An account."""

    id: int
    name: str
    origin: Origin
    roles: list[Role]
    is_disabled: bool
    must_change_password: bool
    created_at: datetime
    logged_in_at: datetime | None


class NewUser(BaseModel):
    """An account that is to be made; the person has to change the password first."""

    name: Annotated[str, Field(max_length=256)]
    password: Annotated[str, Field(max_length=1024)]
    roles: list[Role] = []


class Roles(BaseModel):
    """All roles of an account."""

    roles: list[Role]


class NewPassword(BaseModel):
    """A password that the person has to change when they log in."""

    password: Annotated[str, Field(max_length=1024)]


@contextmanager
def _changing(context: WebContext) -> Iterator[Session]:
    """Give a transaction, and turn what accounts refuse into an answer."""
    try:
        with context.database.transaction() as session:
            yield session
    except UnknownUserError as error:
        raise HTTPException(404, str(error)) from error
    except (UserError, PasswordError) as error:
        raise RefusedRequestError(422, str(error), _field_of(error)) from error


def _field_of(error: TriageError) -> str:
    field, colon, _ = str(error).partition(":")
    return field if colon else ""


@router.get("/users", include_in_schema=False)
def users_page(request: Request, context: Context) -> Response:
    """Show all accounts, and what each may do."""
    return _page(request, context)


@router.get("/api/v1/users")
def list_users(context: Context) -> list[UserView]:
    """Give all accounts by name."""
    with context.database.reading() as session:
        return [_view(user) for user in users(session)]


@router.post("/api/v1/users", status_code=201, dependencies=_CHANGING, responses=_REFUSED)
def post_user(context: Context, new: NewUser) -> UserView:
    """Make an account of Triage itself."""
    return _view(_add(context, new))


@router.post("/users", include_in_schema=False, dependencies=_CHANGING)
def add_on_page(
    request: Request,
    context: Context,
    name: Annotated[str, Form(max_length=256)] = "",
    password: Annotated[str, Form(max_length=1024)] = "",
    roles: Annotated[list[Role] | None, Form()] = None,
) -> Response:
    """Make an account, and go back to the list."""
    try:
        _add(context, NewUser(name=name, password=password, roles=roles or []))
    except RefusedRequestError as error:
        return _page(request, context, wrong=str(error.detail), status=422)
    return RedirectResponse("/users", status_code=303)


def _add(context: WebContext, new: NewUser) -> User:
    with _changing(context) as session:
        return add_user(
            session,
            new.name,
            new.roles,
            new.password,
            minimum_length=context.settings.web.login.minimum_password_length,
            must_change_password=True,
            now=context.now(),
        )


@router.put("/api/v1/users/{user_id}/roles", dependencies=_CHANGING, responses=_REFUSED)
def put_roles(user_id: Number, context: Context, wanted: Roles) -> UserView:
    """Give an account these roles and no others."""
    with _changing(context) as session:
        set_roles(session, user_id, wanted.roles)
        return _found(session, user_id)


@router.put("/api/v1/users/{user_id}/password", dependencies=_CHANGING, responses=_REFUSED)
def put_password(user_id: Number, context: Context, new: NewPassword) -> UserView:
    """Give an account a password that has to be changed at once; its sessions end."""
    with _changing(context) as session:
        _set_password(session, context, user_id, new.password)
        return _found(session, user_id)


@router.post("/api/v1/users/{user_id}/disable", dependencies=_CHANGING, responses=_REFUSED)
def post_disable(user_id: Number, context: Context) -> UserView:
    """Keep an account from logging in; its sessions and tokens end."""
    with _changing(context) as session:
        disable(session, user_id)
        return _found(session, user_id)


@router.post("/api/v1/users/{user_id}/enable", dependencies=_CHANGING, responses=_REFUSED)
def post_enable(user_id: Number, context: Context) -> UserView:
    """Let an account log in again, also where failed attempts locked it."""
    with _changing(context) as session:
        _enable(session, user_id)
        return _found(session, user_id)


@router.post("/users/{user_id}/{change}", include_in_schema=False, dependencies=_CHANGING)
def change_on_page(  # noqa: PLR0917 - FastAPI fills them in by name
    request: Request,
    user_id: Number,
    change: str,
    context: Context,
    password: Annotated[str, Form(max_length=1024)] = "",
    roles: Annotated[list[Role] | None, Form()] = None,
) -> Response:
    """Do what a button of the list says, and go back to the list."""
    try:
        with _changing(context) as session:
            match change:
                case "roles":
                    set_roles(session, user_id, roles or [])
                case "password":
                    _set_password(session, context, user_id, password)
                case "disable":
                    disable(session, user_id)
                case "enable":
                    _enable(session, user_id)
                case _:
                    raise HTTPException(404, "There is no such change of an account.")
    except RefusedRequestError as error:
        return _page(request, context, wrong=str(error.detail), status=422)
    return RedirectResponse("/users", status_code=303)


def _set_password(session: Session, context: WebContext, user_id: int, password: str) -> None:
    change_password(
        session,
        user_id,
        password,
        minimum_length=context.settings.web.login.minimum_password_length,
        must_change_password=True,
    )


def _enable(session: Session, user_id: int) -> None:
    enable(session, user_id)
    user = find_user(session, user_id)
    if user is not None:
        forget_failures(session, user.name)


@router.get("/api/v1/tokens")
def all_tokens(context: Context) -> list[TokenView]:
    """Give everybody's tokens, without their secrets."""
    with context.database.reading() as session:
        return [token_view(one) for one in api_tokens.tokens(session)]


@router.delete(
    "/api/v1/tokens/{token_id}", status_code=204, dependencies=_CHANGING, responses=_REFUSED
)
def delete_token(token_id: Number, context: Context) -> None:
    """Revoke anybody's token."""
    _revoke(context, token_id)


@router.post("/tokens/{token_id}/revoke", include_in_schema=False, dependencies=_CHANGING)
def revoke_on_page(token_id: Number, context: Context) -> Response:
    """Revoke anybody's token, and go back to the list."""
    _revoke(context, token_id)
    return RedirectResponse("/users", status_code=303)


def _revoke(context: WebContext, token_id: int) -> None:
    with context.database.transaction() as session:
        is_revoked = api_tokens.revoke_token(session, token_id, now=context.now())
    if not is_revoked:
        raise HTTPException(404, "There is no such token that is still valid.")


def _found(session: Session, user_id: int) -> UserView:
    user = find_user(session, user_id)
    assert user is not None  # it was just changed
    return _view(user)


def _view(user: User) -> UserView:
    return UserView(
        id=user.id,
        name=user.name,
        origin=user.origin,
        roles=list(user.roles),
        is_disabled=user.is_disabled,
        must_change_password=user.must_change_password,
        created_at=user.created_at,
        logged_in_at=user.logged_in_at,
    )


def _page(request: Request, context: WebContext, *, wrong: str = "", status: int = 200) -> Response:
    with context.database.reading() as session:
        content = {
            "users": users(session),
            "tokens": [one for one in api_tokens.tokens(session) if one.revoked_at is None],
            "roles": list(Role),
            "mode": context.settings.web.login.mode,
            "minimum_length": context.settings.web.login.minimum_password_length,
            "wrong": wrong,
            "now": context.now(),
        }
    return templates.TemplateResponse(request, "users.html", content, status)
