"""What a FHIR server holds after it was told: results, changes of priority, withdrawals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.results.fhir.notices import (
    REASON,
    RUN,
    STUDY,
    change_by_person,
    destination,
    result,
    withdrawal,
)
from tests.results.fhir.server import FhirServer, fhir_server, validate
from triage.core.codes import Code
from triage.core.findings import Finding, Measurement
from triage.core.notices import NoticePatient
from triage.core.priority import Priority
from triage.results.delivery.fhir import tell
from triage.results.errors import DeliveryError
from triage.results.fhir.bundle import bundle_of
from triage.settings import SettingsError, load_settings


@pytest.fixture(scope="module")
def running() -> Iterator[FhirServer]:
    with fhir_server() as server:
        yield server


@pytest.fixture
def server(running: FhirServer) -> FhirServer:
    running.stored.clear()
    running.versions.clear()
    return running


def code_of(concept: dict[str, Any]) -> str:
    return str(concept["coding"][0]["code"])


def test_a_result_becomes_a_preliminary_report_with_an_observation_for_each_finding(
    server: FhirServer,
) -> None:
    tell(result(), destination(server.url))
    report = server.only("DiagnosticReport")
    assert report["status"] == "preliminary"
    assert "resultsInterpreter" not in report
    assert [code_of(each) for each in report["conclusionCode"]] == ["1386000"]
    assert report["conclusion"].startswith(f"{REASON}; No fracture of bone found.")
    assert [each["reference"] for each in report["result"]] == [
        key for key in server.stored if key.startswith("Observation/")
    ]
    present, absent = server.all_of("Observation")
    assert code_of(present["code"]) == "1386000"
    assert code_of(present["valueCodeableConcept"]) == "52101004"
    assert code_of(present["bodySite"]) == "12738006"
    assert code_of(absent["code"]) == "125605004"
    assert code_of(absent["valueCodeableConcept"]) == "272519000"
    assert [
        (code_of(each["code"]), each["valueQuantity"]["value"], each["valueQuantity"]["code"])
        for each in present["component"]
    ] == [("111012", 97, "%"), ("118565006", 12.345, "mL")]
    assert {each["valueQuantity"]["system"] for each in present["component"]} == {
        "http://unitsofmeasure.org"
    }


def test_the_report_is_of_the_study_the_patient_and_the_model(server: FhirServer) -> None:
    tell(result(), destination(server.url))
    report = server.only("DiagnosticReport")
    study = server.stored[report["imagingStudy"][0]["reference"]]
    assert study["identifier"] == [
        {"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY.study_instance_uid}"}
    ]
    assert [(each["uid"], each["modality"]["code"]) for each in study["series"]] == [
        (RUN.source_series_uid, "CT"),
        ("2.25.10", "SEG"),
        ("2.25.20", "SR"),
    ]
    patient = server.stored[report["subject"]["reference"]]
    assert patient["identifier"][0]["value"] == "P-17"
    assert patient["name"][0]["family"] == "Muster"
    assert patient["name"][0]["given"] == ["Anna", "Maria"]
    assert (patient["gender"], patient["birthDate"]) == ("female", "1950-02-01")
    device = server.stored[server.all_of("Observation")[0]["device"]["reference"]]
    assert device["modelNumber"] == "head-ct-hemorrhage"
    assert device["version"] == [{"value": "1.0.0"}]
    assert code_of(device["type"]) == "123110"
    provenance = server.only("Provenance")
    assert server.stored[provenance["agent"][0]["who"]["reference"]] == device
    assert provenance["entity"][0]["what"]["identifier"]["value"] == (
        f"urn:oid:{RUN.source_series_uid}"
    )
    assert server.only("AuditEvent")["outcome"] == "0"


def test_the_task_to_read_the_study_has_its_priority_and_why(server: FhirServer) -> None:
    tell(result(), destination(server.url))
    task = server.only("Task")
    assert (task["status"], task["priority"]) == ("requested", "stat")
    assert task["reasonCode"]["text"] == REASON
    assert task["focus"]["reference"].startswith("ImagingStudy/")
    assert task["basedOn"][0]["identifier"]["value"] == "A-99"
    assert task["reasonReference"]["identifier"] == server.only("DiagnosticReport")["identifier"][0]


@pytest.mark.parametrize(
    ("priority", "word"),
    [
        (Priority.STAT, "stat"),
        (Priority.HIGH, "asap"),
        (Priority.ROUTINE, "routine"),
        (Priority.LOW, "routine"),
    ],
)
def test_each_priority_has_its_word(server: FhirServer, priority: Priority, word: str) -> None:
    tell(result(study=replace(STUDY, priority=priority)), destination(server.url))
    assert server.only("Task")["priority"] == word


@pytest.mark.parametrize("notice", [result(), change_by_person(), withdrawal()])
def test_a_repeat_changes_nothing(server: FhirServer, notice: Any) -> None:
    tell(notice, destination(server.url))
    before = dict(server.stored)
    tell(replace(notice, attempt=2), destination(server.url))
    assert server.stored == before
    assert set(server.versions.values()) == {1}


def test_what_others_keep_of_the_patient_and_the_study_is_left_as_it_is(
    server: FhirServer,
) -> None:
    system = "urn:oid:1.2.276.0.76.3.1.99.1"
    patient = server.put(
        {
            "resourceType": "Patient",
            "identifier": [{"system": system, "value": "P-17"}],
            "name": [{"family": "Muster-Mann"}],
        }
    )
    study = server.put(
        {
            "resourceType": "ImagingStudy",
            "identifier": [
                {"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY.study_instance_uid}"}
            ],
            "description": "as the archive says it",
        }
    )
    tell(result(), destination(server.url))
    assert server.only("Patient")["name"] == [{"family": "Muster-Mann"}]
    assert server.only("ImagingStudy")["description"] == "as the archive says it"
    report = server.only("DiagnosticReport")
    assert report["subject"]["reference"] == patient
    assert report["imagingStudy"][0]["reference"] == study


def test_a_change_of_priority_rewrites_the_task_only(server: FhirServer) -> None:
    tell(result(), destination(server.url))
    tell(change_by_person(), destination(server.url))
    task = server.only("Task")
    assert task["priority"] == "routine"
    assert "reasonCode" not in task
    assert server.only("DiagnosticReport")["status"] == "preliminary"
    made, changed = server.all_of("Provenance")
    assert code_of(made["activity"]) == "CREATE"
    assert code_of(changed["activity"]) == "UPDATE"
    assert changed["reason"][0]["text"] == "known hemorrhage"
    assert [server.stored[t["reference"]] for t in changed["target"]] == [task]


def test_a_withdrawn_result_is_entered_in_error_and_holds_no_priority(server: FhirServer) -> None:
    tell(result(), destination(server.url))
    tell(withdrawal(), destination(server.url))
    assert server.only("DiagnosticReport")["status"] == "entered-in-error"
    assert {each["status"] for each in server.all_of("Observation")} == {"entered-in-error"}
    assert server.only("Task")["priority"] == "routine"
    taken_back = server.all_of("Provenance")[1]
    assert code_of(taken_back["activity"]) == "NULLIFY"
    assert taken_back["agent"][0]["who"] == {"display": "dr.haus"}
    assert taken_back["reason"][0]["text"] == "the images are of another patient"
    assert len(server.all_of("AuditEvent")) == 2


def test_a_read_study_is_a_completed_task(server: FhirServer) -> None:
    tell(result(study=replace(STUDY, is_read=True)), destination(server.url))
    assert server.only("Task")["status"] == "completed"


def test_patients_may_be_named_by_identifier_only(server: FhirServer) -> None:
    tell(result(), destination(server.url, patients="identifier", patient_system=""))
    assert server.all_of("Patient") == []
    subject = server.only("DiagnosticReport")["subject"]
    assert subject["type"] == "Patient"
    assert subject["identifier"]["value"] == "P-17"


def test_patients_may_be_those_of_the_server(server: FhirServer) -> None:
    there = destination(server.url, patients="reference")
    with pytest.raises(DeliveryError, match="412: 0 of Patient match") as failed:
        tell(result(), there)
    assert failed.value.is_permanent
    assert server.stored == {}
    key = server.put(
        {
            "resourceType": "Patient",
            "identifier": [{"system": there.patient_system, "value": "P-17"}],
        }
    )
    tell(result(), there)
    assert server.only("DiagnosticReport")["subject"] == {"reference": key}


def _with_patient(patient_id: str, issuer: str) -> Any:
    return result(study=replace(STUDY, patient=NoticePatient(patient_id, issuer, "", "", "")))


def test_one_number_of_two_issuers_is_two_patients(server: FhirServer) -> None:
    known = destination(server.url, patient_systems={"NORTH": "urn:oid:1.2.3"})
    tell(_with_patient("1", "NORTH"), known)
    tell(_with_patient("1", "1.2.4"), known)
    tell(_with_patient("1", ""), known)
    assert [each["identifier"][0]["system"] for each in server.all_of("Patient")] == [
        "urn:oid:1.2.3",
        "urn:oid:1.2.4",
        known.patient_system,
    ]
    with pytest.raises(DeliveryError, match="'SOUTH' are; add it to patient_systems") as failed:
        tell(_with_patient("1", "SOUTH"), known)
    assert failed.value.is_permanent


def test_a_patient_without_id_is_nobody_elses(server: FhirServer) -> None:
    tell(_with_patient("", ""), destination(server.url))
    assert server.all_of("Patient") == []
    assert server.only("DiagnosticReport")["subject"] == {
        "display": "A patient whose images have no Patient ID"
    }


def test_finding_patients_needs_a_system(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"kind": "fhir", "name": "record", "url": "http://a/fhir", "patients": "create"}
    monkeypatch.setenv("TRIAGE_DESTINATIONS", json.dumps([entry]))
    with pytest.raises(SettingsError, match="'record': patients = 'create' needs patient_system"):
        load_settings()


_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=40)
_CODES = st.builds(
    Code,
    value=st.from_regex(r"[A-Za-z0-9.-]{1,16}", fullmatch=True),
    scheme=st.sampled_from(["SCT", "LN", "DCM", "UCUM", "RADLEX", "99LOCAL"]),
    meaning=st.from_regex(r"[A-Za-z][A-Za-z ]{0,30}[a-z]", fullmatch=True),
)
_FINDINGS = st.builds(
    Finding,
    key=st.from_regex(r"[a-z]{1,8}", fullmatch=True),
    code=_CODES,
    site=st.none() | _CODES,
    present=st.booleans(),
    confidence=st.floats(0, 1),
    measurements=st.lists(
        st.builds(Measurement, concept=_CODES, value=st.floats(-1e6, 1e6), unit=_CODES),
        max_size=2,
    ).map(tuple),
)
_PATIENTS = st.builds(
    NoticePatient,
    patient_id=st.from_regex(r"[ -~]{0,20}", fullmatch=True).map(str.strip),
    issuer=st.sampled_from(["", "1.2.3"]),
    name=_TEXTS,
    birth_date=st.sampled_from(["", "19500201", "1950", "00000000", "nonsense"]),
    sex=st.sampled_from(["", "M", "F", "O", "X"]),
)


@settings(deadline=None, max_examples=15)
@given(
    findings=st.lists(_FINDINGS, max_size=3, unique_by=lambda f: f.key),
    patient=_PATIENTS,
    description=_TEXTS.map(str.strip),
    accession=st.from_regex(r"[ -~]{0,16}", fullmatch=True).map(str.strip),
    modalities=st.lists(st.sampled_from(["CT", "MR", "SR"]), max_size=2, unique=True),
)
def test_whatever_is_said_is_valid_r4(
    findings: list[Finding],
    patient: NoticePatient,
    description: str,
    accession: str,
    modalities: list[str],
) -> None:
    study = replace(
        STUDY,
        patient=patient,
        description=description,
        accession_number=accession,
        modalities=tuple(modalities),
        study_date=patient.birth_date,
    )
    for notice in (result(), change_by_person(), withdrawal()):
        run = notice.run and replace(notice.run, findings=tuple(findings), source_modality="")
        bundle = bundle_of(replace(notice, study=study, run=run), destination())
        validate(json.loads(bundle.model_dump_json()))
