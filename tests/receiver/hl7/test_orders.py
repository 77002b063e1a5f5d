"""Orders over a real socket, and what becomes of their studies, on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from tests.hl7.messages import PID, Sender, message, orm
from tests.receiver.hl7.conftest import Listen
from tests.store.rows import add_model, received
from tests.store.test_studies import complete
from tests.tools import ManualClock
from triage.core.priority import Priority
from triage.hl7.acknowledgement import read_acknowledgement
from triage.receiver.hl7 import Hl7Intake
from triage.settings import Settings
from triage.store.database import Database
from triage.store.history import texts_of_kind
from triage.store.hl7_messages import newest_messages
from triage.store.prioritising import raise_ai_priority
from triage.store.studies import record_instance
from triage.store.tables import AnalysisRunRow, OrderRow, PriorityEventRow, StudyRow


def record(database: Database, clock: ManualClock, **values: Any) -> None:
    with database.transaction() as session:
        record_instance(session, received(clock(), **{"accession_number": "A1", **values}))


def study(database: Database, uid: str = "1.2.3") -> StudyRow:
    with database.reading() as session:
        return session.scalars(select(StudyRow).where(StudyRow.study_instance_uid == uid)).one()


def texts(database: Database, kind: str, uid: str = "1.2.3") -> list[str]:
    with database.reading() as session:
        return texts_of_kind(session, study(database, uid).id, kind)


def ask(port: int, *contents: bytes) -> list[str]:
    with Sender(port) as sender:
        return [read_acknowledgement(sender.ask(content)).code.value for content in contents]


def test_an_order_that_comes_first_waits_for_its_study(
    database: Database, clock: ManualClock, listen: Listen
) -> None:
    assert ask(listen().port, orm("S")) == ["AA"]
    record(database, clock)
    found = study(database)
    assert (found.order_priority, found.priority) == (Priority.STAT, Priority.STAT)
    assert (found.location, found.patient_class) == ("ED-3-B", "E")
    with database.reading() as session:
        order = session.scalars(select(OrderRow)).one()
        assert found.order_id == order.id
        assert (order.placer_number, order.filler_number) == ("PL1", "FI1")
        assert (order.procedure_code, order.reason) == ("CTHEAD", "Headache")
    assert "the order of RIS of HOSPITAL says STAT" in texts(database, "order")


def test_a_newer_message_lowers_the_order_but_never_what_the_ai_raised(
    database: Database, clock: ManualClock, listen: Listen
) -> None:
    with database.transaction() as session:
        add_model(session, clock())
    record(database, clock)
    clock.advance(60)
    complete(database, clock)
    listener = listen()
    assert ask(listener.port, orm("S", control_id="1")) == ["AA"]
    assert study(database).priority is Priority.STAT
    with database.reading() as session:
        assert session.scalars(select(AnalysisRunRow.priority)).one() is Priority.STAT
    later = orm("R", control_id="2", control="XO", at="20260301120100")
    assert ask(listener.port, later) == ["AA"]
    assert study(database).priority is Priority.ROUTINE
    with database.transaction() as session:
        raise_ai_priority(session, study(database).id, Priority.HIGH, "hemorrhage", at=clock())
    assert ask(listener.port, orm("R", control_id="3", at="20260301120200")) == ["AA"]
    found = study(database)
    assert (found.order_priority, found.priority) == (Priority.ROUTINE, Priority.HIGH)
    with database.reading() as session:
        events = session.scalars(select(PriorityEventRow).order_by(PriorityEventRow.id)).all()
    assert [(e.source, e.after) for e in events[1:]] == [
        ("location", Priority.ROUTINE),  # where the patient is moves the study within its class
        ("order", Priority.STAT),
        ("order", Priority.ROUTINE),
        ("ai", Priority.HIGH),
    ]


def test_of_two_messages_that_overtook_each_other_the_later_counts(
    database: Database, clock: ManualClock, listen: Listen
) -> None:
    record(database, clock)
    newer = orm("S", control_id="2", at="20260301120500")
    older = orm("R", control_id="1", at="20260301120000")
    assert ask(listen().port, newer, older) == ["AA", "AA"]
    assert study(database).order_priority is Priority.STAT


def test_an_accession_number_of_another_patient_changes_nothing(
    database: Database, clock: ManualClock, listen: Listen
) -> None:
    record(database, clock, patient_id="SOMEBODY ELSE")
    assert ask(listen().port, orm("S")) == ["AA"]
    assert study(database).order_priority is Priority.ROUTINE
    record(database, clock, study="1.2.4")
    assert study(database, "1.2.4").order_priority is Priority.STAT


def test_a_study_instance_uid_names_the_study_without_an_accession_number(
    database: Database, clock: ManualClock, listen: Listen
) -> None:
    record(database, clock, accession_number="")
    assert ask(listen().port, orm("A", uid="1.2.3")) == ["AA"]
    assert study(database).order_priority is Priority.HIGH


def test_of_several_orders_of_one_study_the_most_urgent_counts(
    database: Database, clock: ManualClock, listen: Listen
) -> None:
    record(database, clock)
    both = message(
        "ORM^O01",
        PID,
        *("ORC|NW|PL1|A1||||^^^^^S", "OBR|1|PL1|A1|HEAD"),
        *("ORC|NW|PL2|A1||||^^^^^R", "OBR|2|PL2|A1|NECK"),
    )
    port = listen().port
    assert ask(port, both) == ["AA"]
    assert study(database).order_priority is Priority.STAT
    only = message("ORM^O01", PID, "ORC|XO|PL1|A1||||^^^^^A", control_id="2", at="20260301120100")
    assert ask(port, only) == ["AA"]
    assert study(database).order_priority is Priority.HIGH
    gone = message("ORM^O01", PID, "ORC|CA|PL1|A1||||^^^^^A", control_id="3", at="20260301120200")
    assert ask(port, gone) == ["AA"]
    with database.reading() as session:
        order = session.get_one(OrderRow, study(database).order_id)
    assert (order.placer_number, order.procedure_code) == ("PL2", "NECK")


def test_a_cancelled_order_leaves_the_study_on_the_list(
    database: Database, clock: ManualClock, listen: Listen
) -> None:
    record(database, clock)
    assert ask(listen().port, orm("S"), orm("S", control="CA", control_id="2")) == ["AA", "AA"]
    found = study(database)
    assert (found.priority, found.read_at) == (Priority.STAT, None)
    assert texts(database, "order")[-1].endswith("cancelled the order; the study stays where it is")


@pytest.mark.parametrize(
    ("kind", "segments"),
    [
        (
            "OMI^O23^OMI_O23",
            ["ORC|XO|PL1", "TQ1|1||||||||S^Stat^HL70485", "OBR|1|PL1||X^X", "IPC|A1|RP|1.2.3|SPS"],
        ),
        ("OMG^O19^OMG_O19", ["ORC|NW|PL1|A1", "TQ1|1||||||||S", "OBR|1|PL1|A1|X^X"]),
        ("ORM^O01", ["ORC|NW|PL1|A1", "OBR|1|PL1|A1|X^X|" + "|" * 22 + "^^^^^S"]),
        ("ORM^O01", ["OBR|1|OTHER|A0|X^X", "OBR|2|PL1|A1|X^X|s"]),
    ],
)
def test_the_priority_is_found_wherever_the_message_has_it(
    database: Database, clock: ManualClock, listen: Listen, kind: str, segments: list[str]
) -> None:
    record(database, clock)
    assert ask(listen().port, message(kind, PID, *segments)) == ["AA"]
    assert study(database).order_priority is Priority.STAT


def test_codes_of_the_site_are_configured_and_unknown_ones_change_nothing(
    database: Database, clock: ManualClock, listen: Listen
) -> None:
    record(database, clock)
    listener = listen(priorities={"NOTFALL": "stat"})
    assert ask(listener.port, orm("Notfall"), orm("X9", control_id="2")) == ["AA", "AA"]
    assert study(database).order_priority is Priority.STAT
    assert "add it to hl7.priorities" in texts(database, "order")[-1]


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        (message("ORM^O01", "ORC|NW|1"), "AE", "PID: "),
        (message("ORM^O01", "PID|1", "ORC|NW|1"), "AE", "PID-3: the Patient ID is empty"),
        (message("ORM^O01", PID), "AE", "OBR: "),
        (message("ORM^O01", PID, "ORC|NW"), "AE", "ORC-2: "),
        (message("ORM^O01", PID, "ORC|NW|1", "OBR|1", "ZDS|1.2.x"), "AE", "ZDS-1: "),
        (orm(at="yesterday"), "AE", "MSH-7: "),
        (message("ORM^O01", PID, "ORC|NW|1", control_id=""), "AE", "MSH-10: "),
        (message("ORU^R01", PID), "AR", "MSH-9: taken are ORM^O01"),
        (message("ADT^A03", PID), "AR", "MSH-9: "),
        (orm().replace(b"|P|2.5.1", b"|P|3"), "AR", "MSH-12: "),
        (orm().replace(b"|P|2.5.1", b"|T|2.5.1"), "AR", "MSH-11: "),
        (orm().replace(b"|RIS|", b"|OTHER|"), "AR", "MSH-3: "),
        (b"PID|1\r", "AR", "MSH: "),
    ],
)
def test_what_cannot_be_taken_is_answered_with_the_field_and_kept(
    sqlite_database: Database, clock: ManualClock, content: bytes, code: str, place: str
) -> None:
    settings = Settings(hl7={"allowed_applications": ["RIS"]})
    intake = Hl7Intake(settings, sqlite_database, clock)
    answer = read_acknowledgement(intake.take(content, "127.0.0.1"))
    assert (answer.code, place in answer.text) == (code, True), answer
    with sqlite_database.reading() as session:
        kept = newest_messages(session)
    assert [(row.state, row.content) for row in kept] == [("refused", content)]
    assert place in kept[0].said
