"""Corrections and merges of patients, and what is told again, on SQLite and on PostgreSQL."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import select

from tests.hl7.messages import merge as a40
from tests.hl7.messages import message
from tests.receiver.hl7.test_orders import record, study, texts
from tests.results.hl7.ris import Ris, said
from tests.store.rows import add_model
from tests.store.test_runs import finish, held
from tests.store.test_studies import complete
from tests.tools import ManualClock
from triage.hl7.acknowledgement import read_acknowledgement
from triage.receiver.hl7 import Hl7Intake
from triage.results.delivery.hl7 import CONNECTIONS
from triage.results.delivery.rounds import deliver_next
from triage.settings import Settings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.order_tables import PatientMergeRow
from triage.store.outbox import add_result_objects
from triage.store.tables import DeliveryRow, PatientRow, StudyRow


def take(
    database: Database, clock: ManualClock, *contents: bytes, settings: Settings | None = None
) -> None:
    """Take messages that must all be acknowledged."""
    intake = Hl7Intake(settings or Settings(), database, clock)
    for content in contents:
        answer = read_acknowledgement(intake.take(content, "127.0.0.1"))
        assert answer.code == "AA", answer


def patients(database: Database) -> Sequence[tuple[str, str, str]]:
    with database.reading() as session:
        rows = session.scalars(select(PatientRow).order_by(PatientRow.id))
        return [(row.patient_id, row.issuer, row.name) for row in rows]


def adt(pid: str, event: str = "A08", **header: str) -> bytes:
    return message(f"ADT^{event}", "EVN||20260301", pid, "PV1|1|I|WARD^12^A", **header)


def test_a_correction_changes_the_patient_and_where_unread_studies_are(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock, patient_name="Row^Jane", patient_birth_date="19700101")
    take(database, clock, adt("PID|1||P1^^^HOSPITAL||Roe^Jane^^Jr^Dr||19700102|F"))
    found = study(database)
    patient = found.patient
    assert (patient.name, patient.birth_date, patient.sex) == (
        "Roe^Jane^^Dr^Jr",
        "19700102",
        "F",
    )
    assert (found.location, found.patient_class) == ("WARD-12-A", "I")
    assert texts(database, "patient") == [
        "RIS of HOSPITAL corrected the patient's date of birth, name, sex"
    ]


def test_what_a_correction_does_not_say_stays_and_what_it_deletes_goes(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock, patient_name="Roe^Jane", patient_birth_date="19700101", patient_sex="F")
    take(database, clock, adt('PID|1||P1||||""|'))
    patient = study(database).patient
    assert (patient.name, patient.birth_date, patient.sex) == ("Roe^Jane", "", "F")


def test_patients_of_another_authority_are_left_alone(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock, patient_name="A", issuer_of_patient_id="ELSEWHERE")
    record(database, clock, study="1.2.4", patient_name="B")
    settings = Settings(hl7={"assigning_authority": "OURS"})
    take(database, clock, adt("PID|1||P1^^^HOSPITAL||C"), settings=settings)
    assert [name for _, _, name in patients(database)] == ["A", "B"]
    take(database, clock, adt("PID|1||P1^^^OURS||C", control_id="2"), settings=settings)
    assert [name for _, _, name in patients(database)] == ["A", "C"]


def test_a_merge_moves_studies_and_what_comes_later(database: Database, clock: ManualClock) -> None:
    record(database, clock, patient_name="Row^Jane")
    record(database, clock, study="1.2.4", patient_id="P2", patient_name="Roe^Jane")
    take(database, clock, a40("P2", "P1"))
    assert study(database).patient_id == study(database, "1.2.4").patient_id
    assert patients(database) == [("P1", "", ""), ("P2", "", "Roe^Jane")]
    assert texts(database, "patient") == [
        "RIS of HOSPITAL merged the patient with another (A40)",
        "RIS of HOSPITAL corrected the patient's date of birth, sex",
    ]
    record(database, clock, study="1.2.5", patient_name="Row^Jane")
    assert study(database, "1.2.5").patient.patient_id == "P2"


def test_several_merges_of_a_message_are_done_in_their_order(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock, patient_name="Row^Jane")
    record(database, clock, study="1.2.4", patient_id="P3", patient_name="Roe^John")
    pairs = ("PID|1||P2||Roe^Jane", "MRG|P1", "PV1|1|I|WARD^1^A")
    more = ("PID|2||P4||Roe^Jack", "MRG|P3", "PV1|1|I|WARD^2^B", "PID|3||P5", "MRG|P4")
    take(database, clock, message("ADT^A40^ADT_A39", "EVN||20260301", *pairs, *more))
    first, second = study(database), study(database, "1.2.4")
    assert (first.patient.patient_id, first.location) == ("P2", "WARD-1-A")
    assert (second.patient.patient_id, second.patient.name) == ("P5", "Roe^Jack")
    assert second.location == "WARD-2-B"


def test_of_several_merges_none_is_done_if_one_cannot_be(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock)
    content = message("ADT^A40", "PID|1||P2", "MRG|P1", "PID|2||P4", "MRG|")
    answer = read_acknowledgement(Hl7Intake(Settings(), database, clock).take(content, "127.0.0.1"))
    assert answer.code == "AE"
    assert study(database).patient.patient_id == "P1"


def test_a_merge_of_nobody_who_is_here_holds_for_images_that_come(
    database: Database, clock: ManualClock
) -> None:
    take(database, clock, a40("P2", "P1"), a40("P3", "P2", control_id="2"))
    record(database, clock)
    record(database, clock, study="1.2.4", issuer_of_patient_id="HOSPITAL")
    assert study(database).patient.patient_id == "P3"
    assert study(database, "1.2.4").patient.patient_id == "P3"


def test_no_study_is_missed_that_arrives_during_a_merge(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock)

    def receive(number: int) -> None:
        record(database, clock, study=f"1.3.{number}", accession_number="")

    with ThreadPoolExecutor(4) as threads:
        arriving = [threads.submit(receive, number) for number in range(16)]
        take(database, clock, a40("P2", "P1"))
        for one in arriving:
            one.result()
    with database.reading() as session:
        found = session.scalars(select(StudyRow)).all()
    assert {one.patient.patient_id for one in found} == {"P2"}
    assert len(found) == 17


def test_a_patient_id_that_comes_back_into_use_is_itself_again(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock)
    take(database, clock, a40("P2", "P1"), a40("P1", "P2", control_id="2"))
    assert study(database).patient.patient_id == "P1"
    record(database, clock, study="1.2.4", patient_id="P2")
    assert study(database, "1.2.4").patient.patient_id == "P1"
    with database.reading() as session:
        rows = session.scalars(select(PatientMergeRow.retired_id))
        assert set(rows) == {"P2"}


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (a40("P1", "P1"), "MRG-1: "),
        (message("ADT^A40", "PID|1||P2"), "MRG: "),
        (message("ADT^A40", "PID|1||P2", "MRG|"), "MRG-1: "),
        (message("ADT^A40", "PID|1||P2", "MRG|P1", "PID|2||P4"), "MRG[2]: "),
        (message("ADT^A40", "PID|1||P2", "MRG|P1", "MRG|P3"), "MRG[2]: a second one"),
        (message("ADT^A40", "MRG|P1", "PID|1||P2"), "MRG: no PID"),
        (message("ADT^A40", "PID|1||P2", "MRG|P1", "PID|2||P4", "MRG|P4"), "MRG[2]-1: "),
        (message("ADT^A08", "PID|1||P2||||1970"), "PID-7: "),
    ],
)
def test_a_merge_that_cannot_be_is_refused(
    sqlite_database: Database, clock: ManualClock, content: bytes, place: str
) -> None:
    intake = Hl7Intake(Settings(), sqlite_database, clock)
    answer = read_acknowledgement(intake.take(content, "127.0.0.1"))
    assert (answer.code, place in answer.text) == ("AE", True), answer


def test_a_result_that_was_told_is_told_again_of_the_survivor_as_a_correction(
    database: Database, clock: ManualClock, files: InstanceFiles
) -> None:
    with database.transaction() as session:
        add_model(session, clock())
    record(database, clock, patient_name="Row^Jane")
    clock.advance(60)
    complete(database, clock)
    with Ris([said("AA")]) as ris:
        to = {"kind": "hl7", "name": "ris", "host": "127.0.0.1", "port": ris.port}
        settings = Settings(destinations=[to])
        run = held(database, clock)
        finish(database, clock, run)
        with database.transaction() as session:
            add_result_objects(
                session,
                run_id=run.run_id,
                study_id=run.study_id,
                objects=[],
                destinations=settings.destinations,
                now=clock(),
            )
        deliver = partial(deliver_next, database, settings, files, clock, random.random)
        while deliver():
            pass
        take(database, clock, a40("P2", "P1"), settings=settings)
        take(database, clock, a40("P2", "P1", control_id="2"), settings=settings)
        while deliver():
            pass
        CONNECTIONS.close()
        told = [
            (m.required("PID").text(3), m.required("PID").text(5), m.required("OBR").text(25))
            for m in ris.messages
        ]
        assert told == [("P1", "Row", "P"), ("P2", "Roe", "C")]
        assert len({m.control_id for m in ris.messages}) == 2
    with database.reading() as session:
        states = {row.state.value for row in session.scalars(select(DeliveryRow))}
    assert states == {"delivered"}
