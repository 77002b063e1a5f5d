"""Finding a study, and its life on one line of time, through the pages and the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from pydicom.uid import generate_uid

from tests.web.hospital import Hospital, hemorrhage
from triage.core.visits import Ending, Way
from triage.store.visits import Caller, VisitPart, record_visit_parts
from triage.web.timeline import scale_of, timeline
from triage.worklist.lanes import Bar, Lane, Tone

OURS = {"Origin": "http://127.0.0.1"}
HTML = {"Accept": "text/html"}
SCRIPT = {"X-Triage-Request": "script"}
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def study(hospital: Hospital) -> str:
    """A study of CT1 that is still arriving; a model wants it."""
    hospital.register_model()
    uid = hospital.receive(*hospital.head_ct())
    now = hospital.clock()
    part = VisitPart(
        Caller("CT1", "192.0.2.17", Way.DICOM),
        study_id=1,
        is_first=True,
        instances=4,
        refused=0,
        size_bytes=33_000_000,
        began_at=now - timedelta(seconds=9),
        last_at=now,
        ended=Ending.ABORTED,
        last_error="",
    )
    with hospital.database.transaction() as session:
        record_visit_parts(session, [part])
    return uid


def analysed(hospital: Hospital, uid: str) -> None:
    """Let the study be complete and analysed, with a finding."""
    hospital.complete(uid)
    hospital.clock.advance(2)
    run = hospital.claim()
    hospital.clock.advance(5)
    hospital.finish(run, hemorrhage())


def test_study_is_found_on_the_page_and_what_was_asked_is_in_no_address(
    client: TestClient, study: str
) -> None:
    assert "<form" in client.get("/find", headers=HTML).text
    found = client.post("/find", data={"text": "synthetic ada"}, headers=OURS | HTML)
    assert found.status_code == 200
    assert f'href="/studies/{study}/history"' in found.text
    assert "synthetic" not in str(found.url)
    assert client.get("/find?text=synthetic", headers=HTML).text.count(study) == 0
    nothing = client.post("/find", data={"patient_name": "nobody"}, headers=OURS | HTML).text
    assert "has never held such a study" in nothing
    assert "Give at least one" in client.post("/find", data={}, headers=OURS | HTML).text
    wrong = client.post("/find", data={"study_date": "1.3.26"}, headers=OURS | HTML).text
    assert "a date is written 2026-03-01" in wrong


def test_search_of_another_site_and_without_a_key_is_refused(
    client: TestClient, study: str
) -> None:
    foreign = {"Origin": "http://elsewhere.example"}
    assert client.post("/find", data={"text": "a"}, headers=foreign).status_code == 403
    assert client.post("/api/v1/studies/search", json={"text": "a"}).status_code == 403
    empty = client.post("/api/v1/studies/search", json={}, headers=SCRIPT)
    assert (empty.status_code, "accession_number" in empty.json()["detail"]) == (422, True)
    unknown = client.post("/api/v1/studies/search", json={"pateint": "a"}, headers=SCRIPT)
    assert (unknown.status_code, "pateint" in unknown.json()["detail"]) == (422, True)


def test_api_finds_and_tells_the_life(client: TestClient, hospital: Hospital, study: str) -> None:
    analysed(hospital, study)
    asked = {"patient_id": "SYN-0001", "study_date": "2026-03-01"}
    (found,) = client.post("/api/v1/studies/search", json=asked, headers=SCRIPT).json()["studies"]
    assert (found["study_instance_uid"], found["images"]) == (study, 4)
    life = client.get(f"/api/v1/studies/{study}/history").json()
    assert life["where"]["stage"] == "reading"
    lanes = {lane["name"]: lane["bars"] for lane in life["lanes"]}
    (sent,) = lanes["CT1, DICOM from 192.0.2.17"]
    assert (sent["tone"], sent["text"]) == ("failed", "4 images, 33.0 MB; aborted")
    tones = [bar["tone"] for bar in lanes["head-ct-hemorrhage 1.0.0"]]
    assert tones == ["wait", "infer"]
    assert [bar["text"] for bar in lanes["priority"]] == [
        "Routine to STAT: Hemorrhage, 12.3 mL, confidence 0.97, head-ct-hemorrhage 1.0.0"
    ]
    kinds = [event["kind"] for event in life["events"]]
    assert kinds[:3] == ["sent", "received", "complete"]
    assert {"routed", "run", "flagged", "analysed", "priority"} <= set(kinds)
    assert client.get(f"/api/v1/studies/{generate_uid()}/history").status_code == 404


def test_page_has_the_picture_the_table_and_what_can_be_done(
    client: TestClient, hospital: Hospital, study: str
) -> None:
    page = client.get(f"/studies/{study}/history", headers=HTML).text
    assert "Images have arrived" in page
    assert f'action="/studies/{study}/complete"' in page
    assert 'class="life"' in page
    assert "CT1, DICOM from 192.0.2.17" in page
    assert " style=" not in page  # the policy forbids it
    analysed(hospital, study)
    page = client.get(f"/studies/{study}/history", headers=HTML).text
    assert f'action="/studies/{study}/rerun"' in page
    assert "/cancel" not in page
    assert client.get(f"/studies/{generate_uid()}/history", headers=HTML).status_code == 404


def test_buttons_complete_run_again_and_cancel_with_a_reason(
    client: TestClient, hospital: Hospital, study: str
) -> None:
    here = f"/studies/{study}"
    without = client.post(f"{here}/complete", data={"reason": " "}, headers=OURS)
    assert without.status_code == 422
    because = {"reason": "the scanner was switched off"}
    done = client.post(f"{here}/complete", data=because, headers=OURS)
    assert (done.status_code, done.headers["location"]) == (303, f"{here}/history")
    again = client.post(f"{here}/complete", data=because, headers=OURS)
    assert (again.status_code, "complete already" in again.json()["detail"]) == (409, True)
    ended = client.post("/runs/1/cancel", data=because, headers=OURS)
    assert ended.headers["location"] == f"{here}/history"
    said = client.get(f"/api{'/v1'}{here}").json()["status"]["text"]
    assert "not analysed: cancelled by reader at testclient: the scanner was switched off" in said
    assert study in client.get("/", headers=HTML).text  # and it stays on the list
    client.post(f"{here}/rerun", data=because | {"model": "head-ct-hemorrhage"}, headers=OURS)
    runs = client.get(f"/api/v1{here}/history").json()["runs"]
    assert [(run["state"], run["can_be_cancelled"]) for run in runs] == [
        ("superseded", False),
        ("pending", True),
    ]


def test_api_acts_in_the_name_of_who_asks(
    client: TestClient, hospital: Hospital, study: str
) -> None:
    body = {"who": "PACS script", "reason": "night shift"}
    api = f"/api/v1/studies/{study}"
    assert client.post(f"{api}/complete", json=body).status_code == 403  # no header
    assert client.post(f"{api}/complete", json=body, headers=SCRIPT).status_code == 204
    refused = client.post(f"{api}/rerun", json=body, headers=SCRIPT)
    assert (refused.status_code, "queued or running" in refused.json()["detail"]) == (409, True)
    assert client.post("/api/v1/runs/1/cancel", json=body, headers=SCRIPT).status_code == 204
    assert client.post("/api/v1/runs/9/cancel", json=body, headers=SCRIPT).status_code == 404
    ran = client.post(f"{api}/rerun", json=body, headers=SCRIPT).json()
    assert ran == {"queued": ["head-ct-hemorrhage 1.0.0"], "refused": []}
    text = str(client.get(f"{api}/history").json()["events"])
    assert "cancelled by PACS script: night shift" in text


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def bar(start: float, end: float, *, is_idle: bool = False) -> Bar:
    return Bar(start=at(start), end=at(end), tone=Tone.DONE, text="x", is_idle=is_idle)


def test_hours_in_which_nothing_is_done_are_short_and_seconds_of_work_can_be_seen() -> None:
    scale = scale_of([bar(0, 10), bar(10, 4000, is_idle=True), bar(4000, 4010), bar(90000, 90000)])
    assert scale.at(at(0)) == 0
    assert scale.at(at(90000)) == pytest.approx(100)
    work = scale.at(at(10))
    assert work == pytest.approx(scale.at(at(4010)) - scale.at(at(4000)))
    assert work > 35
    assert [b.text for b in scale.breaks] == ["1 h 06 min", "23 h 53 min"]
    assert scale.at(at(5)) == pytest.approx(work / 2)


def test_picture_of_one_moment_and_of_nothing_but_moments() -> None:
    one = timeline([Lane(group="Arrival", name="CT1", bars=(bar(0, 0),))])
    assert [shape.width for shape in one.rows[0].shapes] == [0]
    several = timeline([Lane(group="a", name="b", bars=tuple(bar(t, t) for t in (0, 60, 7200)))])
    places = [shape.x for shape in several.rows[0].shapes]
    assert places == sorted(places)
    assert places[-1] == pytest.approx(100)
