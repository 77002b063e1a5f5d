"""What an administrator is told so that people hear of findings."""

from __future__ import annotations

from datetime import timedelta

from tests.store.notification_scenes import Ward, settings_of
from tests.tools import ManualClock
from triage.store.database import Database
from triage.store.notification_outbox import claim_message, mark_not_sent
from triage.worklist.notification_health import problems_of


def problems(ward: Ward) -> tuple[str, ...]:
    with ward.database.reading() as session:
        return problems_of(session, ward.settings, ward.clock())


def test_all_is_well_until_something_is_not(sqlite_database: Database, clock: ManualClock) -> None:
    ward = Ward(sqlite_database, clock)
    assert problems(ward) == ()
    ward.flag()
    clock.advance(301)
    assert problems(ward) == ("1 wait for a worker to decide who is told; start `triage work`",)
    ward.later(0)
    assert problems(ward) == ()
    for seconds in (600, 900):
        ward.later(seconds)
    with sqlite_database.transaction() as session:
        due = claim_message(session, "mail", lease=timedelta(minutes=1), now=clock())
        assert due is not None
        wait = timedelta(hours=5)
        mark_not_sent(session, due, "mail cannot be reached", retry_after=wait, now=clock())
    ward.later(1200)
    assert problems(ward) == (
        "1 messages by mail did not arrive in the last day: mail cannot be reached",
        "1 of the last day nobody acknowledged in time; look at the steps of the rules",
    )


def test_gap_between_shifts_is_said(sqlite_database: Database, clock: ManualClock) -> None:
    shifts = [{"start": "08:00", "end": "18:00", "members": ["ada"]}]
    night = {"start": "18:00", "end": "08:00", "members": ["grace"]}
    ward = Ward(sqlite_database, clock, settings_of(groups=[{"name": "neuro", "shifts": shifts}]))
    assert problems(ward) == (
        "nobody of neuro is on call at Sun 2026-03-01 18:00 UTC, so all of them are told; close "
        "the gap between its shifts",
    )
    ward.settings = settings_of(groups=[{"name": "neuro", "shifts": [*shifts, night]}])
    assert problems(ward) == ()
