"""Deliveries and destinations, through the pages and the API."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydicom.uid import generate_uid

from tests.tools import archive_named
from tests.web.hospital import Hospital, hemorrhage
from triage.core.priority import Priority
from triage.settings import Settings, WebhookDestination, WebSettings
from triage.store.outbox import claim_due_delivery, mark_not_delivered, queue_priority_notices
from triage.store.prioritising import raise_ai_priority
from triage.web.app import create_app

OURS = {"Origin": "http://127.0.0.1"}
HTML = {"Accept": "text/html"}
SCRIPT = {"X-Triage-Request": "script"}
RIS = WebhookDestination(
    name="ris", kind="webhook", url="http://ris.example/hook", secret="0123456789abcdef"
)


@pytest.fixture
def app(hospital: Hospital) -> FastAPI:
    """The application with two destinations."""
    settings = Settings(destinations=(archive_named("archive"), RIS))
    return create_app(settings, hospital.database, hospital.files, hospital.clock)


@pytest.fixture
def study(hospital: Hospital) -> str:
    """A study whose SR and priority notice are dead letters: deliveries 1 and 2."""
    hospital.register_model()
    uid = hospital.receive(*(images := hospital.head_ct()))
    hospital.complete(uid)
    report = images[0].copy()
    report.Modality, report.SOPInstanceUID = "SR", generate_uid()
    report.SeriesInstanceUID = generate_uid()
    hospital.finish(hospital.claim(), hemorrhage(), objects=[report])
    with hospital.database.transaction() as session:
        queue_priority_notices(session, (RIS,), now=hospital.clock())
    for _ in range(2):
        with hospital.database.transaction() as session:
            lease = timedelta(seconds=5)
            due = claim_due_delivery(session, lease=lease, now=hospital.clock())
            assert due is not None
            error = f"{due.destination} <is> broken"
            mark_not_delivered(session, due, error, retry_after=None, now=hospital.clock())
    return uid


def test_pages_list_objects_and_notices_with_why_and_the_next_step(
    client: TestClient, study: str
) -> None:
    for path in ("/status", "/deliveries"):
        page = client.get(path, headers=HTML).text
        assert "Priority notice" in page
        assert "archive &lt;is&gt; broken" in page
        assert "Mend what is said here and send this again, or give it up." in page
        assert f"/studies/{study}" in page
    page = client.get(f"/studies/{study}", headers=HTML).text
    assert "Priority notice" in page
    assert "ris &lt;is&gt; broken (1 attempt)" in page


def test_deliveries_are_filtered(client: TestClient, study: str) -> None:
    for asked, count in {
        "": 2,
        "destination=ris": 1,
        "state=dead": 2,
        "state=delivered": 0,
        "state=all&study=1.2.3": 0,
        "state=all&limit=1&offset=1": 1,
    }.items():
        found = client.get(f"/api/v1/deliveries?{asked}").json()
        assert len(found["entries"]) == count, asked
        assert client.get(f"/deliveries?{asked}", headers=HTML).status_code == 200, asked
    by_study = client.get(f"/api/v1/deliveries?study={study}").json()
    assert {one["delivery"]["what"] for one in by_study["entries"]} == {"SR", "Priority notice"}


def test_wrong_filters_are_refused(client: TestClient) -> None:
    for asked in ("state=lost", "study=a", "destination=A!", "page=0"):
        assert client.get(f"/deliveries?{asked}", headers=HTML).status_code == 422, asked


def test_dead_letter_is_given_up_and_sent_again_from_the_page(
    client: TestClient, study: str
) -> None:
    referer = {"Referer": f"http://127.0.0.1/deliveries?state=all&study={study}"}
    answer = client.post("/deliveries/1/give-up", headers=OURS | HTML, data={"reason": " "})
    assert (answer.status_code, "reason" in answer.text) == (422, True)
    answer = client.post(
        "/deliveries/1/give-up", headers=OURS | referer, data={"reason": "a phantom"}
    )
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/deliveries?state=all&study={study}"
    page = client.get("/deliveries?state=given-up", headers=HTML).text
    assert "Given up by reader at testclient: a phantom" in page
    assert client.post("/deliveries/1/resend", headers=OURS).status_code == 303
    assert client.post("/deliveries/1/resend", headers=OURS).status_code == 409
    history = client.get(f"/api/v1/studies/{study}").json()["history"]
    said = [line["text"] for line in history if line["kind"] in ("given-up", "resent")]
    assert said == [
        "SR to archive is given up at a person's request (reader at testclient; a phantom)",
        "SR to archive is sent again at a person's request (reader at testclient)",
    ]


def test_destination_is_paused_and_resumed(client: TestClient, study: str) -> None:
    assert client.post("/destinations/ris/pause", headers=OURS, data={}).status_code == 422
    answer = client.post("/destinations/ris/pause", headers=OURS, data={"reason": "an update"})
    assert answer.status_code == 303
    for path in ("/status", "/deliveries"):
        page = client.get(path, headers=HTML).text
        assert "by reader at testclient: an update" in page
    client.post("/deliveries/2/resend", headers=OURS)
    assert "ris is paused; resume it." in client.get("/deliveries", headers=HTML).text
    assert client.post("/destinations/ris/resume", headers=OURS).status_code == 303
    assert client.post("/destinations/ris/resume", headers=OURS).status_code == 409
    assert client.post("/destinations/nobody/resume", headers=OURS).status_code == 404


def test_api_decides_in_the_name_of_a_person(client: TestClient, study: str) -> None:
    archive, ris = client.get("/api/v1/destinations").json()
    assert (archive["name"], archive["kind"], archive["dead"]) == ("archive", "dicom", 1)
    assert (ris["name"], ris["pause"]) == ("ris", None)
    why = {"who": "A. Grey", "reason": "an update"}
    assert client.post("/api/v1/destinations/ris/pause", json=why).status_code == 403
    paused = client.post("/api/v1/destinations/ris/pause", json=why, headers=SCRIPT)
    assert paused.status_code == 204
    _, ris = client.get("/api/v1/destinations").json()
    assert (ris["pause"]["who"], ris["pause"]["reason"]) == ("A. Grey", "an update")
    resumed = client.post("/api/v1/destinations/ris/resume", json={}, headers=SCRIPT)
    assert resumed.status_code == 204
    sent = client.post("/api/v1/destinations/ris/resend", json={}, headers=SCRIPT)
    assert sent.json() == {"deliveries": 1}
    given = client.post("/api/v1/destinations/archive/give-up", json=why, headers=SCRIPT)
    assert given.json() == {"deliveries": 1}
    again = client.post("/api/v1/deliveries/1/give-up", json=why, headers=SCRIPT)
    assert again.status_code == 409
    assert "delivery 1 is given-up" in again.json()["detail"]
    assert client.post("/api/v1/deliveries/1/resend", json={}, headers=SCRIPT).status_code == 204
    unknown = client.post("/api/v1/destinations/nobody/pause", json=why, headers=SCRIPT)
    assert unknown.status_code == 404
    empty = client.post("/api/v1/deliveries/1/give-up", json={"reason": ""}, headers=SCRIPT)
    assert empty.status_code == 422


def test_the_proxy_s_name_counts(hospital: Hospital, study: str) -> None:
    settings = Settings(destinations=(RIS,), web=WebSettings(user_header="X-Remote-User"))
    app = create_app(settings, hospital.database, hospital.files, hospital.clock)
    client = TestClient(app, base_url="http://127.0.0.1")
    why = {"who": "somebody else", "reason": "an update"}
    refused = client.post("/api/v1/destinations/ris/pause", json=why, headers=SCRIPT)
    assert refused.status_code == 401
    named = SCRIPT | {"X-Remote-User": "grey"}
    client.post("/api/v1/destinations/ris/pause", json=why, headers=named)
    ris, archive = client.get("/api/v1/destinations").json()
    assert ris["pause"]["who"] == "grey"
    # What is not configured any more, and still has dead letters, can be decided about.
    assert (archive["name"], archive["kind"]) == ("archive", "")
    found = client.get("/api/v1/deliveries?destination=archive").json()["entries"]
    assert found[0]["next_step"] == "Configure archive again and send this again, or give it up."


def test_a_person_s_change_of_priority_is_shown_on_the_study_page(
    client: TestClient, hospital: Hospital
) -> None:
    uid = hospital.receive(*hospital.head_ct())
    with hospital.database.transaction() as session:
        raise_ai_priority(session, 1, Priority.HIGH, "a person says so", at=hospital.clock())
        queue_priority_notices(session, (RIS,), now=hospital.clock())
    [notice] = client.get(f"/api/v1/studies/{uid}").json()["priority_notices"]
    assert (notice["what"], notice["destination"]) == ("Priority notice", "ris")
