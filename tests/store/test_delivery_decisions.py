"""What a person decides about deliveries, on both databases."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.results.outbox_scenes import history
from tests.results.outgoing import Outgoing, outgoing
from tests.results.web_server import Reply, WebServer, web_server
from tests.tools import ManualClock, archive_named
from triage.core.runs import DeliveryState
from triage.settings import RetentionSettings, StowDestination, WebhookDestination
from triage.store.database import Database
from triage.store.delivery_decisions import (
    Decision,
    DecisionError,
    DeliveryNotDeadError,
    give_up,
    give_up_all,
    pause,
    pauses,
    resend,
    resend_all,
    resume,
)
from triage.store.outbox import claim_due_delivery, withdraw_unsent
from triage.store.retention import may_be_purged
from triage.store.tables import DeliveryRow, DestinationEventRow

LEASE = timedelta(seconds=60)


def to_archive(server: WebServer) -> StowDestination:
    return StowDestination(name="archive", kind="stow", url=server.url, timeout_s=5)


def dead_scene(database: Database, tmp_path: Path, clock: ManualClock) -> Outgoing:
    """Return a scene in which both objects are dead letters at "archive"."""
    out = outgoing(database, tmp_path, clock, archive_named("archive"))
    with web_server() as server:
        server.usual = lambda _: Reply(413)
        out.configure(to_archive(server))
        out.deliver_all()
    assert out.states() == ["dead", "dead"]
    return out


def by(clock: ManualClock, reason: str = "") -> Decision:
    return Decision("A. Grey", clock(), reason)


def test_nothing_is_sent_while_a_destination_is_paused_and_the_others_get_theirs(
    database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    with web_server() as server:
        other = WebhookDestination(
            name="ris", kind="webhook", url=server.url, secret="0123456789abcdef"
        )
        out = outgoing(database, tmp_path, clock, to_archive(server), other)
        with database.transaction() as session:
            pause(session, "archive", by(clock, "it is being updated"))
        out.deliver_all()
        assert out.states() == ["waiting", "waiting", "delivered"]
        clock.advance(3600)
        out.deliver_all()
        assert out.states() == ["waiting", "waiting", "delivered"]
        with database.transaction() as session:
            found = pauses(session)["archive"]
            assert (found.who, found.reason) == ("A. Grey", "it is being updated")
            resume(session, "archive", by(clock))
        out.deliver_all()
    assert out.states() == ["delivered"] * 3
    with database.reading() as session:
        events = session.scalars(select(DestinationEventRow).order_by(DestinationEventRow.id))
        assert [(row.action, row.who) for row in events] == [
            ("paused", "A. Grey"),
            ("resumed", "A. Grey"),
        ]


def test_a_pause_needs_a_reason_and_may_be_given_another(
    sqlite_database: Database, clock: ManualClock
) -> None:
    with sqlite_database.transaction() as session:
        with pytest.raises(DecisionError, match="reason: say why"):
            pause(session, "archive", by(clock, "  "))
        with pytest.raises(DecisionError, match="archive is not paused"):
            resume(session, "archive", by(clock))
        pause(session, "archive", by(clock, "an update"))
        pause(session, "archive", by(clock, "a longer update"))
        assert pauses(session)["archive"].reason == "a longer update"


def test_all_dead_letters_of_a_destination_are_sent_again(
    database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = dead_scene(database, tmp_path, clock)
    with database.transaction() as session:
        assert resend_all(session, "archive", by(clock)) == 2
        assert resend_all(session, "elsewhere", by(clock)) == 0
    with web_server() as server:
        out.configure(to_archive(server))
        out.deliver_all()
    assert out.states() == ["delivered", "delivered"]
    assert history(database, "resent")[0] == (
        "SR to archive is sent again at a person's request (A. Grey)"
    )


def test_sending_again_brings_what_waits_for_its_next_attempt_forward(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    with web_server() as server:
        out = outgoing(sqlite_database, tmp_path, clock, to_archive(server))
        server.replies = [Reply(503, {"Retry-After": "3000"})]
        assert out.deliver()
        assert not out.deliver()
        with sqlite_database.transaction() as session:
            assert resend_all(session, "archive", by(clock)) == 0
        out.deliver_all()
    assert out.states() == ["delivered", "delivered"]


def test_what_is_given_up_no_longer_holds_the_images_of_its_study(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = dead_scene(sqlite_database, tmp_path, clock)
    first, second = (row.id for row in out.rows())
    retention = RetentionSettings(read_days=0)
    with sqlite_database.transaction() as session:
        with pytest.raises(DecisionError, match="reason"):
            give_up(session, first, by(clock))
        give_up(session, first, by(clock, "a phantom"))
        assert not may_be_purged(session, out.study_id, retention)
        give_up(session, second, by(clock, "a phantom"))
        assert may_be_purged(session, out.study_id, retention)
        with pytest.raises(DeliveryNotDeadError, match="is given-up; only a dead one"):
            give_up(session, first, by(clock, "again"))
    assert out.states() == ["given-up", "given-up"]
    assert history(sqlite_database, "given-up")[0] == (
        "SR to archive is given up at a person's request (A. Grey; a phantom)"
    )


def test_what_was_given_up_can_still_be_sent(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = dead_scene(sqlite_database, tmp_path, clock)
    with sqlite_database.transaction() as session:
        assert give_up_all(session, "archive", by(clock, "a phantom")) == 2
        resend(session, out.rows()[0].id, by(clock))
    with web_server() as server:
        out.configure(to_archive(server))
        out.deliver_all()
    assert out.states() == ["delivered", "given-up"]
    assert out.rows()[0].given_up_by == ""


def test_a_late_image_leaves_what_was_given_up_as_it_is(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = dead_scene(sqlite_database, tmp_path, clock)
    with sqlite_database.transaction() as session:
        give_up(session, out.rows()[0].id, by(clock, "a phantom"))
        withdraw_unsent(session, out.run_id)
    assert out.states() == ["given-up", "withdrawn"]


def test_only_dead_letters_are_decided_about(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    out = outgoing(sqlite_database, tmp_path, clock, archive_named("archive"))
    number = out.rows()[0].id
    with sqlite_database.transaction() as session:
        with pytest.raises(DeliveryNotDeadError, match=f"delivery {number} is waiting"):
            resend(session, number, by(clock))
        with pytest.raises(DeliveryNotDeadError, match="there is no delivery 99"):
            give_up(session, 99, by(clock, "why not"))


def test_two_deliveries_of_one_destination_at_once_keep_the_order_of_a_run(
    database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    outgoing(database, tmp_path, clock, archive_named("archive"))
    with database.transaction() as session:
        first = claim_due_delivery(session, lease=LEASE, now=clock())
    assert first is not None
    with database.transaction() as session:
        assert claim_due_delivery(session, lease=LEASE, now=clock()) is None
        row = session.get(DeliveryRow, first.delivery_id)
        assert row is not None
        row.state = DeliveryState.DELIVERED
    with database.transaction() as session:
        second = claim_due_delivery(session, lease=LEASE, now=clock())
    assert second is not None
    assert (first.role, second.role) == ("sr", "heat-map")
