"""Who sent what and from where, over real associations and on both databases."""

from __future__ import annotations

from datetime import timedelta

from pydicom.uid import generate_uid
from sqlalchemy import select

from tests.datasets import ct_slice
from tests.receiver.conftest import StartReceiver, associate, send
from tests.tools import ManualClock, wait_until
from triage.core.visits import Ending, Way
from triage.receiver.visits import RefusedCallers, VisitTally
from triage.store.database import Database
from triage.store.visit_tables import RefusedCallerRow, VisitRow
from triage.store.visits import (
    Caller,
    VisitPart,
    forget_visits_before,
    record_refused_callers,
    record_visit_parts,
)


def visits(database: Database) -> list[VisitRow]:
    """Return all visits, oldest first."""
    with database.reading() as session:
        return list(session.scalars(select(VisitRow).order_by(VisitRow.id)))


def ended(database: Database, count: int) -> list[VisitRow]:
    """Return the visits once `count` of them are over."""
    wait_until(
        lambda: sum(v.ended != Ending.OPEN for v in visits(database)) == count,
        f"{count} visits are over",
    )
    return visits(database)


def test_visit_says_who_sent_how_much_of_which_study_from_where(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database)
    first, second = generate_uid(), generate_uid()
    send(receiver, ct_slice(first), ct_slice(first, 2), ct_slice(second), calling="CT1")
    one, other = ended(sqlite_database, 2)
    assert (one.calling_ae_title, one.address, one.way) == ("CT1", "127.0.0.1", "dicom")
    assert (one.instances, one.refused, one.associations, one.ended) == (2, 0, 1, "released")
    assert one.size_bytes > 100
    assert (other.instances, other.study_id) == (1, 2)


def test_association_for_each_image_is_one_visit(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database)
    study = generate_uid()
    for number in (1, 2, 3):
        send(receiver, ct_slice(study, number))
    wait_until(
        lambda: [(v.associations, v.instances) for v in visits(sqlite_database)] == [(3, 3)],
        "three associations are one visit",
    )


def test_aborted_association_and_refused_image_are_told(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database)
    good, bad = ct_slice(), ct_slice(StudyInstanceUID="")
    association = associate(receiver, good)
    association.send_c_store(good)
    assert association.send_c_store(bad).Status != 0
    association.abort()
    taken, refused = sorted(ended(sqlite_database, 2), key=lambda v: v.study_id is None)
    assert (taken.instances, taken.ended) == (1, "aborted")
    assert (refused.study_id, refused.instances, refused.refused) == (None, 0, 1)
    assert refused.last_error.startswith("0x")


def test_refused_caller_is_counted_with_the_reason(
    sqlite_database: Database, start_receiver: StartReceiver, clock: ManualClock
) -> None:
    receiver = start_receiver(sqlite_database, allowed_calling_ae_titles=["CT1"])
    for _ in range(2):
        assert not associate(receiver, ct_slice(), calling="STRANGER").is_established
    receiver._rounds._heartbeat_at = None  # it is written with the next heartbeat

    def counted() -> list[tuple[str, str, int]]:
        with sqlite_database.reading() as session:
            rows = session.scalars(select(RefusedCallerRow))
            return [(r.calling_ae_title, r.reason, r.times) for r in rows]

    wait_until(
        lambda: counted() == [("STRANGER", "no sender has this calling AE title", 2)],
        "both rejections are counted",
    )


def test_what_is_written_in_parts_adds_up(database: Database, clock: ManualClock) -> None:
    tally = VisitTally(Way.STOW, "192.0.2.9", clock)

    def write(ending: Ending = Ending.OPEN) -> None:
        parts = tally.unwritten(ending)
        with database.transaction() as session:
            record_visit_parts(session, parts)
        tally.written(parts)

    tally.stored("VNA", 0, 1000)
    write()
    clock.advance(5)
    tally.stored("VNA", 0, 500)
    tally.refused("VNA", "0xA700 disk is full")
    write()
    write()  # nothing new
    write(Ending.RELEASED)
    (visit,) = visits(database)
    assert (visit.instances, visit.size_bytes, visit.refused) == (2, 1500, 1)
    assert (visit.associations, visit.ended, visit.last_error) == (
        1,
        "released",
        "0xA700 disk is full",
    )
    assert visit.last_at - visit.began_at == timedelta(seconds=5)


def test_visit_after_one_that_was_broken_off_is_another(
    database: Database, clock: ManualClock
) -> None:
    caller = Caller("CT1", "192.0.2.1", Way.DICOM)
    for ending in (Ending.ABORTED, Ending.RELEASED, Ending.RELEASED):
        part = VisitPart(
            caller,
            None,
            is_first=True,
            instances=1,
            refused=0,
            size_bytes=1,
            began_at=clock(),
            last_at=clock(),
            ended=ending,
            last_error="",
        )
        with database.transaction() as session:
            record_visit_parts(session, [part])
        clock.advance(20)
    assert [(v.ended, v.associations) for v in visits(database)] == [
        ("aborted", 1),
        ("released", 2),
    ]


def test_strangers_do_not_fill_the_database_and_are_forgotten(
    database: Database, clock: ManualClock
) -> None:
    callers = RefusedCallers(clock)
    for number in range(1500):
        callers.add(f"S{number}", "192.0.2.1", "no sender has this calling AE title")
    refused = callers.unwritten()
    assert len(refused) == 1000
    with database.transaction() as session:
        record_refused_callers(session, refused)
    callers.written(refused)
    assert callers.unwritten() == []
    with database.transaction() as session:
        forget_visits_before(session, clock() + timedelta(days=1))
        assert session.scalars(select(RefusedCallerRow)).first() is None
