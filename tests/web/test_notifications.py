"""Notifications on the pages and in the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.web.access import trail
from tests.web.hospital import Hospital
from tests.web.notified import flag, notifying_app, work
from triage.settings import NotificationSettings, Settings
from triage.web.app import create_app

API = "/api/v1/notifications"
OURS = {"X-Triage-Request": "tests"}


@pytest.fixture
def app(hospital: Hospital, tmp_path: Path) -> FastAPI:
    """The application of a hospital in which people are told."""
    return notifying_app(hospital, tmp_path / "data")


@pytest.fixture
def named(hospital: Hospital, tmp_path: Path) -> Iterator[TestClient]:
    """The same behind a proxy that says who is at the browser."""
    app = notifying_app(hospital, tmp_path / "data", user_header="X-Remote-User")
    with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
        yield client


def as_user(name: str) -> dict[str, str]:
    return {"X-Remote-User": name, **OURS}


def test_list_shows_what_waits_and_what_became_of_the_rest(
    client: TestClient, hospital: Hospital
) -> None:
    uid = flag(hospital)
    entry = client.get(API).json()["entries"][0]
    assert (entry["study_instance_uid"], entry["state"], entry["priority"]) == (uid, "sent", "stat")
    page = client.get("/notifications", headers={"Accept": "text/html"}).text
    assert "Hemorrhage, 12.3 mL, confidence 0.97" in page
    assert f'href="/studies/{uid}"' in page
    assert "Synthetic, Ada 1" in page
    client.post(f"{API}/1/acknowledge", json={"who": "grace"}, headers=OURS)
    assert client.get(API).json()["total"] == 0
    assert client.get(f"{API}?show=all").json()["entries"][0]["acknowledged_by"] == "grace"


def test_opening_the_link_of_a_mail_acknowledges_nothing(
    client: TestClient, hospital: Hospital
) -> None:
    flag(hospital)
    for address in ("/notifications/1", f"{API}/1", f"{API}/bell"):
        assert client.get(address).status_code == 200
    assert client.get("/notifications/1/acknowledge").status_code == 405
    assert client.head("/notifications/1/acknowledge").status_code == 405
    assert client.get(f"{API}/1").json()["state"] == "sent"


def test_acknowledging_from_another_site_s_page_is_refused(
    client: TestClient, hospital: Hospital
) -> None:
    flag(hospital)
    foreign = {"Origin": "https://elsewhere.example"}
    assert client.post("/notifications/1/acknowledge", headers=foreign).status_code == 403
    assert client.post(f"{API}/1/acknowledge", json={}, headers=foreign).status_code == 403
    assert client.get(f"{API}/1").json()["state"] == "sent"


def test_button_acknowledges_and_leads_back(client: TestClient, hospital: Hospital) -> None:
    flag(hospital)
    hospital.clock.advance(90)
    came_from = "http://127.0.0.1/notifications?show=open"
    answer = client.post("/notifications/1/acknowledge", headers={**OURS, "Referer": came_from})
    assert (answer.status_code, answer.headers["location"]) == (303, "/notifications?show=open")
    one = client.get(f"{API}/1").json()
    assert (one["acknowledged_by"], one["acknowledged_via"]) == ("reader at testclient", "page")
    page = client.get("/notifications/1", headers={"Accept": "text/html"}).text
    assert "by reader at testclient, 1 min after the flag" in page


def test_what_cannot_be_acknowledged_is_refused_with_the_reason(
    client: TestClient, hospital: Hospital
) -> None:
    uid = flag(hospital)
    assert client.post(f"{API}/7/acknowledge", json={}, headers=OURS).status_code == 404
    assert client.get(f"{API}/7").status_code == 404
    client.post(
        "/api/v1/runs/1/withdraw", json={"reason": "wrong-result", "who": "ada"}, headers=OURS
    )
    refused = client.post(f"{API}/1/acknowledge", json={}, headers=OURS)
    assert refused.status_code == 409
    assert "is withdrawn" in refused.json()["detail"]
    assert "because the result is wrong" in refused.json()["detail"]
    assert client.get(f"/studies/{uid}").status_code == 200


def test_bell_is_each_person_s_own(named: TestClient, hospital: Hospital) -> None:
    flag(hospital)
    bell = f"{API}/bell"
    assert named.get(bell, headers=as_user("ada")).json()["count"] == 1
    assert named.get(bell, headers=as_user("grace")).json()["count"] == 0
    assert named.get(bell, headers=as_user("somebody")).json()["count"] == 0
    work(hospital, 600)
    assert named.get(bell, headers=as_user("grace")).json()["count"] == 1
    mine = named.get(f"{API}?show=mine", headers=as_user("alan")).json()
    assert mine["total"] == 0
    answer = named.post(f"{API}/1/acknowledge", json={"who": "me"}, headers=as_user("grace"))
    assert answer.json()["acknowledged_by"] == "grace"  # and not whom the body names
    assert named.get(bell, headers=as_user("ada")).json()["count"] == 0
    assert named.post(f"{API}/1/acknowledge", json={}, headers=OURS).status_code == 401


def test_snooze_holds_for_the_person_and_has_a_limit(named: TestClient, hospital: Hospital) -> None:
    ada = as_user("ada")
    answer = named.post(f"{API}/snooze", json={"minutes": 60}, headers=ada)
    assert answer.json()["recipient"] == "ada"
    page = named.get("/notifications", headers={"Accept": "text/html", **ada}).text
    assert "ada is snoozed until" in page
    too_long = named.post(f"{API}/snooze", json={"minutes": 1000}, headers=ada)
    assert (too_long.status_code, too_long.json()["field"]) == (422, "minutes")
    stranger = named.post(f"{API}/snooze", json={"minutes": 10}, headers=as_user("nobody"))
    assert (stranger.status_code, stranger.json()["field"]) == (422, "recipient")
    form = named.post("/notifications/snooze", data={"minutes": "0"}, headers=ada)
    assert form.status_code == 303


def test_figures_say_how_long_people_took(client: TestClient, hospital: Hospital) -> None:
    for seconds in (30, 60, 700):
        flag(hospital)
        number = client.get(API).json()["entries"][0]["notification_id"]
        work(hospital, seconds)
        client.post(f"{API}/{number}/acknowledge", json={"who": "ada"}, headers=OURS)
    figures = client.get(f"{API}/figures").json()
    assert figures["states"] == {"acknowledged": 3}
    assert (figures["median_s"], figures["p90_s"], figures["escalated"]) == (60, 700, 1)


def test_preview_tells_nobody_and_says_who_would_be_told_when(
    client: TestClient, hospital: Hospital
) -> None:
    settings, hospital.notifications = hospital.notifications, NotificationSettings()
    flag(hospital)
    flag(hospital)
    hospital.notifications = settings
    assert client.get(f"{API}?show=all").json()["total"] == 0
    preview = client.get(f"{API}/preview").json()
    assert preview["notifications"] == {"critical": 2}
    assert [(one["recipient"], one["at_once"]) for one in preview["hours"]] == [("ada", 2)]
    assert client.get(f"{API}?show=all").json()["total"] == 0


def test_bell_is_there_only_where_people_are_told(
    client: TestClient, hospital: Hospital, tmp_path: Path
) -> None:
    html = {"Accept": "text/html"}
    assert 'id="bell"' in client.get("/", headers=html).text
    app = create_app(
        Settings(data_directory=tmp_path), hospital.database, hospital.files, hospital.clock
    )
    with TestClient(app, base_url="http://127.0.0.1") as plain:
        assert 'id="bell"' not in plain.get("/", headers=html).text
        assert "Nobody is notified" in plain.get("/notifications", headers=html).text


def test_bell_is_audited_only_while_it_shows_patients(
    client: TestClient, hospital: Hospital
) -> None:
    assert client.get(f"{API}/bell").json()["count"] == 0
    assert trail(client) == []
    uid = flag(hospital)
    assert client.get(f"{API}/bell").json()["count"] == 1
    client.get("/notifications/1")
    said = [(one.event.type, one.event.study_instance_uid) for one in trail(client)]
    assert said == [("GET /notifications/{number}", uid), (f"GET {API}/bell", uid)]
