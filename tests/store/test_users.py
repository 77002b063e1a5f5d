"""Accounts, sessions, tokens and the audit trail, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.profiles import RFC_9106_LOW_MEMORY

from tests.tools import ManualClock
from triage.core.audit import AuditEvent, AuditKind, Outcome
from triage.core.permissions import Permission, Role
from triage.store.api_tokens import find_token, make_token, note_use, tokens
from triage.store.audit import (
    AuditFilter,
    all_entries,
    audit_entries,
    mark_sent,
    waiting_entries,
    write_events,
)
from triage.store.database import Database
from triage.store.log_ins import (
    LockRules,
    PendingLogIn,
    keep_pending,
    locked_until,
    record_failure,
    take_pending,
)
from triage.store.passwords import (
    PARAMETERS,
    hash_of_nobody,
    hash_password,
    is_password,
    needs_new_hash,
)
from triage.store.sessions import (
    SessionLimits,
    begin_session,
    end_session,
    find_session,
    keep_alive,
    sessions_of,
)
from triage.store.user_tables import Origin
from triage.store.users import (
    User,
    UserError,
    add_user,
    keep_user_from_outside,
    users,
)

# Not the hash of the tests, which costs as little as it can.
HASHER = "triage.store.passwords._HASHER"
PASSWORD = "correct horse battery"
LIMITS = SessionLimits(timedelta(minutes=30), timedelta(hours=12))
RULES = LockRules(2, timedelta(minutes=15))


def add(database: Database, name: str, *roles: Role) -> User:
    with database.transaction() as session:
        return add_user(
            session,
            name,
            roles,
            PASSWORD,
            minimum_length=12,
            must_change_password=False,
            now=ManualClock()(),
        )


def test_accounts_of_one_name_are_one(database: Database, clock: ManualClock) -> None:
    add(database, "Ada", Role.RADIOLOGIST)
    with pytest.raises(UserError, match="choose another name"):
        add(database, "ADA")
    for roles in ((Role.AUDITOR,), (Role.RADIOLOGIST,)):
        with database.transaction() as session:
            keep_user_from_outside(session, Origin.OIDC, "iss 1", "ada", roles, now=clock())
    with database.reading() as session:
        found = [(user.name, user.origin, user.roles) for user in users(session)]
    assert sorted(found) == [
        ("ada", Origin.LOCAL, (Role.RADIOLOGIST,)),
        ("ada", Origin.OIDC, (Role.RADIOLOGIST,)),
    ]


def test_sessions_last_as_long_as_they_may(database: Database, clock: ManualClock) -> None:
    ada, eve = add(database, "ada", Role.RADIOLOGIST), add(database, "eve")
    with database.transaction() as session:
        secret = begin_session(
            session, ada, LIMITS, address="10.0.0.1", browser="x" * 999, now=clock()
        )
    with database.transaction() as session:
        found = find_session(session, secret, LIMITS, now=clock())
        assert found is not None
        assert found.user.name == "ada"
        assert find_session(session, "guess", LIMITS, now=clock()) is None
        clock.advance(1700)
        keep_alive(session, [found.id], now=clock())
    clock.advance(1700)
    with database.transaction() as session:
        assert find_session(session, secret, LIMITS, now=clock()) is not None
        assert len(sessions_of(session, ada.id, LIMITS, now=clock())) == 1
        assert not end_session(session, found.id, user_id=eve.id)
        assert end_session(session, found.id, user_id=ada.id)
        assert find_session(session, secret, LIMITS, now=clock()) is None


def test_tokens_do_what_scope_and_owner_allow(database: Database, clock: ManualClock) -> None:
    ada = add(database, "ada", Role.RADIOLOGIST)
    with database.transaction() as session:
        made, secret = make_token(
            session,
            ada,
            "viewer",
            [Permission.SEE_PATIENTS],
            lifetime=timedelta(days=1),
            longest=timedelta(days=365),
            now=clock(),
        )
        note_use(session, [made.id], now=clock())
    with database.reading() as session:
        found = find_token(session, secret, now=clock())
        assert found is not None
        assert found.permissions == {Permission.SEE_PATIENTS}
        assert [token.last_used_at for token in tokens(session)] == [clock()]
        assert find_token(session, secret, now=clock() + timedelta(days=1)) is None


def test_lock_is_of_name_and_address_first(database: Database, clock: ManualClock) -> None:
    def until(name: str, address: str) -> object:
        with database.reading() as session:
            return locked_until(session, name, address, RULES, now=clock())

    for _ in range(2):
        with database.transaction() as session:
            record_failure(session, "Ada", "10.0.0.1", RULES, now=clock())
    assert until("ada", "10.0.0.1") == clock() + RULES.duration
    assert until("ada", "10.0.0.2") is None
    assert until("bob", "10.0.0.1") is None
    for number in range(18):
        with database.transaction() as session:
            record_failure(session, "ada", f"10.0.1.{number}", RULES, now=clock())
    assert until("ada", "10.0.0.2") is not None
    clock.advance(15 * 60)
    assert until("ada", "10.0.0.1") is None


def test_log_in_at_a_provider_is_finished_once(database: Database, clock: ManualClock) -> None:
    pending = PendingLogIn("state", "nonce", "verifier", "/studies/1.2.3")
    with database.transaction() as session:
        keep_pending(session, "0" * 64, pending, until=clock() + timedelta(minutes=10), now=clock())
    for expected in (pending, None):
        with database.transaction() as session:
            assert take_pending(session, "0" * 64, now=clock()) == expected


def test_trail_is_filtered_and_told_in_its_order(database: Database, clock: ManualClock) -> None:
    events = [
        AuditEvent(
            uid=f"{number:032d}",
            at=clock() + timedelta(days=number),
            kind=AuditKind.QUERY,
            type="GET /",
            who="ada" if number % 2 else "bob",
            studies=(f"1.2.{number}", "1.2.33"),
            outcome=Outcome.MINOR_FAILURE if number == 3 else Outcome.SUCCESS,
        )
        for number in range(5)
    ]
    with database.transaction() as session:
        assert write_events(session, events, tell=True) == 5

    def found(**wanted: object) -> list[int]:
        with database.reading() as session:
            entries = audit_entries(session, AuditFilter(**wanted))  # type: ignore[arg-type]
        return [int(entry.event.uid) for entry in entries]

    assert found() == [4, 3, 2, 1, 0]
    assert found(who="ada") == [3, 1]
    assert found(study_instance_uid="1.2.3") == [3]
    assert found(only_failed=True) == [3]
    assert found(since=clock() + timedelta(days=1), until=clock() + timedelta(days=3)) == [2, 1]
    assert found(kind=AuditKind.EXPORT) == []
    with database.transaction() as session:
        assert len(list(all_entries(session, AuditFilter()))) == 5
        waiting = waiting_entries(session, limit=2)
        assert [int(entry.event.uid) for entry in waiting] == [0, 1]
        mark_sent(session, [entry.id for entry in waiting])
        assert [int(entry.event.uid) for entry in waiting_entries(session, limit=9)] == [2, 3, 4]


def test_passwords_are_hashed_with_the_parameters_of_the_rfc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(HASHER, PasswordHasher.from_parameters(PARAMETERS))
    encoded = hash_password(PASSWORD)
    assert extract_parameters(encoded) == PARAMETERS == RFC_9106_LOW_MEMORY
    assert extract_parameters(hash_of_nobody()) == PARAMETERS
    assert is_password(encoded, PASSWORD)
    assert not is_password(encoded, PASSWORD + "!")
    assert not is_password("", PASSWORD)


def test_hash_of_weaker_parameters_is_made_anew() -> None:
    weaker = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    assert not needs_new_hash(weaker)  # those of the tests
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HASHER, PasswordHasher.from_parameters(PARAMETERS))
        assert needs_new_hash(weaker)
