"""Accounts, tokens and the audit trail, over the API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Literal

from triage.client import models
from triage.client.connection import Connection
from triage.client.operations import operation

Role = Literal["radiologist", "administrator", "ml-engineer", "auditor"]
AuditKind = Literal[
    "application",
    "authentication",
    "accessed",
    "transferred",
    "query",
    "export",
    "audit-log-used",
    "security-alert",
]


class PeopleOperations(Connection):
    """Who may do what, and who did what."""

    # One's own account

    @operation("GET", "/account")
    def account(self) -> models.AccountView:
        """Give who asks, what they may do, and their sessions and tokens."""

    @operation("PUT", "/account/password")
    def change_password(self, *, old: str, new: str) -> None:
        """Change the password; all other sessions end."""

    @operation("DELETE", "/account/sessions/{session_id}")
    def end_session(self, session_id: int) -> None:
        """End one of one's own sessions."""

    @operation("POST", "/account/tokens")
    def make_token(self, *, name: str, scopes: Sequence[str], days: int = 90) -> models.NewToken:
        """Make a token for a program; the answer is the only place that shows its secret."""

    @operation("DELETE", "/account/tokens/{token_id}")
    def revoke_token(self, token_id: int) -> None:
        """Revoke a token of one's own."""

    # Everybody's accounts and tokens

    @operation("GET", "/users")
    def users(self) -> list[models.UserView]:
        """Give all accounts by name."""

    @operation("POST", "/users")
    def add_user(self, *, name: str, password: str, roles: Sequence[Role] = ()) -> models.UserView:
        """Make an account of Triage itself; the password has to be changed at once."""

    @operation("PUT", "/users/{user_id}/roles")
    def set_roles(self, user_id: int, *, roles: Sequence[Role]) -> models.UserView:
        """Give an account these roles and no others."""

    @operation("PUT", "/users/{user_id}/password")
    def set_password(self, user_id: int, *, password: str) -> models.UserView:
        """Give an account a password that has to be changed at once; its sessions end."""

    @operation("POST", "/users/{user_id}/disable")
    def disable_user(self, user_id: int) -> models.UserView:
        """Keep an account from logging in; its sessions and tokens end."""

    @operation("POST", "/users/{user_id}/enable")
    def enable_user(self, user_id: int) -> models.UserView:
        """Let an account log in again, also where failed attempts locked it."""

    @operation("GET", "/tokens")
    def all_tokens(self) -> list[models.TokenView]:
        """Give everybody's tokens, without their secrets."""

    @operation("DELETE", "/tokens/{token_id}")
    def revoke_anybodys_token(self, token_id: int) -> None:
        """Revoke anybody's token."""

    # The audit trail

    @operation("GET", "/audit")
    def audit(
        self,
        *,
        who: str = "",
        study: str = "",
        kind: AuditKind | None = None,
        only_failed: bool = False,
        since: date | None = None,
        until: date | None = None,
        before: int | None = None,
    ) -> models.AuditPage:
        """Give entries of the audit trail, the newest first."""

    def every_audit_entry(
        self,
        *,
        who: str = "",
        study: str = "",
        kind: AuditKind | None = None,
        only_failed: bool = False,
        since: date | None = None,
        until: date | None = None,
    ) -> Iterator[models.AuditView]:
        """Give all of them, a page at a time."""
        before: int | None = None
        while True:
            page = self.audit(
                who=who,
                study=study,
                kind=kind,
                only_failed=only_failed,
                since=since,
                until=until,
                before=before,
            )
            yield from page.entries
            before = page.before
            if before is None:
                return

    @operation("GET", "/audit/export")
    def export_audit(
        self,
        *,
        who: str = "",
        study: str = "",
        kind: AuditKind | None = None,
        only_failed: bool = False,
        since: date | None = None,
        until: date | None = None,
        format: Literal["csv", "ndjson"] = "csv",  # noqa: A002 - the API's name
    ) -> bytes:
        """Give all entries that fit as a file: CSV (RFC 4180) or a JSON object in each line."""
