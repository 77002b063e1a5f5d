"""The tables of who may do what: accounts, sessions, tokens and attempts to log in."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from triage.store.base import Key, Table, state_of


class Origin(StrEnum):
    """Who says that somebody is who they are."""

    LOCAL = "local"
    OIDC = "oidc"
    PROXY = "proxy"


class UserRow(Table):
    """An account.

    `subject` is what the provider calls the person, who may change their name there; for the other
    origins it is the name. `name` is folded to lower case for local accounts. `password_hash` is
    Argon2id's encoded form, empty where Triage does not check the password.
    """

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("origin", "subject"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    origin: Mapped[Origin] = mapped_column(state_of(Origin))
    subject: Mapped[str] = mapped_column(String(512))
    name: Mapped[str] = mapped_column(String(128), index=True)
    password_hash: Mapped[str] = mapped_column(Text, default="")
    must_change_password: Mapped[bool] = mapped_column(default=False)
    roles: Mapped[list[Any]]
    is_disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    logged_in_at: Mapped[datetime | None] = mapped_column(default=None)


class WebSessionRow(Table):
    """A browser that is logged in; the secret in its cookie is kept as its digest only."""

    __tablename__ = "web_sessions"
    __table_args__ = (UniqueConstraint("secret_sha256"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    secret_sha256: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    address: Mapped[str] = mapped_column(String(64))
    browser: Mapped[str] = mapped_column(String(256))

    user: Mapped[UserRow] = relationship()


class ApiTokenRow(Table):
    """A token of a program; it is shown once, and kept as its digest only."""

    __tablename__ = "api_tokens"
    __table_args__ = (UniqueConstraint("secret_sha256"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    secret_sha256: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(128))
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None] = mapped_column(default=None)
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)

    user: Mapped[UserRow] = relationship()


class LogInFailureRow(Table):
    """An attempt to log in that failed, with the name that was given, whether it exists or not."""

    __tablename__ = "log_in_failures"
    __table_args__ = (
        Index("ix_log_in_failures_name_at", "name", "at"),
        Index("ix_log_in_failures_address_at", "address", "at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    address: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]


class PendingLogInRow(Table):
    """A browser that was sent to the provider and is to come back (OpenID Connect Core 3.1.2).

    The secret in its cookie, kept as its digest, binds the answer to the browser that asked.
    """

    __tablename__ = "pending_log_ins"

    secret_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(128))
    nonce: Mapped[str] = mapped_column(String(128))
    code_verifier: Mapped[str] = mapped_column(String(128))
    return_to: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(index=True)
