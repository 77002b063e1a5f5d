"""Pages and API over HTTP: what they say, what they refuse, and what every answer carries."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from tests.web.hospital import Hospital, hemorrhage
from triage.core.priors import Comparable, PriorState
from triage.settings import Settings, WebSettings
from triage.store.database import Database
from triage.store.model_tables import ModelRow
from triage.store.priors import set_prior_state, want_priors
from triage.store.tables import StudyRow
from triage.web.app import WebError, create_app, run_web
from triage.web.live import LiveUpdates
from triage.web.static_files import STATIC_ROOT
from triage.worklist.reading import mark_as_read

HTML = {"Accept": "text/html"}
OURS = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def test_worklist_page_shows_studies_in_order(client: TestClient, hospital: Hospital) -> None:
    hospital.receive(*hospital.head_ct(slices=1))
    hospital.receive(*hospital.head_ct(slices=1, RequestedProcedurePriority="STAT"))
    page = client.get("/", headers=HTML).text
    assert page.index("Synthetic, Ada 2") < page.index("Synthetic, Ada 1")


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    for path in ("/", "/status", "/read", "/studies/1.2.3", "/api/v1/worklist", "/nothing"):
        headers = client.get(path, headers=HTML).headers
        policy = headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe-inline" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "private, no-store"


def test_pages_hold_no_inline_script_or_style() -> None:
    folder = Path(create_app.__code__.co_filename).parent
    for template in (folder / "templates").glob("*.html"):
        text = template.read_text("utf-8")
        assert "<style" not in text
        assert " style=" not in text
        assert " on" not in "".join(part for part in text.split() if part.startswith("on"))
        assert "|safe" not in text
        for script in text.split("<script")[1:]:
            assert re.search(r'src="(/static|\{\{ static \}\})/js/', script.split(">")[0])


def test_names_and_descriptions_cannot_become_markup(
    client: TestClient, hospital: Hospital
) -> None:
    hospital.register_model()
    uid = hospital.receive(
        *hospital.head_ct(
            PatientName=EVIL, SeriesDescription=EVIL[:60], StudyDescription=EVIL[:60], Modality="CT"
        )
    )
    hospital.complete(uid)
    for path in ("/", f"/studies/{uid}", "/status", "/worklist/rows"):
        page = client.get(path, headers=HTML).text
        assert "<script>alert" not in page
        assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in client.get("/").text


def test_rows_are_not_sent_again_when_nothing_changed(
    client: TestClient, hospital: Hospital
) -> None:
    hospital.receive(*hospital.head_ct(slices=1))
    first = client.get("/worklist/rows")
    again = client.get("/worklist/rows", headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code) == (200, 304)


def test_study_page_tells_the_whole_story(client: TestClient, hospital: Hospital) -> None:
    hospital.register_model()
    uid = hospital.receive(*hospital.head_ct())
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage())
    page = client.get(f"/studies/{uid}", headers=HTML).text
    for words in (
        "Synthetic, Ada 1",
        "Head 5 mm",
        "Confidence 0.97",
        "Volume 12.3 mL",
        "not for clinical use",
        "first image from CT1",
        "Complete: association released",
        "queued for head-ct-hemorrhage 1.0.0",
    ):
        assert words in page


def test_parked_model_is_on_the_status_page_and_its_study_on_the_worklist(
    client: TestClient, hospital: Hospital
) -> None:
    hospital.register_model()
    hospital.complete(hospital.receive(*hospital.head_ct()))
    with hospital.database.transaction() as session:
        model = session.scalars(select(ModelRow)).one()
        model.parked_until, model.parked_reason = hospital.clock(), "the device is full"
    status = client.get("/status", headers=HTML).text
    assert "Parked models" in status
    assert "the device is full" in status
    worklist = client.get("/", headers=HTML).text
    assert "Synthetic, Ada 1" in worklist
    assert "not analysed: model unavailable, because the device is full" in worklist


def test_unknown_and_malformed_studies(client: TestClient) -> None:
    assert client.get("/studies/1.2.3", headers=HTML).status_code == 404
    assert "no such study" in client.get("/studies/1.2.3", headers=HTML).text
    for wrong in ("abc", "1..2", "1" * 65, "1.2;drop"):
        answer = client.get(f"/studies/{wrong}", headers=HTML)
        assert answer.status_code == 422
        assert wrong not in answer.text.replace(f"/studies/{wrong}", "")
        assert client.get(f"/api/v1/studies/{wrong}").status_code == 422


def test_mark_as_read_and_back(client: TestClient, hospital: Hospital) -> None:
    uid = hospital.receive(*hospital.head_ct())
    answer = client.post(f"/studies/{uid}/read", headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert client.get("/api/v1/worklist").json()["counts"]["total"] == 0
    assert "Put back" in client.get("/read").text
    referer = {"Referer": f"http://127.0.0.1/studies/{uid}"}
    answer = client.post(f"/studies/{uid}/unread", headers=OURS | referer)
    assert answer.headers["location"] == f"/studies/{uid}"
    assert client.get("/api/v1/worklist").json()["counts"]["total"] == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_changes_from_other_sites_are_refused(
    client: TestClient, hospital: Hospital, headers: dict[str, str]
) -> None:
    uid = hospital.receive(*hospital.head_ct())
    for path in (f"/studies/{uid}/read", f"/studies/{uid}/unread", "/deliveries/1/resend"):
        assert client.post(path, headers=headers).status_code == 403
    assert client.put(f"/api/v1/studies/{uid}/read", headers=headers).status_code == 403
    assert client.get("/api/v1/worklist").json()["counts"]["total"] == 1


def test_next_study_is_the_one_to_be_read_next(client: TestClient, hospital: Hospital) -> None:
    first = hospital.receive(*hospital.head_ct(slices=1))
    assert client.get(f"/next?after={first}").headers["location"] == "/"
    urgent = hospital.receive(*hospital.head_ct(slices=1, RequestedProcedurePriority="STAT"))
    assert client.get(f"/next?after={first}").headers["location"] == f"/studies/{urgent}"
    assert client.get(f"/next?after={urgent}").headers["location"] == f"/studies/{first}"
    assert client.get("/next?after=//evil.example").status_code == 422


def test_redirect_never_leaves_the_site(client: TestClient, hospital: Hospital) -> None:
    uid = hospital.receive(*hospital.head_ct())
    away = {"Referer": "http://127.0.0.1//evil.example/"}
    answer = client.post(f"/studies/{uid}/read", headers=OURS | away)
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "10.0.0.7"])
def test_unknown_hosts_are_refused_on_loopback(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 421


def test_hosts_of_an_open_server(hospital: Hospital) -> None:
    settings = Settings(web=WebSettings(host="0.0.0.0", allowed_hosts=("triage.hospital",)))
    app = create_app(settings, hospital.database, hospital.files, hospital.clock)
    client = TestClient(app)
    for host, status in (
        ("triage.hospital", 200),
        ("10.0.0.7:8080", 200),
        ("evil.example", 421),
    ):
        assert client.get("/healthz", headers={"Host": host}).status_code == status


def test_api_gives_worklist_and_study(client: TestClient, hospital: Hospital) -> None:
    hospital.register_model()
    uid = hospital.receive(*hospital.head_ct())
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage())
    (entry,) = client.get("/api/v1/worklist").json()["entries"]
    assert entry["priority"] == "stat"
    assert entry["order_priority"] == "routine"
    assert entry["status"]["kind"] == "flagged"
    study = client.get(f"/api/v1/studies/{uid}").json()
    assert len(study["series"][0]["images"]) == 4
    assert study["findings"][0]["confidence"] == 0.97
    own = {"X-Triage-Request": "script"}
    assert client.put(f"/api/v1/studies/{uid}/read", headers=own).status_code == 204
    assert client.get("/api/v1/worklist").json()["entries"] == []
    assert client.delete(f"/api/v1/studies/{uid}/read", headers=own).status_code == 204
    assert client.get("/api/v1/status").json()["runs"]["completed"] == 1
    assert "/api/v1/worklist" in client.get("/api/v1/openapi.json").json()["paths"]


def test_resend_of_a_delivery_that_does_not_exist(client: TestClient) -> None:
    answer = client.post("/deliveries/7/resend", headers=OURS | HTML)
    assert answer.status_code == 409
    assert "there is no delivery 7" in answer.text


def test_database_that_is_away_is_said_in_words(client: TestClient, hospital: Hospital) -> None:
    with hospital.database.transaction() as session:
        session.connection().exec_driver_sql("DROP TABLE study_events")
    answer = client.get("/status", headers=HTML)
    assert answer.status_code == 503
    assert "Studies are not lost" in answer.text


def test_port_in_use_is_said_with_a_way_out(sqlite_url: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(WebError, match=f"TRIAGE_WEB__PORT={port + 1}"):
            run_web(Settings(web=WebSettings(port=port)))


async def take(live: LiveUpdates, messages: list[dict[str, Any]], count: int) -> None:
    async for message in live.stream():
        for line in message.splitlines():
            if line.startswith("data: "):
                messages.append(json.loads(line.removeprefix("data: ")))
        if len(messages) >= count:
            return


async def test_every_open_page_hears_of_a_change(
    hospital: Hospital, sqlite_database: Database
) -> None:
    live = LiveUpdates(sqlite_database)
    old = hospital.receive(*hospital.head_ct(slices=1))
    heard: list[list[dict[str, Any]]] = [[], []]
    pages = [asyncio.create_task(take(live, messages, 2)) for messages in heard]
    while not all(heard):
        await asyncio.sleep(0.01)
    new = hospital.receive(*hospital.head_ct(slices=1))
    await asyncio.wait_for(asyncio.gather(*pages), 10)
    live.close()
    for first, second in heard:
        assert first["all"] is True
        assert second["studies"] == {new: ["received"]}
        assert old not in second["studies"]


async def test_streams_end_when_the_server_stops(sqlite_database: Database) -> None:
    live = LiveUpdates(sqlite_database)
    messages: list[dict[str, Any]] = []
    page = asyncio.create_task(take(live, messages, 99))
    while not messages:
        await asyncio.sleep(0.01)
    live.close()
    await asyncio.wait_for(page, 5)


def test_reading_is_told_to_open_pages(hospital: Hospital) -> None:
    live = LiveUpdates(hospital.database)
    uid = hospital.receive(*hospital.head_ct(slices=1))
    live._look()
    with hospital.database.transaction() as session:
        mark_as_read(session, uid, now=hospital.clock())
    update = live._look()
    assert update is not None
    assert [(c.study_instance_uid, c.kind) for c in update.changes] == [(uid, "read")]
    assert live._look() is None


def test_study_page_lists_the_priors_with_what_became_of_each(
    client: TestClient, hospital: Hospital
) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    earlier = hospital.receive(*hospital.head_ct(slices=1))
    candidates = [
        Comparable(earlier, study_date="20250102", modalities=frozenset({"CT"})),
        Comparable("1.2.9", study_date="20240102", description=EVIL),
    ]
    with hospital.database.transaction() as session:
        study_id = session.scalars(
            select(StudyRow.id).where(StudyRow.study_instance_uid == uid)
        ).one()
        want_priors(session, study_id, candidates, now=hospital.clock())
        set_prior_state(
            session,
            study_id,
            earlier,
            PriorState.HERE,
            "1 of 1 images are here",
            now=hospital.clock(),
        )
        set_prior_state(
            session,
            study_id,
            "1.2.9",
            PriorState.FAILED,
            "pacs cannot be reached",
            now=hospital.clock(),
        )
    page = client.get(f"/studies/{uid}", headers=HTML).text
    assert f'<a href="/studies/{earlier}">2025-01-02' in page
    assert "/studies/1.2.9" not in page
    assert "pacs cannot be reached" in page
    assert "<script>alert" not in page
    found = client.get(f"/api/v1/studies/{uid}").json()["priors"]
    assert [(prior["state"], prior["is_in_store"]) for prior in found] == [
        ("here", True),
        ("failed", False),
    ]


def test_page_of_a_study_without_priors_says_nothing_of_them(
    client: TestClient, hospital: Hospital
) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    assert 'id="priors"' not in client.get(f"/studies/{uid}", headers=HTML).text


def test_browsers_keep_scripts_under_the_address_of_their_content(
    client: TestClient, hospital: Hospital
) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    page = client.get(f"/studies/{uid}", headers={"Accept": "text/html"}).text
    kept = re.search(r'src="(/static/[0-9a-f]{16}/js/study\.js)"', page)
    assert kept is not None
    answer = client.get(kept[1])
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    plain = client.get("/static/js/study.js")
    assert plain.content == answer.content
    assert plain.headers["Cache-Control"] == "no-cache"
    first = re.search(r'rel="preload" as="fetch" crossorigin[^>]* href="([^"]+)"', page)
    assert first is not None
    assert client.get(first[1]).headers["X-Image-Rows"] == "64"  # the page asks for it at once
    picture = re.search(r'rel="preload" as="image"[^>]* href="([^"]+)"', page)
    assert picture is not None
    assert client.get(picture[1]).headers["Content-Type"] == "image/png"


def test_kept_files_are_files_and_nothing_else(client: TestClient) -> None:
    assert client.get(f"{STATIC_ROOT}/icon.svg").headers["Content-Type"] == "image/svg+xml"
    for path in ("", "/", "/js", "/js/", "/../static_files.py", "/%2e%2e/static_files.py"):
        assert client.get(f"{STATIC_ROOT}{path}").status_code in (307, 404)
    assert client.post(f"{STATIC_ROOT}/icon.svg").status_code in (403, 405)
