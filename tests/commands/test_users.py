"""`triage users`, as an administrator calls it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.tools import ManualClock
from triage.cli import main
from triage.core.permissions import Permission, Role
from triage.store.api_tokens import find_token
from triage.store.audit import AuditFilter, audit_entries
from triage.store.clock import system_clock
from triage.store.database import Database
from triage.store.log_ins import LockRules, record_failure
from triage.store.users import local_user, user_with_password

PASSWORD = "correct horse battery"


@pytest.fixture
def installation(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Database:
    """An installation without accounts."""
    config = tmp_path / "triage.toml"
    config.write_text(f'[database]\nurl = "{sqlite_database.url}"\n')
    monkeypatch.setenv("TRIAGE_CONFIG", str(config))
    monkeypatch.setenv("TRIAGE_DATA_DIRECTORY", str(tmp_path / "data"))
    return sqlite_database


def triage(*arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(main, ["users", *arguments], input=typed)


def test_account_from_the_first_to_the_last(installation: Database) -> None:
    added = triage("add", "Ada", "--role", "radiologist", typed=f"{PASSWORD}\n")
    assert added.exit_code == 0, added.output
    with installation.reading() as session:
        ada = local_user(session, "ada")
        assert (ada.roles, ada.must_change_password) == ((Role.RADIOLOGIST,), True)
        assert user_with_password(session, "ada", PASSWORD) is not None
    assert "radiologist" in triage("list").output
    triage("roles", "ada", "--role", "administrator", "--role", "auditor")
    other = "another horse battery"
    assert triage("password", "ada", "--keep", typed=f"{other}\n").exit_code == 0
    with installation.reading() as session:
        ada = local_user(session, "ada")
        assert ada.roles == (Role.ADMINISTRATOR, Role.AUDITOR)
        assert user_with_password(session, "ada", other) is not None
    last = triage("disable", "ada")
    assert last.exit_code == 1
    assert "last administrator" in last.output
    triage("add", "boss", "--role", "administrator", typed=f"{PASSWORD}\n")
    assert triage("disable", "ada").exit_code == 0
    with installation.reading() as session:
        assert user_with_password(session, "ada", other) is None
    assert triage("enable", "ada").exit_code == 0
    with installation.reading() as session:
        said = [entry.event.type for entry in audit_entries(session, AuditFilter())]
    assert said == [
        f"triage users {what}" for what in ("enable", "disable", "add", "password", "roles", "add")
    ]


def test_what_is_wrong_is_said(installation: Database) -> None:
    del installation
    assert "at least 12 characters" in triage("add", "ada", typed="short\n").output
    unknown = triage("enable", "ada")
    assert unknown.exit_code == 1
    assert "triage users add" in unknown.output


def test_token_is_printed_once_and_works(installation: Database) -> None:
    triage("add", "viewer", "--role", "radiologist", typed=f"{PASSWORD}\n")
    made = triage("token", "viewer", "--for", "the ward", "--scope", "see-patients")
    with installation.reading() as session:
        token = find_token(session, made.output.strip(), now=system_clock())
    assert token is not None
    assert token.permissions == {Permission.SEE_PATIENTS}
    too_much = triage("token", "viewer", "--for", "the ward", "--scope", "manage-users")
    assert "viewer may not manage-users" in too_much.output


def test_lock_ends_when_the_administrator_says_so(
    installation: Database, clock: ManualClock
) -> None:
    rules = LockRules(2, timedelta(days=1))
    with installation.transaction() as session:
        for _ in range(2):
            record_failure(session, "ada", "10.0.0.1", rules, now=clock())
    assert "2 failed attempts are forgotten" in triage("unlock", "Ada").output
