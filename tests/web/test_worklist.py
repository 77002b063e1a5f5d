"""The worklist over HTTP: filters, searches, claims, saved views, and what open pages are sent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.tools import ManualClock
from tests.web.hospital import Hospital, hemorrhage
from triage.settings import Settings, WebSettings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.web.app import create_app
from triage.web.rendering import templates
from triage.worklist.queue import reading_list

OURS = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}


def as_person(name: str) -> dict[str, str]:
    return {**OURS, "X-Remote-User": name}


ADA, GRACE = as_person("ada"), as_person("grace")


@pytest.fixture
def app(hospital: Hospital) -> FastAPI:
    """The application behind a proxy that says who somebody is."""
    settings = Settings(
        data_directory=hospital.files.root.parent, web=WebSettings(user_header="X-Remote-User")
    )
    return create_app(settings, hospital.database, hospital.files, hospital.clock)


def rows(client: TestClient, person: dict[str, str] = ADA, **asked: Any) -> dict[str, Any]:
    answer = client.post("/worklist/rows", json=asked, headers=person)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def uids(answer: Any) -> list[str]:
    return [entry["study_instance_uid"] for entry in answer.json()["entries"]]


def test_page_is_sent_only_the_rows_that_changed(client: TestClient, hospital: Hospital) -> None:
    hospital.register_model()
    studies = [hospital.receive(*hospital.head_ct(slices=1)) for _ in range(3)]
    first = rows(client)
    assert list(first["rows"]) == first["order"] == studies
    hospital.complete(studies[2])
    hospital.finish(hospital.claim(), hemorrhage())
    second = rows(client, tag=first["tag"])
    assert second["order"] == [studies[2], *studies[:2]]
    assert list(second["rows"]) == [studies[2]]
    again = client.post("/worklist/rows", json={"tag": second["tag"]}, headers=ADA)
    assert (again.status_code, again.content) == (304, b"")
    assert list(rows(client, tag="unknown")["rows"]) == second["order"]


def test_what_everybody_asks_for_is_made_once(
    client: TestClient, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital.receive(*hospital.head_ct(slices=1))
    made = []

    def counting(*given: Any, **named: Any) -> Any:
        made.append(1)
        return reading_list(*given, **named)

    monkeypatch.setattr("triage.web.board.reading_list", counting)
    for person in (ADA, GRACE, ADA):
        rows(client, person)
    assert len(made) == 1
    rows(client, GRACE, wanted={"assigned": "me"})
    rows(client, ADA, wanted={"assigned": "me"})
    assert len(made) == 3


def test_search_is_never_part_of_an_address(client: TestClient, hospital: Hospital) -> None:
    found = hospital.receive(*hospital.head_ct(slices=1, PatientName="Lovelace^Ada"))
    hospital.receive(*hospital.head_ct(slices=1, PatientName="Hopper^Grace"))
    asked = client.post("/api/v1/worklist/search", json={"text": "lovel"}, headers=ADA)
    assert uids(asked) == [found]
    assert (asked.json()["matching"], asked.json()["counts"]["total"]) == (1, 2)
    assert rows(client, wanted={"text": "lovel"})["order"] == [found]
    refused = client.get("/api/v1/worklist", params={"text": "lovel"}, headers=ADA)
    assert refused.status_code == 422
    assert "lovel" not in refused.text


def test_list_is_filtered_by_query_parameters(client: TestClient, hospital: Hospital) -> None:
    hospital.receive(*hospital.head_ct(slices=1))
    wanted = hospital.receive(*hospital.head_ct(slices=1, Modality="MR", BodyPartExamined="KNEE"))
    query = {"modalities": ["MR", "US"], "body_parts": "KNEE"}
    assert uids(client.get("/api/v1/worklist", params=query, headers=ADA)) == [wanted]
    assert client.get("/api/v1/worklist?statuses=done", headers=ADA).status_code == 422
    choices = client.get("/api/v1/worklist/choices", headers=ADA).json()
    assert [offer["value"] for offer in choices["modalities"]] == ["CT", "MR"]


def test_study_is_claimed_seen_by_all_and_released(client: TestClient, hospital: Hospital) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    place = f"/api/v1/studies/{uid}/claim"
    claimed = client.put(place, json={}, headers=ADA)
    assert claimed.status_code == 200
    assert (claimed.json()["who"], claimed.json()["is_mine"]) == ("ada", True)
    seen = client.get(place, headers=GRACE).json()
    assert (seen["who"], seen["is_mine"]) == ("ada", False)
    assert 'data-claimed-by="ada"' in rows(client, GRACE)["rows"][uid]
    assert 'data-claimed-by="ada"' in client.get(f"/studies/{uid}", headers=GRACE).text
    assert client.delete(place, headers=ADA).status_code == 204
    assert client.get(place, headers=GRACE).json()["who"] == ""


def test_claim_of_another_is_refused_and_taken_over_with_a_word(
    client: TestClient, hospital: Hospital
) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    place = f"/api/v1/studies/{uid}/claim"
    client.put(place, json={}, headers=ADA)
    refused = client.put(place, json={}, headers=GRACE)
    assert refused.status_code == 409
    assert refused.json()["field"] == "take_over_because"
    assert "ada is reading this study" in refused.json()["detail"]
    taken = client.put(place, json={"take_over_because": "ada is in theatre"}, headers=GRACE)
    assert taken.json()["who"] == "grace"
    assert client.put(place, json={"only_renew": True}, headers=ADA).status_code == 409
    assert client.put(place, json={"only_renew": True}, headers=GRACE).status_code == 200


@pytest.mark.parametrize("method", ["put", "delete"])
def test_claims_and_views_are_changed_by_our_own_pages_only(
    client: TestClient, hospital: Hospital, method: str
) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    evil = {"X-Remote-User": "ada", "Origin": "http://evil.example"}
    for place in (f"/api/v1/studies/{uid}/claim", "/api/v1/worklist/views/mine"):
        body = {"json": {}} if method == "put" else {}
        assert client.request(method, place, headers=evil, **body).status_code == 403
    assert client.post("/worklist/rows", json={}, headers=evil).status_code == 403


def test_nobody_claims_without_a_name_and_unknown_studies_are_said(
    client: TestClient, hospital: Hospital
) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    assert client.put(f"/api/v1/studies/{uid}/claim", json={}, headers=OURS).status_code == 401
    assert client.get("/api/v1/studies/1.2.3/claim", headers=ADA).status_code == 404
    assert client.put("/api/v1/studies/1.2.3/claim", json={}, headers=ADA).status_code == 404
    assert client.get("/", headers={"Accept": "text/html"}).status_code == 200


def test_next_skips_what_others_read(client: TestClient, hospital: Hospital) -> None:
    first, second = (hospital.receive(*hospital.head_ct(slices=1)) for _ in range(2))
    client.put(f"/api/v1/studies/{first}/claim", json={}, headers=ADA)
    assert client.get("/next?after=1.2", headers=GRACE).headers["location"] == f"/studies/{second}"
    answer = client.get("/api/v1/worklist/next", headers=ADA)
    assert answer.json() == {"study_instance_uid": first}
    answer = client.get(f"/api/v1/worklist/next?after={second}", headers=GRACE)
    assert answer.json() == {"study_instance_uid": ""}


def test_views_are_each_persons_own_and_one_opens_the_list(
    client: TestClient, hospital: Hospital
) -> None:
    hospital.receive(*hospital.head_ct(slices=1))
    knee = hospital.receive(*hospital.head_ct(slices=1, Modality="MR"))
    place = "/api/v1/worklist/views/MR only"
    body = {"filter": {"modalities": ["MR"]}, "is_default": True}
    assert client.put(place, json=body, headers=ADA).status_code == 200
    assert client.get("/api/v1/worklist/views", headers=GRACE).json() == []
    [kept] = client.get("/api/v1/worklist/views", headers=ADA).json()
    assert (kept["name"], kept["filter"]["modalities"], kept["is_default"]) == (
        "MR only",
        ["MR"],
        True,
    )
    page = client.get("/", headers={**ADA, "Accept": "text/html"}).text
    assert page.count("<tr role") == 2  # the head of the table, and one study
    assert knee in page
    assert "<strong>1</strong> match the filter" in page
    client.put("/api/v1/worklist/views/all", json={"filter": {}, "is_default": True}, headers=ADA)
    defaults = [
        view["name"]
        for view in client.get("/api/v1/worklist/views", headers=ADA).json()
        if view["is_default"]
    ]
    assert defaults == ["all"]
    assert client.delete(place, headers=ADA).status_code == 204
    assert client.delete(place, headers=ADA).status_code == 404


def test_view_cannot_keep_a_search(client: TestClient) -> None:
    body = {"filter": {"text": "lovelace"}}
    answer = client.put("/api/v1/worklist/views/mine", json=body, headers=ADA)
    assert answer.status_code == 422
    assert "lovelace" not in answer.text


def test_read_studies_are_searched_in_the_body_of_a_request(
    client: TestClient, hospital: Hospital
) -> None:
    found = hospital.receive(*hospital.head_ct(slices=1, PatientName="Lovelace^Ada"))
    other = hospital.receive(*hospital.head_ct(slices=1, PatientName="Hopper^Grace"))
    for uid in (found, other):
        assert client.put(f"/api/v1/studies/{uid}/read", headers=ADA).status_code == 204
    page = client.post("/read", data={"text": "lovel"}, headers=ADA).text
    assert found in page
    assert other not in page
    answer = client.post("/api/v1/worklist/read/search", json={"text": "hop"}, headers=ADA)
    assert uids(answer) == [other]


def test_picture_of_the_key_image_may_be_kept_by_the_browser(
    client: TestClient, hospital: Hospital
) -> None:
    images = hospital.head_ct(slices=1)
    uid = hospital.receive(*images)
    place = f"/studies/{uid}/key-images/{images[0].SOPInstanceUID}"
    answer = client.get(place, headers=ADA)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.content.startswith(b"\xff\xd8")
    assert "immutable" in answer.headers["cache-control"]
    tag = {"If-None-Match": answer.headers["etag"]}
    assert client.get(place, headers=ADA | tag).status_code == 304
    assert client.get(f"/studies/{uid}/key-images/1.2.3", headers=ADA).status_code == 404
    assert client.get(f"/studies/1.2.3/key-images/{images[0].SOPInstanceUID}").status_code == 404


def test_line_shows_the_clock_against_its_target(client: TestClient, hospital: Hospital) -> None:
    hospital.receive(*hospital.head_ct(slices=1))
    with hospital.database.reading() as session:
        [entry] = reading_list(session, hospital.clock())
    late = entry.model_copy(update={"due_at": hospital.clock() + timedelta(minutes=30)})
    without = entry.model_copy(update={"due_at": None})
    macros: Any = templates.env.get_template("_macros.html").module
    assert 'datetime="2026-03-01T12:30:00+00:00" data-due' in macros.row(late, False, 1)
    assert "data-due" not in macros.row(without, False, 1)


def test_claim_that_ran_out_is_gone_from_the_list_without_an_event(
    sqlite_database: Database,
    files: InstanceFiles,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hospital = Hospital(sqlite_database, files, clock)
    monkeypatch.setattr("triage.web.board._ANSWER_HOLDS_S", 0.0)
    uid = hospital.receive(*hospital.head_ct(slices=1))
    settings = Settings(web=WebSettings(user_header="X-Remote-User"))
    app = create_app(settings, hospital.database, hospital.files, hospital.clock)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        client.put(f"/api/v1/studies/{uid}/claim", json={}, headers=ADA)
        assert "is reading" in rows(client)["rows"][uid]
        clock.advance(settings.worklist.claim_expires_after_s + 1)
        assert "is reading" not in rows(client)["rows"][uid]
