"""What an attacker tries on the pages (OWASP): markup, injected queries, what is others'."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.web.access import HTML, OURS, add_account, log_in, pages
from tests.web.hospital import Hospital, hemorrhage
from triage.core.permissions import Role

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
PAGES = (
    "/",
    "/read",
    "/worklist/rows",
    "/status",
    "/deliveries",
    "/hl7",
    "/models",
    "/account",
    "/audit",
    "/policy",
    "/notifications",
    "/simulation",
    "/find",
)


class _Markup(HTMLParser):
    """Collects what in a page would run, or load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name.startswith("on") or (name in ("src", "href") and _is_foreign(value or "")):
                self.found.append(f"{tag} {name}={value}")
        if tag == "script" and "src" not in dict(attrs):
            self.found.append("inline script")


def _is_foreign(address: str) -> bool:
    is_viewer = address.startswith("http://127.0.0.1:8081/")
    is_local = address.startswith(("/", "#", "?")) and not address.startswith("//")
    return not is_local and not is_viewer


def test_markup_in_patients_and_series_stays_text_on_every_page(
    client: TestClient, hospital: Hospital
) -> None:
    hospital.register_model()
    uid = hospital.receive(
        *hospital.head_ct(
            PatientName=EVIL,
            PatientID=EVIL[:60],
            AccessionNumber="<b>1</b>",
            SeriesDescription=EVIL[:60],
            StudyDescription=EVIL[:60],
        )
    )
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage())
    for path in (*PAGES, f"/studies/{uid}", f"/studies/{uid}/history"):
        answer = client.get(path, headers=HTML)
        assert answer.status_code == 200, path
        text = answer.text
        if path == "/worklist/rows":
            given = answer.json()
            text = "".join((*given["rows"].values(), given["summary"], given["below"]))
            assert "&lt;b&gt;1&lt;/b&gt;" in text
        markup = _Markup()
        markup.feed(text)
        assert markup.found == [], path
        assert "<b>1</b>" not in text


def test_markup_of_who_asks_stays_text(hospital: Hospital) -> None:
    with pages(hospital) as client:
        for name in (EVIL, "'; DROP TABLE users; --"):
            answer = log_in(client, name, next='"><script>alert(1)</script>')
            assert answer.status_code == 401
            assert "<script>alert" not in answer.text
        assert log_in(client, "nobody").status_code == 401  # the table is still there


QUERIES = (
    "PatientID=' OR '1'='1",
    "PatientName=%27%3B DROP TABLE studies%3B--",
    "StudyInstanceUID=1.2.3' UNION SELECT password_hash FROM users--",
    "includefield=00100010' OR 1=1",
    "PatientID=%25",
    "PatientID=_%25_",
    "limit=1;DELETE FROM studies",
)


def test_queries_find_nothing_that_they_do_not_name(client: TestClient, hospital: Hospital) -> None:
    hospital.receive(*hospital.head_ct(slices=1, PatientID="PID-7"))
    for query in QUERIES:
        answer = client.get(f"/dicom-web/studies?{query}")
        assert answer.status_code in (200, 204, 400), query
        assert "password_hash" not in answer.text, query
        if not query.startswith("includefield"):
            assert "PID-7" not in answer.text, query
        assert "PID-7" in client.get("/dicom-web/studies?PatientID=PID-7").text, query


def test_paths_lead_out_of_nowhere(client: TestClient) -> None:
    for path in ("/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py"):
        answer = client.get(path)
        assert answer.status_code == 404, path


def test_errors_tell_nothing_of_the_inside(client: TestClient) -> None:
    for path in ("/studies/1.2'--", "/api/v1/studies/x", "/nothing", "/model-jobs/999999"):
        answer = client.get(path, headers=HTML)
        assert answer.status_code >= 400
        assert not re.search(r"Traceback|sqlalchemy|File \"", answer.text), path


def test_study_numbers_give_nothing_to_who_may_not_see_patients(hospital: Hospital) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    add_account(hospital, "grace", Role.ML_ENGINEER)
    with pages(hospital) as client:
        log_in(client, "grace")
        for path in (
            f"/studies/{uid}",
            f"/api/v1/studies/{uid}",
            f"/studies/{uid}/overlays",
            f"/dicom-web/studies/{uid}",
            f"/dicom-web/studies/{uid}/metadata",
            f"/dicom-web/studies/{uid}/thumbnail",
        ):
            answer = client.get(path)
            assert answer.status_code == 403, path
            assert "Ada" not in answer.text
        for path in (f"/api/v1/studies/{uid}/read", f"/dicom-web/workitems/{uid}/state"):
            assert client.put(path, headers=OURS, json={}).status_code == 403, path


def test_every_answer_over_https_keeps_browsers_there(app: FastAPI) -> None:
    with TestClient(app, base_url="https://127.0.0.1") as client:
        for path in ("/", "/nothing", "/static/triage.css"):
            headers = client.get(path, headers=HTML).headers
            assert headers["strict-transport-security"] == "max-age=31536000"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert "camera=()" in headers["permissions-policy"]
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert "strict-transport-security" not in client.get("/").headers
