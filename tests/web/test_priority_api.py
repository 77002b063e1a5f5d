"""Why a study is where it is, and a person's raise, over the API."""

from __future__ import annotations

from fastapi.testclient import TestClient

from tests.web.hospital import Hospital, hemorrhage
from triage.store.prioritising import switch_ai_prioritization

HTML = {"accept": "text/html"}
FORM = {**HTML, "Origin": "http://127.0.0.1"}
TAKE = {"X-Triage-Request": "1"}


def flagged(hospital: Hospital) -> str:
    """Return a study with a hemorrhage, behind another that is as routine."""
    hospital.register_model()
    hospital.receive(*hospital.head_ct(slices=1))
    hospital.clock.advance(600)
    uid = hospital.receive(*hospital.head_ct(slices=1))
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage())
    hospital.clock.advance(600)
    return uid


def test_place_is_explained_with_and_without_the_ai(hospital: Hospital, client: TestClient) -> None:
    uid = flagged(hospital)
    said = client.get(f"/api/v1/studies/{uid}/priority").json()
    assert (said["position"], said["priority"]) == (1, "stat")
    assert (said["position_without_ai"], said["priority_without_ai"]) == (2, "routine")
    assert [one["source"] for one in said["contributions"]] == ["order", "ai"]
    assert (said["waiting_minutes"], said["score"], said["points"]) == (10, 10, 0)
    assert said["is_overdue"] is False
    assert said["policy_version"] == 0
    assert [(c["source"], c["after"]) for c in said["changes"]] == [
        ("order", "routine"),
        ("ai", "stat"),
    ]
    with hospital.database.transaction() as session:
        switch_ai_prioritization(session, is_on=False, who="A", reason="B", now=hospital.clock())
    said = client.get(f"/api/v1/studies/{uid}/priority").json()
    assert (said["position"], said["priority"], said["ai_counts"]) == (2, "routine", False)
    assert [(c["source"], c["counts"]) for c in said["contributions"]] == [
        ("order", True),
        ("ai", False),
    ]
    assert client.get("/api/v1/studies/1.2.3/priority").status_code == 404


def test_person_raises_and_takes_back(hospital: Hospital, client: TestClient) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    wanted = {"priority": "high", "reason": "the ward called", "who": "Dr. Haus"}
    answer = client.put(f"/api/v1/studies/{uid}/raise", json=wanted, headers=TAKE)
    assert answer.status_code == 200
    assert answer.json()["raised"]["who"] == "Dr. Haus (from testclient)"
    entry = client.get("/api/v1/worklist").json()["entries"][0]
    assert (entry["priority"], entry["order_priority"], entry["raised_by"]) == (
        "high",
        "routine",
        "Dr. Haus (from testclient)",
    )
    assert "Dr. Haus" in client.get("/").text
    back = {"reason": "wrong patient"}
    answer = client.post(f"/api/v1/studies/{uid}/take-raise-back", json=back, headers=TAKE)
    assert (answer.json()["priority"], answer.json()["raised"]) == ("routine", None)
    answer = client.post(f"/api/v1/studies/{uid}/take-raise-back", json=back, headers=TAKE)
    assert answer.status_code == 409


def test_study_page_says_why_and_raises(hospital: Hospital, client: TestClient) -> None:
    uid = flagged(hospital)
    page = client.get(f"/studies/{uid}", headers=HTML).text
    assert "STAT, place 1 of the worklist" in page
    assert "Without the AI: routine, place 2" in page
    form = {"priority": "high", "reason": "the ward called"}
    answer = client.post(f"/studies/{uid}/raise", data=form, headers=FORM)
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        f"/studies/{uid}#why-place",
    )
    page = client.get(f"/studies/{uid}", headers=HTML).text
    assert "Raised to High by reader at testclient: the ward called" in page
    back = client.post(f"/studies/{uid}/take-raise-back", data={"reason": "x"}, headers=FORM)
    assert back.status_code == 303
    assert client.post(f"/studies/{uid}/raise", data=form).status_code == 403


def test_raise_is_refused_with_the_field(hospital: Hospital, client: TestClient) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    address = f"/api/v1/studies/{uid}/raise"
    wanted = {"priority": "routine", "reason": "x"}
    answer = client.put(address, json=wanted, headers=TAKE)
    assert (answer.status_code, answer.json()["field"]) == (409, "priority")
    answer = client.put(address, json={"priority": "stat"}, headers=TAKE)
    assert answer.status_code == 422
    unknown = "/api/v1/studies/1.2.3/raise"
    assert client.put(unknown, json={**wanted, "priority": "stat"}, headers=TAKE).status_code == 404
    forged = client.put(address, json=wanted, headers={"Origin": "http://evil.example"})
    assert forged.status_code == 403
