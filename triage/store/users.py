"""Accounts: who there is, which roles they have, and whether their password is right."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.core.permissions import Permission, Role, permissions_of
from triage.store.passwords import check_password, hash_password, is_password, needs_new_hash
from triage.store.user_tables import Origin, UserRow, WebSessionRow

_LONGEST_NAME = 128


class UserError(TriageError):
    """An account cannot be made or changed so; the message says why."""


class UnknownUserError(UserError):
    """There is no such account."""


@dataclass(frozen=True, slots=True)
class User:
    """An account as others see it; see `triage.store.user_tables.UserRow`."""

    id: int
    name: str
    origin: Origin
    roles: tuple[Role, ...]
    is_disabled: bool
    must_change_password: bool
    created_at: datetime
    logged_in_at: datetime | None

    @property
    def permissions(self) -> frozenset[Permission]:
        """What the person may do."""
        return permissions_of(self.roles)


def as_user(row: UserRow) -> User:
    """Return the account of a row; roles that this version does not know count for nothing."""
    known = {role.value for role in Role}
    return User(
        row.id,
        row.name,
        row.origin,
        tuple(Role(role) for role in row.roles if role in known),
        row.is_disabled,
        row.must_change_password,
        row.created_at,
        row.logged_in_at,
    )


def folded(name: str) -> str:
    """Return a name as local accounts are found by it.

    >>> folded(" Ada.Lovelace ")
    'ada.lovelace'
    """
    return unicodedata.normalize("NFKC", name).strip().casefold()


def users(session: Session) -> list[User]:
    """Return all accounts by name."""
    return [as_user(row) for row in session.scalars(select(UserRow).order_by(UserRow.name))]


def find_user(session: Session, user_id: int) -> User | None:
    """Return an account, or None."""
    row = session.get(UserRow, user_id)
    return as_user(row) if row is not None else None


def user_id_of(session: Session, origin: Origin, subject: str) -> int | None:
    """Return the number of an account, or None."""
    same = (UserRow.origin == origin) & (UserRow.subject == subject)
    return session.scalars(select(UserRow.id).where(same)).one_or_none()


def add_user(
    session: Session,
    name: str,
    roles: Iterable[Role],
    password: str,
    *,
    minimum_length: int,
    must_change_password: bool,
    now: datetime,
) -> User:
    """Make a local account.

    Raises:
        UserError: the name is not one, or is taken.
        PasswordError: the password is not good enough.
    """
    key = _checked_name(name)
    if _local(session, key) is not None:
        raise UserError(f"name: there is an account {key} already; choose another name")
    check_password(password, key, minimum_length=minimum_length)
    row = UserRow(
        origin=Origin.LOCAL,
        subject=key,
        name=key,
        password_hash=hash_password(password),
        must_change_password=must_change_password,
        roles=_words(roles),
        is_disabled=False,
        created_at=now,
    )
    session.add(row)
    session.flush()
    return as_user(row)


def _checked_name(name: str) -> str:
    key = folded(name)
    if not key or len(key) > _LONGEST_NAME or not key.isprintable() or " " in key:
        raise UserError(
            f"name: it needs 1 to {_LONGEST_NAME} characters without spaces, like ada.lovelace"
        )
    return key


def keep_user_from_outside(
    session: Session,
    origin: Origin,
    subject: str,
    name: str,
    roles: Iterable[Role],
    *,
    now: datetime,
) -> User:
    """Make or refresh the account of somebody whom a provider or proxy names."""
    same = (UserRow.origin == origin) & (UserRow.subject == subject)
    row = session.scalars(select(UserRow).where(same).with_for_update()).one_or_none()
    if row is None:
        row = UserRow(origin=origin, subject=subject, is_disabled=False, created_at=now)
        session.add(row)
    row.name, row.roles, row.logged_in_at = name[:_LONGEST_NAME], _words(roles), now
    session.flush()
    return as_user(row)


def user_with_password(session: Session, name: str, password: str) -> User | None:
    """Return the local account that has this name and password and may log in, or None.

    It takes the same time whether there is such an account or not.
    """
    row = _local(session, folded(name))
    is_right = is_password(row.password_hash if row else "", password)
    return as_user(row) if row is not None and is_right and not row.is_disabled else None


def has_account(session: Session, name: str) -> bool:
    """Return whether there is a local account of this name."""
    return _local(session, folded(name)) is not None


def note_log_in(session: Session, user_id: int, password: str, *, now: datetime) -> None:
    """Note that a person logged in; the hash is made anew where it is weaker than today's."""
    row = _row(session, user_id)
    row.logged_in_at = now
    if needs_new_hash(row.password_hash):
        row.password_hash = hash_password(password)


def change_password(
    session: Session,
    user_id: int,
    password: str,
    *,
    minimum_length: int,
    must_change_password: bool = False,
    keep_session: int | None = None,
) -> None:
    """Give a local account a new password, and end its sessions but `keep_session`.

    Raises:
        UnknownUserError: there is no such account.
        UserError: its password is not Triage's to change.
        PasswordError: the password is not good enough.
    """
    row = _row(session, user_id)
    if row.origin is not Origin.LOCAL:
        raise UserError(f"password: that of {row.name} is changed at the {row.origin} provider")
    check_password(password, row.name, minimum_length=minimum_length)
    row.password_hash = hash_password(password)
    row.must_change_password = must_change_password
    _end_sessions(session, user_id, keep_session)


def set_roles(session: Session, user_id: int, roles: Iterable[Role]) -> None:
    """Give an account these roles and no others; it holds from its next request on.

    Raises:
        UnknownUserError: there is no such account.
        UserError: its roles come from outside, or nobody would be left to manage accounts.
    """
    row = _row(session, user_id)
    if row.origin is not Origin.LOCAL:
        raise UserError(
            f"roles: those of {row.name} come from its groups; change these or web.login.groups"
        )
    row.roles = _words(roles)
    _require_administrator(session, row)


def disable(session: Session, user_id: int) -> None:
    """Keep an account from logging in, and end its sessions; its tokens no longer work.

    Raises:
        UnknownUserError: there is no such account.
        UserError: nobody would be left to manage accounts.
    """
    row = _row(session, user_id)
    row.is_disabled = True
    _require_administrator(session, row)
    _end_sessions(session, user_id, None)


def enable(session: Session, user_id: int) -> None:
    """Let an account log in again.

    Raises:
        UnknownUserError: there is no such account.
    """
    _row(session, user_id).is_disabled = False


def local_user(session: Session, name: str) -> User:
    """Return the local account of this name.

    Raises:
        UnknownUserError: there is none; the message names those that there are.
    """
    row = _local(session, folded(name))
    if row is None:
        names = session.scalars(select(UserRow.name).where(UserRow.origin == Origin.LOCAL))
        known = ", ".join(sorted(names)) or "none yet; add one with `triage users add`"
        raise UnknownUserError(f"there is no account {name!r} (known: {known})")
    return as_user(row)


def _require_administrator(session: Session, changed: UserRow) -> None:
    """Refuse a change after which nobody could manage accounts on the pages any more."""
    session.flush()
    rows: Sequence[UserRow] = session.scalars(
        select(UserRow).where(UserRow.origin == Origin.LOCAL, ~UserRow.is_disabled)
    ).all()
    if changed.origin is not Origin.LOCAL:
        return
    if not any(Permission.MANAGE_USERS in as_user(row).permissions for row in rows):
        raise UserError(
            f"{changed.name} is the last administrator; make somebody else administrator first"
        )


def _local(session: Session, key: str) -> UserRow | None:
    return session.scalars(
        select(UserRow).where(UserRow.origin == Origin.LOCAL, UserRow.subject == key)
    ).one_or_none()


def _row(session: Session, user_id: int) -> UserRow:
    row = session.get(UserRow, user_id, with_for_update=True)
    if row is None:
        raise UnknownUserError("there is no such account; look at /users for those that there are")
    return row


def _end_sessions(session: Session, user_id: int, keep: int | None) -> None:
    ended = delete(WebSessionRow).where(WebSessionRow.user_id == user_id)
    session.execute(ended if keep is None else ended.where(WebSessionRow.id != keep))


def _words(roles: Iterable[Role]) -> list[str]:
    return sorted({role.value for role in roles})
