"""Received HL7 messages on their page, in the API, and what orders say on the worklist."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from fastapi.testclient import TestClient

from tests.hl7.messages import orm
from tests.web.hospital import Hospital
from triage.receiver.hl7 import Hl7Intake
from triage.settings import Settings
from triage.web.security import REQUEST_HEADER


@dataclass
class Sent:
    """An order that was applied and one that was refused."""

    study: str


@pytest.fixture
def sent(hospital: Hospital) -> Sent:
    uid = hospital.receive(*hospital.head_ct(AccessionNumber="A1", PatientID="P1"))
    intake = Hl7Intake(Settings(), hospital.database, hospital.clock)
    intake.take(orm("S"), "192.0.2.1")
    hospital.clock.advance(60)
    strict = Hl7Intake(
        Settings(hl7={"allowed_applications": ["HIS"]}), hospital.database, hospital.clock
    )
    strict.take(orm("R", control_id="2", at="20260301120500"), "192.0.2.1")
    return Sent(uid)


def test_the_page_says_what_became_of_each_message_and_shows_no_patient(
    client: TestClient, sent: Sent
) -> None:
    page = client.get("/hl7").text
    assert "applied to 1 study" in page
    assert "MSH-3: this application may not send here (hl7.allowed_applications)" in page
    assert "Roe" not in page
    assert "applied to 1 study" not in client.get("/hl7", params={"state": "refused"}).text
    assert client.get("/hl7", params={"state": "unheard-of"}).status_code == 422


def test_a_refused_message_is_processed_again_after_the_settings_were_mended(
    client: TestClient, sent: Sent
) -> None:
    kept = client.get("/api/v1/hl7/messages").json()
    assert kept["counts"] == {"done": 1, "ignored": 0, "refused": 1}
    refused = kept["messages"][0]
    assert (refused["state"], refused["message_type"]) == ("refused", "ORM^O01")
    address = f"/api/v1/hl7/messages/{refused['message_id']}/again"
    assert client.post(address).status_code == 403
    answer = client.post(address, headers={REQUEST_HEADER: "1"})
    assert answer.json() == {"said": "applied to 1 study"}
    study = client.get(f"/api/v1/studies/{sent.study}").json()
    assert study["order_priority"] == "routine"
    assert client.post(address, headers={REQUEST_HEADER: "1"}).status_code == 409


def test_the_button_does_the_same_and_goes_back(client: TestClient, sent: Sent) -> None:
    refused = client.get("/api/v1/hl7/messages").json()["messages"][0]["message_id"]
    answer = client.post(f"/hl7/{refused}/again", headers={REQUEST_HEADER: "1"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/hl7")
    assert "Process again" not in client.get("/hl7").text


def test_where_the_patient_is_stands_on_the_list_and_the_study_page(
    client: TestClient, sent: Sent
) -> None:
    entry = client.get("/api/v1/worklist").json()["entries"][0]
    assert (entry["patient_class"], entry["location"]) == ("Emergency", "ED-3-B")
    assert 'class="visit visit-emergency">Emergency<' in client.get("/").text
    page = client.get(f"/studies/{sent.study}").text
    assert "ED-3-B · Headache" in page
    assert "the order of RIS of HOSPITAL says STAT (S)" in page
