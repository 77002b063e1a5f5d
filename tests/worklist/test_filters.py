"""Filters, the search and the figures above the list, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from pydicom.uid import generate_uid
from sqlalchemy import select

from tests.web.hospital import Hospital, hemorrhage
from triage.core.orders import PatientIdentifier, PatientUpdate
from triage.store.claims import claim_study
from triage.store.patients import update_patient
from triage.store.runs import refuse_run
from triage.store.tables import StudyRow
from triage.worklist.filters import WorklistFilter, WorklistSearch
from triage.worklist.queue import (
    count_filtered,
    next_to_read,
    reading_list,
    recently_read,
    take_tally,
)
from triage.worklist.reading import mark_as_read


def receive(hospital: Hospital, location: str = "", patient_class: str = "", **said: Any) -> str:
    uid = hospital.receive(*hospital.head_ct(slices=1, **said))
    with hospital.database.transaction() as session:
        study = session.scalars(select(StudyRow).where(StudyRow.study_instance_uid == uid)).one()
        study.location, study.patient_class = location, patient_class
    hospital.clock.advance(1)
    return uid


def shown(hospital: Hospital, who: str = "ada", **wanted: Any) -> list[str]:
    """Return what is listed, having checked that it is counted the same."""
    search = WorklistSearch(**wanted)
    with hospital.database.reading() as session:
        now = hospital.clock()
        entries = reading_list(session, now, wanted=search, who=who)
        tally = take_tally(session, now)
        assert count_filtered(session, tally, search, now, who) == len(entries)
    return [entry.study_instance_uid for entry in entries]


def claim(hospital: Hospital, uid: str, who: str) -> None:
    with hospital.database.transaction() as session:
        study = session.scalars(select(StudyRow).where(StudyRow.study_instance_uid == uid)).one()
        claim_study(session, study, who, now=hospital.clock(), lease=timedelta(minutes=15))


def test_studies_are_filtered_by_what_they_are_and_where_the_patient_is(
    hospital: Hospital,
) -> None:
    head = receive(hospital, "ER-3-A", "E", Modality="CT", BodyPartExamined="HEAD")
    knee = receive(hospital, "ER", "E", Modality="MR", BodyPartExamined="KNEE")
    chest = receive(hospital, "ERGO-1", "O", Modality="CT", BodyPartExamined="CHEST")
    assert shown(hospital, modalities=["MR"]) == [knee]
    assert shown(hospital, modalities=["MR", "CT"]) == [head, knee, chest]
    assert shown(hospital, body_parts=["CHEST", "KNEE"]) == [knee, chest]
    assert shown(hospital, patient_classes=["E"], modalities=["CT"]) == [head]
    assert shown(hospital, wards=["ER"]) == [head, knee]
    assert shown(hospital, modalities=["T"]) == []
    assert shown(hospital, modalities=["%"]) == []


def test_study_of_several_modalities_and_body_parts_is_found_by_each(hospital: Hospital) -> None:
    images = hospital.head_ct(slices=2, BodyPartExamined="HEAD")
    images[1].Modality, images[1].BodyPartExamined = "SR", "NECK"
    images[1].SeriesInstanceUID = generate_uid()
    uid = hospital.receive(*images)
    assert shown(hospital, modalities=["SR"]) == [uid]
    assert shown(hospital, body_parts=["NECK"]) == shown(hospital, body_parts=["HEAD"]) == [uid]


def test_studies_are_filtered_by_what_became_of_them(hospital: Hospital) -> None:
    hospital.register_model()
    receiving = receive(hospital)
    refused = receive(hospital)
    hospital.complete(refused)
    with hospital.database.transaction() as session:
        refuse_run(session, hospital.claim(), "too thick", now=hospital.clock())
    flagged = receive(hospital)
    hospital.complete(flagged)
    hospital.finish(hospital.claim(), hemorrhage())
    waiting = receive(hospital)
    hospital.complete(waiting)
    unwanted = receive(hospital, Modality="MR")
    hospital.complete(unwanted)
    assert shown(hospital, statuses=["receiving"]) == [receiving]
    assert shown(hospital, statuses=["not-analysed"]) == [refused]
    assert shown(hospital, statuses=["analysed"]) == shown(hospital, flagged=True) == [flagged]
    assert shown(hospital, statuses=["analysing"]) == [waiting]
    assert shown(hospital, statuses=["not-wanted"]) == [unwanted]
    assert shown(hospital, statuses=["not-wanted", "receiving"]) == [receiving, unwanted]


def test_studies_are_filtered_by_who_reads_them(hospital: Hospital) -> None:
    free, mine, others = (receive(hospital) for _ in range(3))
    claim(hospital, mine, "ada")
    claim(hospital, others, "grace")
    assert shown(hospital, assigned="me") == [mine]
    assert shown(hospital, assigned="others") == [others]
    assert shown(hospital, assigned="nobody") == [free]
    assert shown(hospital, assigned="person", person="grace") == [others]
    hospital.clock.advance(1000)
    assert shown(hospital, assigned="nobody") == [free, mine, others]


def test_next_study_is_none_that_somebody_else_reads(hospital: Hospital) -> None:
    first, second, third = (receive(hospital) for _ in range(3))
    claim(hospital, first, "grace")
    claim(hospital, second, "ada")
    with hospital.database.reading() as session:
        now = hospital.clock()
        assert next_to_read(session, now, who="ada") == second
        assert next_to_read(session, now, who="ada", after=second) == third
        assert next_to_read(session, now, who="grace") == first
        assert next_to_read(session, now + timedelta(hours=1), who="joan") == first


def test_study_is_found_by_the_beginnings_of_names_and_numbers(hospital: Hospital) -> None:
    wanted = receive(
        hospital,
        PatientName="Müller-Lüdenscheidt^Hans",
        PatientID="P-77",
        AccessionNumber="ACC91",
        SpecificCharacterSet="ISO_IR 100",
    )
    receive(hospital, PatientName="Kloebner^Ada", PatientID="Q-77", AccessionNumber="B1")
    for text in (
        *("müller", "MULLER", "mul", "hans mull", "ludenscheidt"),
        *("p-7", "acc9", "ACC9", "hans, acc"),
    ):
        assert shown(hospital, text=text) == [wanted], text


def test_what_does_not_begin_so_is_not_found(hospital: Hospital) -> None:
    receive(hospital, PatientName="Muller^Hans", PatientID="")
    receive(hospital, PatientName="Kloebner^Ada")
    for text in ("uller", "hans ada", "%", "_", "(none)", "muller\\"):
        assert shown(hospital, text=text) == [], text


def test_search_that_says_nothing_finds_everything(hospital: Hospital) -> None:
    uid = receive(hospital)
    assert shown(hospital, text=" ,^ ") == [uid]


def test_common_word_is_found_as_a_rare_one_is(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = [receive(hospital, PatientName=f"Common^Ada{n}") for n in range(4)]
    monkeypatch.setattr("triage.worklist.search._MOST_PATIENTS", 2)
    assert shown(hospital, text="comm") == studies
    assert shown(hospital, text="comm ada3") == studies[3:]


def test_corrected_patient_is_found_by_the_new_name_only(hospital: Hospital) -> None:
    uid = receive(hospital, PatientName="Doe^Jane", PatientID="P1")
    with hospital.database.transaction() as session:
        update = PatientUpdate("ADT", (PatientIdentifier("P1"),), name="Roe^Jane")
        update_patient(session, update, assigning_authority="", now=hospital.clock())
    assert shown(hospital, text="roe") == shown(hospital, text="jane") == [uid]
    assert shown(hospital, text="doe") == []


def test_read_studies_are_searched_and_come_in_parts(hospital: Hospital) -> None:
    studies = [receive(hospital, PatientName=f"Name{n}^Ada") for n in range(3)]
    with hospital.database.transaction() as session:
        for uid in studies:
            mark_as_read(session, uid, now=hospital.clock.advance(1))
    with hospital.database.reading() as session:
        now = hospital.clock()
        pages = [recently_read(session, now, limit=2, offset=offset) for offset in (0, 2)]
        found = recently_read(session, now, wanted=WorklistSearch(text="name1"))
    uids = [[entry.study_instance_uid for entry in page] for page in pages]
    assert uids == [[studies[2], studies[1]], [studies[0]]]
    assert [entry.study_instance_uid for entry in found] == [studies[1]]


def test_choices_are_what_the_list_has(hospital: Hospital) -> None:
    receive(hospital, "ER-3-A", "E", Modality="CT", BodyPartExamined="HEAD")
    receive(hospital, "ER-4-A", "E", Modality="CT")
    claim(hospital, receive(hospital, "", "O", Modality="MR"), "ada")
    with hospital.database.reading() as session:
        choices = take_tally(session, hospital.clock()).choices()
    assert [(o.value, o.studies) for o in choices.modalities] == [("CT", 2), ("MR", 1)]
    assert [(o.value, o.studies) for o in choices.body_parts] == [("HEAD", 1)]
    assert [(o.label, o.studies) for o in choices.patient_classes] == [
        ("Emergency", 2),
        ("Outpatient", 1),
    ]
    assert [(o.value, o.studies) for o in choices.wards] == [("ER", 2)]
    assert choices.people == ("ada",)


def test_filter_with_an_unknown_key_is_refused_and_a_view_keeps_no_search() -> None:
    with pytest.raises(ValidationError):
        WorklistFilter.model_validate({"text": "a patient"})
    kept = WorklistSearch(text="a patient", flagged=True).without_text()
    assert "patient" not in kept.model_dump_json().replace("patient_classes", "")
    assert kept.flagged


def test_line_has_its_findings_and_the_image_that_shows_them_best(hospital: Hospital) -> None:
    hospital.register_model()
    images = hospital.head_ct(slices=3)
    uid = hospital.receive(*images)
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage(key_image_uids=[images[1].SOPInstanceUID]))
    with hospital.database.reading() as session:
        [entry] = reading_list(session, hospital.clock())
    assert [one.title for one in entry.findings] == ["Hemorrhage"]
    assert entry.findings[0].said == "Hemorrhage, 12.3 mL, confidence 0.97"
    assert entry.key_image_uid == images[1].SOPInstanceUID
