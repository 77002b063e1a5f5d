"""Jobs on the pages and over the API, before a worker has done anything about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydicom.uid import generate_uid

from tests.web.hospital import Hospital
from tests.web.packages import NAME, register_versions
from tests.web.test_models_api import OURS
from triage.core.jobs import Checked, CheckedThing, JobState
from triage.core.stages import Stage
from triage.settings import Settings
from triage.store.code_approvals import ask_for_approval
from triage.store.job_files import JobFolder
from triage.store.model_jobs import find_job
from triage.store.model_tables import CodeApprovalRow, ModelRow
from triage.web.app import create_app

API = "/api/v1"
VERSION = f"{API}/models/{NAME}/versions/1.0.0"
HTML = {"Accept": "text/html"}
PAGE = {**HTML, "Origin": "http://127.0.0.1"}
LABELS = ("labels.csv", b"study,hemorrhage\na,1\n")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Small uploads only."""
    return Settings(data_directory=tmp_path / "data", web={"maximum_package_mb": 1})


@pytest.fixture
def app(hospital: Hospital, tmp_path: Path, settings: Settings) -> FastAPI:
    """The application with one version in production."""
    register_versions(
        hospital.database, hospital.clock, tmp_path / "registry", {"1.0.0": Stage.PRODUCTION}
    )
    return create_app(settings, hospital.database, hospital.files, hospital.clock)


def client_of(settings: Settings, hospital: Hospital, **headers: str) -> TestClient:
    app = create_app(settings, hospital.database, hospital.files, hospital.clock)
    return TestClient(app, base_url="http://127.0.0.1", headers=headers, follow_redirects=False)


def folder_of(hospital: Hospital, settings: Settings, job_id: int) -> JobFolder:
    with hospital.database.reading() as session:
        return JobFolder.of(settings.data_directory, find_job(session, job_id).folder)


def end(hospital: Hospital, settings: Settings, job_id: int, *, is_ok: bool = True) -> JobFolder:
    """Let a check be done, with a file."""
    folder = folder_of(hospital, settings, job_id)
    folder.out.mkdir()
    (folder.out / "report.md").write_text("# A report")
    checks = (CheckedThing(name="card", verdict="ok" if is_ok else "wrong", text="<b>short</b>"),)
    outcome = Checked(model="a 1.0.0", package_sha256="", is_ok=is_ok, checks=checks, seconds=1.5)
    with hospital.database.transaction() as session:
        row = find_job(session, job_id)
        row.state, row.outcome = JobState.DONE, outcome.model_dump(mode="json")
    return folder


def test_upload_lies_in_the_jobs_folder_before_the_answer(
    client: TestClient, hospital: Hospital, settings: Settings
) -> None:
    files = {"source": ("C:\\models\\Lung Nodules.v2.ONNX", b"network")}
    answer = client.post(
        f"{API}/model-jobs/init",
        files=files,
        data={"labels": "nodule, effusion", "modality": "ct", "size": "512", "who": "ada"},
        headers=OURS,
    )
    job = answer.json()
    assert (answer.status_code, job["state"], job["who"]) == (
        202,
        "waiting",
        "ada (from testclient)",
    )
    assert job["asked"] == {
        "kind": "init",
        "source": "lung-nodules.onnx",
        "name": "",
        "version": "",
        "modality": "CT",
        "size": 512,
        "labels": ["nodule", "effusion"],
    }
    assert job["waits_for"] == "a worker: none is alive"
    folder = folder_of(hospital, settings, job["job_id"])
    assert (folder.uploads / "lung-nodules.onnx").read_bytes() == b"network"


def test_study_is_named_by_its_uid_or_by_the_address_of_its_page(
    client: TestClient, hospital: Hospital
) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1, rows=16))
    for said in (uid, f"http://127.0.0.1:8080/studies/{uid}", f" /studies/{uid}/#findings "):
        answer = client.post(f"{VERSION}/try", data={"study": said}, headers=OURS)
        assert answer.status_code == 202, answer.text
        assert answer.json()["asked"]["study_instance_uid"] == uid
    page = client.get(f"/models/{NAME}/versions/1.0.0", headers=HTML).text
    assert uid not in page
    assert page.count("data-open-job") == 3


REFUSED: tuple[tuple[str, Any, int, str], ...] = (
    (f"{API}/model-jobs/init", {}, 422, "source: send a file that ends in .zip"),
    (f"{API}/model-jobs/init", {"source": ("a.exe", b"x")}, 422, "source: send a file"),
    (
        f"{API}/model-jobs/init",
        {"source": ("a.pt2", b"x"), "version": (None, "1")},
        422,
        "version: three numbers",
    ),
    (f"{API}/model-jobs/init", {"source": ("a.pt2", bytes(1 << 21))}, 413, "source: it is"),
    (f"{API}/model-jobs/check", {"package": ("a.rar", b"x")}, 422, "package: send a file"),
    (f"{VERSION}/try", {"study": (None, "")}, 422, "study: give either"),
    (
        f"{VERSION}/try",
        {"images": ("a.zip", b"x"), "study": (None, "1.2")},
        422,
        "study: give either",
    ),
    (f"{VERSION}/try", {"study": (None, "../etc")}, 422, "study: give a Study Instance UID"),
    (f"{VERSION}/try", {"study": (None, "1.2.999")}, 404, "study: Triage holds no images"),
    (f"{VERSION}/evaluate", {"images": ("a.zip", b"x")}, 422, "labels: send a file"),
    (f"{VERSION}/evaluate", {"labels": ("a.xls", b"x")}, 422, "labels: send a file"),
    (f"{API}/models/{NAME}/versions/9.9.9/check", {}, 404, "version: "),
    (f"{API}/models/none/versions/1.0.0/evaluate", {"labels": LABELS}, 404, "name: "),
)


def test_refusal_names_the_field_and_leaves_nothing(client: TestClient, settings: Settings) -> None:
    for address, sent, status, words in REFUSED:
        answer = client.post(address, files=sent or None, headers=OURS)
        assert answer.status_code == status, (address, sent, answer.text)
        assert answer.json()["detail"].startswith(words)
        assert answer.json()["field"] == words.partition(":")[0]
        assert client.get(f"{API}/model-jobs").json() == []
        assert not any((settings.data_directory / "jobs").glob("*"))


def test_changes_of_other_sites_are_refused(client: TestClient) -> None:
    evil = {"Origin": "http://evil.example", **HTML}
    for address in (
        "/model-jobs/init",
        "/model-jobs/check",
        f"/models/{NAME}/versions/1.0.0/check",
        f"/models/{NAME}/versions/1.0.0/try",
        f"/models/{NAME}/versions/1.0.0/evaluate",
        "/model-jobs/1/cancel",
        "/model-jobs/1/delete",
        f"/code-approvals/{'0' * 64}",
    ):
        assert client.post(address, headers=evil).status_code == 403, address
        body = {"reason": "x"} if "approvals" in address else None
        api = client.post(f"{API}{address}".replace("/delete", ""), json=body)
        assert api.status_code in (403, 405), address
    assert client.delete(f"{API}/model-jobs/1").status_code == 403


def test_code_that_waits_for_approval_is_checked_and_not_run(
    client: TestClient, hospital: Hospital
) -> None:
    waiting_digest(hospital)
    assert client.post(f"{VERSION}/check", headers=OURS).status_code == 202
    answer = client.post(f"{VERSION}/evaluate", files={"labels": LABELS}, headers=OURS)
    assert (answer.status_code, answer.json()["field"]) == (409, "version")
    assert "waits for approval" in answer.json()["detail"]
    page = client.get(f"/models/{NAME}/versions/1.0.0", headers=HTML).text
    assert "can be looked at and not run" in page


def test_job_is_asked_for_on_a_page_followed_cancelled_and_deleted(
    client: TestClient, hospital: Hospital, settings: Settings
) -> None:
    package = {"package": ("package.zip", b"x")}
    answer = client.post("/model-jobs/check", files=package, headers=PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, "/model-jobs/1")
    page = client.get("/model-jobs/1", headers=HTML).text
    assert "for a worker: none is alive" in page
    assert "data-open-job" in page
    assert client.post("/model-jobs/1/delete", headers=PAGE).status_code == 409
    assert client.post("/model-jobs/1/cancel", headers=PAGE).status_code == 303
    page = client.get("/model-jobs/1", headers=HTML).text
    assert "cancelled by reader at testclient" in page
    assert "data-open-job" not in page
    folder = folder_of(hospital, settings, 1)
    assert not folder.uploads.exists()
    again = client.post(f"{API}/model-jobs/1/cancel", headers=OURS)
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")
    assert client.post("/model-jobs/1/delete", headers=PAGE).headers["location"] == "/model-jobs"
    assert not folder.path.exists()
    assert client.get(f"{API}/model-jobs/1").json()["field"] == "job"


def test_files_of_a_job_are_given_one_by_one_and_all_together(
    client: TestClient, hospital: Hospital, settings: Settings
) -> None:
    client.post(f"{VERSION}/check", json={"who": "ada"}, headers=OURS)
    files = f"{API}/model-jobs/1/files"
    assert client.get(f"{files}/report.md").status_code == 404  # it is not done yet
    end(hospital, settings, 1, is_ok=False)
    answer = client.get(f"{files}/report.md")
    assert answer.text == "# A report"
    assert answer.headers["content-disposition"] == 'attachment; filename="report.md"'
    assert answer.headers["cache-control"] == "private, no-store"
    assert client.get("/model-jobs/1/files").content[:2] == b"PK"
    for name in ("order.json", "..%2forder.json", "log.txt"):
        assert client.get(f"{files}/{name}").status_code in (404, 422), name
    page = client.get("/model-jobs/1", headers=HTML).text
    assert "something is wrong" in page
    assert "&lt;b&gt;short&lt;/b&gt;" in page
    assert client.delete(f"{API}/model-jobs/1", headers=OURS).status_code == 204


def test_too_many_jobs_are_refused(client: TestClient) -> None:
    for _ in range(20):
        assert client.post(f"{VERSION}/check", headers=OURS).status_code == 202
    answer = client.post(f"{VERSION}/check", headers=OURS)
    assert (answer.status_code, answer.json()["field"]) == (409, "job")


@pytest.mark.usefixtures("app")
def test_proxy_names_who_asks_and_who_decides(hospital: Hospital, tmp_path: Path) -> None:
    settings = Settings(data_directory=tmp_path / "data", web={"user_header": "X-Remote-User"})
    nobody = client_of(settings, hospital, **OURS)
    assert nobody.post(f"{VERSION}/check").status_code == 401
    decision = {"reason": "it misbehaves"}
    assert nobody.post(f"{VERSION}/retire", json=decision).status_code == 401
    grey = client_of(settings, hospital, **OURS, **{"X-Remote-User": "Dr Grey"})
    assert grey.post(f"{VERSION}/check", json={"who": "ada"}).json()["who"] == "Dr Grey"
    assert grey.post(f"{VERSION}/retire", json={**decision, "who": "ada"}).status_code == 200
    newest = grey.get(f"{API}/models/{NAME}").json()["events"][0]
    assert (newest["action"], newest["who"]) == ("retired", "Dr Grey")
    page = grey.get(f"/models/{NAME}", headers=HTML).text
    assert 'name="reason"' in page
    assert 'name="who"' not in page


def test_description_of_the_api_has_the_jobs(client: TestClient) -> None:
    schema = client.get("/api/v1/openapi.json").json()
    assert {"JobView", "Checked", "Tried", "Evaluated", "CodeApproval"} <= set(
        schema["components"]["schemas"]
    )
    form = schema["paths"][f"{API}/models/{{name}}/versions/{{version}}/try"]["post"]
    properties = form["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(properties) == {"study", "images", "who"}


def waiting_digest(hospital: Hospital) -> str:
    """Let the code of version 1.0.0 wait, and return its digest."""
    with hospital.database.transaction() as session:
        digest = session.query(ModelRow).filter_by(version="1.0.0").one().package_sha256
        session.delete(session.get(CodeApprovalRow, digest))
        session.flush()
        ask_for_approval(session, digest, now=hospital.clock())
    return digest


WHY = {"who": "A. Grey", "reason": "read it, ticket 4711"}


def test_administrator_approves_code_by_its_digest(client: TestClient, hospital: Hospital) -> None:
    digest = waiting_digest(hospital)
    (waiting,) = client.get(f"{API}/code-approvals").json()
    assert (waiting["package_sha256"], waiting["who"]) == (digest, "")
    assert waiting["models"][0]["version"] == "1.0.0"
    assert waiting["code"][0]["file"] == "model.pt2"
    page = client.get("/code-approvals", headers=HTML).text
    assert "cannot be read as an exported program" in page
    assert "Code approvals (1 waiting)" in client.get("/models", headers=HTML).text
    nameless = client.post(f"/code-approvals/{digest}", data={"reason": "x"}, headers=PAGE)
    assert nameless.status_code == 422
    answer = client.post(f"/code-approvals/{digest}", data=WHY, headers=PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, "/code-approvals")
    page = client.get("/code-approvals", headers=HTML).text
    assert "By A. Grey (from testclient)" in page
    assert "ticket 4711" in page
    assert "No code waits" in page
    event = client.get(f"{API}/models/{NAME}").json()["events"][0]
    assert (event["action"], event["reason"]) == ("approved", "read it, ticket 4711")
    again = client.post(f"{API}/code-approvals/{digest}", json=WHY, headers=OURS)
    assert (again.status_code, again.json()["field"]) == (409, "package_sha256")
    unknown = client.post(f"{API}/code-approvals/{'0' * 64}", json=WHY, headers=OURS)
    assert unknown.status_code == 409


@pytest.mark.usefixtures("app")
def test_only_named_persons_approve_where_others_reach_the_pages(
    hospital: Hospital, tmp_path: Path
) -> None:
    address = f"{API}/code-approvals/{waiting_digest(hospital)}"

    def answer(person: str = "", **changes: Any) -> tuple[int, str]:
        settings = Settings(data_directory=tmp_path / "data", **changes)
        client = client_of(settings, hospital, **OURS, **{"X-Remote-User": person})
        given = client.post(address, json=WHY)
        page = client.get("/code-approvals", headers=HTML).text
        assert ("You cannot approve here" in page) is (given.status_code == 403)
        return given.status_code, given.text

    status, words = answer(web={"allowed_hosts": ["triage.hospital.example"]})
    assert (status, "name in trust.approvers" in words) == (403, True)
    with_log_in: dict[str, Any] = {"web": {"user_header": "X-Remote-User"}}
    assert answer("Dr Grey", **with_log_in)[0] == 403
    named = {**with_log_in, "trust": {"approvers": ["A. Grey"]}}
    assert answer("Dr Nobody", **named)[0] == 403
    assert answer(**named)[0] == 403
    assert answer("A. Grey", **named)[0] == 200


def test_unknown_job_is_said_on_a_page(client: TestClient) -> None:
    answer = client.get("/model-jobs/77", headers=HTML)
    assert answer.status_code == 404
    assert "there is no job 77" in answer.text
    assert client.get(f"/model-jobs/{generate_uid()}", headers=HTML).status_code == 422
