"""Finding a study by what a person on the telephone can say of it, on both databases."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select

from tests.store.rows import add_model, received
from tests.tools import ManualClock
from triage.core.runs import RunState
from triage.store.database import Database
from triage.store.order_tables import OrderRow
from triage.store.studies import complete_study, record_instance
from triage.store.tables import AnalysisRunRow, ArrivalSignalRow, StudyRow
from triage.store.workers import Heartbeat, beat
from triage.worklist.study_search import StudySearch, find_studies


@pytest.fixture
def filled(database: Database, clock: ManualClock) -> Database:
    """A database with two studies of two patients."""
    with database.transaction() as session:
        add_model(session, clock())
        record_instance(
            session,
            received(
                clock(),
                study="1.2.1",
                patient_id="0042",
                patient_name="Lovelace^Ada",
                accession_number="A0017",
                study_date="20260301",
            ),
        )
        record_instance(
            session,
            received(
                clock() + timedelta(minutes=1),
                study="1.2.2",
                patient_id="P_2",
                patient_name="Hopper^Grace=ホッパー",
                accession_number="17",
                study_date="2026.03.02",
                calling_ae_title="MR1",
            ),
        )
    return database


SEARCHES: tuple[tuple[StudySearch, list[str]], ...] = (
    (StudySearch(patient_name="ada love"), ["1.2.1"]),
    (StudySearch(patient_name="Lovelace, A"), ["1.2.1"]),
    (StudySearch(patient_name="vela"), []),
    (StudySearch(patient_name="ホッ"), ["1.2.2"]),
    (StudySearch(patient_name="_"), []),
    (StudySearch(patient_name="^"), []),
    (StudySearch(patient_name="LÖVE"), ["1.2.1"]),
    (StudySearch(patient_id="42"), ["1.2.1"]),
    (StudySearch(patient_id="p_2"), ["1.2.2"]),
    (StudySearch(patient_id="4"), []),
    (StudySearch(patient_id="Ada"), []),
    (StudySearch(patient_id="P%2"), []),
    (StudySearch(accession_number="a0017"), ["1.2.1"]),
    (StudySearch(accession_number="0017"), ["1.2.2"]),
    (StudySearch(accession_number="00"), []),
    (StudySearch(study_instance_uid="1.2.2"), ["1.2.2"]),
    (StudySearch(study_date=date(2026, 3, 2)), ["1.2.2"]),
    (StudySearch(sender="MR1"), ["1.2.2"]),
    (StudySearch(text="grace"), ["1.2.2"]),
    (StudySearch(text="^"), []),
    (StudySearch(text="ada a00"), ["1.2.1"]),
    (StudySearch(text="17", sender="CT1"), []),
    (StudySearch(sender="CT1", patient_name="ada"), ["1.2.1"]),
    (StudySearch(), []),
)


def test_study_is_found_by_what_is_said(filled: Database, clock: ManualClock) -> None:
    for search, found in SEARCHES:
        with filled.reading() as session:
            answer = find_studies(session, search, clock())
        assert [study.study_instance_uid for study in answer.studies] == found, search


@pytest.mark.parametrize(
    "search",
    [
        StudySearch(patient_name="ada love"),
        StudySearch(patient_id="42"),
        StudySearch(accession_number="a17"),
        StudySearch(text="ada"),
    ],
    ids=lambda search: next(iter(search.model_fields_set)),
)
def test_no_search_goes_through_all_studies_or_patients(
    sqlite_database: Database, clock: ManualClock, search: StudySearch
) -> None:
    with sqlite_database.transaction() as session:
        record_instance(session, received(clock(), patient_name="Lovelace^Ada"))
    asked: list[tuple[str, Any]] = []
    engine = sqlite_database.engine
    note = lambda _c, _k, sql, values, *_: asked.append((sql, values))  # noqa: E731
    event.listen(engine, "before_cursor_execute", note)
    with sqlite_database.reading() as session:
        find_studies(session, search, clock())
    event.remove(engine, "before_cursor_execute", note)
    searches = [(sql, values) for sql, values in asked if "FROM studies" in sql]
    assert searches
    with engine.connect() as connection:
        plans = [
            str(row[-1])
            for sql, values in searches
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)
        ]
    assert [step for step in plans if step.startswith(("SCAN studies", "SCAN patients"))] == []


def test_answer_says_where_the_study_is_and_what_is_to_be_done(
    filled: Database, clock: ManualClock
) -> None:
    search = StudySearch(patient_id="0042")

    def where() -> tuple[str, str, str]:
        with filled.reading() as session:
            (study,) = find_studies(session, search, clock()).studies
        return study.where.stage, study.where.now, study.where.to_do

    assert where()[0] == "receiving"
    with filled.transaction() as session:
        study = session.scalars(
            select(StudyRow).where(StudyRow.study_instance_uid == "1.2.1")
        ).one()
        complete_study(session, study, "association released", clock())
    stage, now, to_do = where()
    assert (stage, now) == ("analysis", "Waiting: head-ct 1.0.0.")
    assert "triage work" in to_do
    with filled.transaction() as session:
        beat(session, "w", Heartbeat("cpu", ""), now=clock())
        run = session.scalars(select(AnalysisRunRow)).one()
        run.state, run.reason = RunState.FAILED, "out of memory"
    assert where()[:2] == (
        "reading",
        "On the worklist; not analysed by head-ct 1.0.0: out of memory.",
    )
    with filled.transaction() as session:
        study = session.scalars(
            select(StudyRow).where(StudyRow.study_instance_uid == "1.2.1")
        ).one()
        study.read_at = clock()
    assert where()[0] == "read"
    with filled.transaction() as session:
        study = session.scalars(
            select(StudyRow).where(StudyRow.study_instance_uid == "1.2.1")
        ).one()
        study.purged_at, study.purge_reason = clock(), "older than 30 days"
    assert where()[:2] == ("purged", "Its images were deleted: older than 30 days.")


def test_what_was_ordered_and_announced_and_never_sent_is_told(
    filled: Database, clock: ManualClock
) -> None:
    def order(number: str, uid: str, **changes: object) -> OrderRow:
        values = {
            "source": "RIS",
            "accession_number": number,
            "study_instance_uid": uid,
            "identifiers": [["P7", "HOSPITAL"]],
            "procedure_text": "CT head",
            "stated_at": clock(),
            "updated_at": clock(),
        }
        return OrderRow(**{**values, **changes})

    with filled.transaction() as session:
        session.add(order("B1", "1.7.1"))
        session.add(order("B2", "1.7.2", is_cancelled=True, identifiers=[["P_7", ""]]))
        here = order("A0017", "1.2.1")
        session.add(here)
        session.flush()
        session.scalars(
            select(StudyRow).where(StudyRow.study_instance_uid == "1.2.1")
        ).one().order = here
        session.add(
            ArrivalSignalRow(
                source="MPPS",
                sop_instance_uid="1.7.9",
                study_instance_uid="1.7.1",
                state="in progress",
                calling_ae_title="CT1",
                created_at=clock(),
                updated_at=clock(),
            )
        )

    def said(**asked: str) -> list[str]:
        with filled.reading() as session:
            found = find_studies(session, StudySearch(**asked), clock())
        return [one.said for one in found.expected]

    announced = "announced by CT1 (MPPS, in progress); no image has come"
    assert said(accession_number="b1") == [f"ordered by RIS; {announced}"]
    assert said(text="P7") == [f"ordered by RIS; {announced}"]
    assert said(patient_id="P_7") == ["cancelled by RIS; no image has come"]
    assert said(study_instance_uid="1.7.1") == [f"ordered by RIS; {announced}"]
    assert said(text="A0017") == []  # it is here
    assert said(accession_number="b1", sender="CT1") == []
