"""`triage users`: accounts, from the machine itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from triage.commands.console import out
from triage.commands.store import opened_store, this_user
from triage.core.audit import AuditEvent, AuditKind
from triage.core.permissions import SCOPES, Permission, Role
from triage.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from triage.store.users import User

_role_option = click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice([role.value for role in Role]),
    help="A role; give it again for each further one.",
)


@click.group()
def users() -> None:
    """Manage the accounts of Triage itself (web.login.mode = "local")."""


@contextmanager
def _changing(settings: Settings, what: str, name: str) -> Iterator[Session]:
    """Give a transaction that is in the audit trail too, in the name of the machine's user."""
    import uuid

    from triage.store.audit import write_events

    with opened_store(settings) as store, store.transaction() as session:
        yield session
        event = AuditEvent(
            uid=uuid.uuid4().hex,
            at=datetime.now(UTC),
            kind=AuditKind.SECURITY_ALERT,
            type=f"triage users {what}",
            action="U",
            who=this_user(),
            way="command",
            detail=name,
        )
        write_events(session, [event], tell=bool(settings.audit.host))


@users.command()
@click.argument("name")
@_role_option
@click.option(
    "--must-change/--keep",
    default=True,
    help="Whether the person has to choose another password at once.",
)
def add(name: str, roles: tuple[str, ...], *, must_change: bool) -> None:
    """Make the account NAME. The password is asked for, or read from standard input."""
    from triage.store.users import add_user

    settings = load_settings()
    password = _asked_password()
    with _changing(settings, "add", name) as session:
        user = add_user(
            session,
            name,
            [Role(role) for role in roles],
            password,
            minimum_length=settings.web.login.minimum_password_length,
            must_change_password=must_change,
            now=datetime.now(UTC),
        )
    out.print(f"added {user.name}: {_said(user)}", highlight=False, markup=False)


@users.command(name="list")
def list_users() -> None:
    """List all accounts."""
    from triage.store.users import users as all_users

    table = Table("name", "roles", "from", "state", "logged in")
    with opened_store(load_settings()) as store, store.reading() as session:
        for user in all_users(session):
            at = f"{user.logged_in_at:%Y-%m-%d %H:%M}" if user.logged_in_at else "never"
            state = "disabled" if user.is_disabled else "enabled"
            table.add_row(user.name, _said(user), user.origin, state, at)
    out.print(table)


@users.command()
@click.argument("name")
@_role_option
def roles(name: str, roles: tuple[str, ...]) -> None:
    """Give NAME these roles and no others."""
    from triage.store.users import set_roles

    wanted = [Role(role) for role in roles]
    _change("roles", name, lambda session, user: set_roles(session, user.id, wanted))
    out.print(f"{name}: {', '.join(roles) or 'no role'}", highlight=False, markup=False)


@users.command()
@click.argument("name")
def disable(name: str) -> None:
    """Keep NAME from logging in; sessions end, and tokens no longer work."""
    from triage.store.users import disable as disable_user

    _change("disable", name, lambda session, user: disable_user(session, user.id))
    out.print(f"{name} is disabled", highlight=False, markup=False)


@users.command()
@click.argument("name")
def enable(name: str) -> None:
    """Let NAME log in again."""
    from triage.store.users import enable as enable_user

    _change("enable", name, lambda session, user: enable_user(session, user.id))
    out.print(f"{name} is enabled", highlight=False, markup=False)


@users.command()
@click.argument("name")
def unlock(name: str) -> None:
    """Let NAME be tried again at once after too many failed attempts."""
    from triage.store.log_ins import forget_failures

    with _changing(load_settings(), "unlock", name) as session:
        gone = forget_failures(session, name)
    out.print(f"{name}: {gone} failed attempts are forgotten", highlight=False, markup=False)


@users.command()
@click.argument("name")
@click.option(
    "--must-change/--keep",
    default=True,
    help="Whether the person has to choose another password at once.",
)
def password(name: str, *, must_change: bool) -> None:
    """Give NAME a new password; its sessions end."""
    from triage.store.users import change_password

    settings = load_settings()
    new = _asked_password()

    def change(session: Session, user: User) -> None:
        change_password(
            session,
            user.id,
            new,
            minimum_length=settings.web.login.minimum_password_length,
            must_change_password=must_change,
        )

    _change("password", name, change)
    out.print(f"{name} has a new password", highlight=False, markup=False)


@users.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([scope.value for scope in SCOPES]),
    help="What it may do; give it again for each further one.",
)
@click.option("--for", "program", required=True, help="Which program it is for.")
@click.option("--days", type=click.IntRange(1), default=90, show_default=True, help="Its life.")
def token(name: str, scopes: tuple[str, ...], program: str, days: int) -> None:
    """Make a token of NAME for a program, and print it this once."""
    from triage.store.api_tokens import make_token
    from triage.store.users import local_user

    settings = load_settings()
    with _changing(settings, "token", name) as session:
        _, secret = make_token(
            session,
            local_user(session, name),
            program,
            [Permission(scope) for scope in scopes],
            lifetime=timedelta(days=days),
            longest=timedelta(days=settings.web.login.token_days),
            now=datetime.now(UTC),
        )
    click.echo(secret)


def _change(what: str, name: str, change: Callable[[Session, User], Any]) -> None:
    from triage.store.users import local_user

    with _changing(load_settings(), what, name) as session:
        change(session, local_user(session, name))


def _said(user: User) -> str:
    return ", ".join(user.roles) or "no role"


def _asked_password() -> str:
    # Never an argument: what is on a command line everybody on the machine can read.
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    return str(click.prompt("password", hide_input=True, confirmation_prompt=True))
