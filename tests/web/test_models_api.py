"""The API of the models."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.web.hospital import Hospital, hemorrhage
from tests.web.packages import NAME, park, register_versions, write_package
from triage.core.stages import Stage
from triage.settings import Settings
from triage.store.model_tables import ModelRow
from triage.web.app import create_app

API = "/api/v1/models"
OURS = {"X-Triage-Request": "1"}
WHY = {"who": "ada", "reason": "it does better"}


@pytest.fixture
def app(hospital: Hospital, tmp_path: Path) -> FastAPI:
    """The application, with 1.0.0 in production and 1.1.0 and 2.0.0 as shadows."""
    stages = {"1.0.0": Stage.PRODUCTION, "1.1.0": Stage.SHADOW, "2.0.0": Stage.SHADOW}
    register_versions(hospital.database, hospital.clock, tmp_path / "registry", stages)
    settings = Settings(data_directory=tmp_path / "data", web={"maximum_package_mb": 1})
    return create_app(settings, hospital.database, hospital.files, hospital.clock)


def stages(client: TestClient) -> dict[str, str]:
    return {v["version"]: v["stage"] for v in client.get(API).json()}


def archive_of(folder: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder).as_posix())
    return content.getvalue()


def test_versions_are_promoted_retired_and_rolled_back(client: TestClient) -> None:
    promoted = client.post(
        f"{API}/{NAME}/versions/1.1.0/promote", json={"to": "production", **WHY}, headers=OURS
    )
    assert (promoted.status_code, promoted.json()["stage"]) == (200, "production")
    assert stages(client) == {"2.0.0": "shadow", "1.1.0": "production", "1.0.0": "retired"}
    client.post(
        f"{API}/{NAME}/versions/2.0.0/promote",
        json={"to": "canary", "share": 0.3, **WHY},
        headers=OURS,
    )
    client.post(f"{API}/{NAME}/versions/2.0.0/retire", json=WHY, headers=OURS)
    client.post(f"{API}/{NAME}/rollback", json=WHY, headers=OURS)
    assert stages(client) == {"2.0.0": "retired", "1.1.0": "retired", "1.0.0": "production"}
    newest = client.get(f"{API}/{NAME}").json()["events"][0]
    assert (newest["action"], newest["reason"]) == ("rolled-back", "it does better")
    assert newest["who"] == "ada (from testclient)"


def test_parked_version_goes_on_when_a_person_says_so(
    client: TestClient, hospital: Hospital
) -> None:
    park(hospital)
    address = f"{API}/{NAME}/versions/1.0.0/resume"
    assert client.post(address, json=WHY).status_code == 403
    assert client.post(address, json=WHY, headers=OURS).status_code == 200
    assert not client.get(f"{API}/{NAME}").json()["versions"][-1]["health"]["is_parked"]
    newest = client.get(f"{API}/{NAME}").json()["events"][0]
    assert (newest["action"], newest["who"]) == ("unparked", "ada (from testclient)")
    again = client.post(address, json=WHY, headers=OURS)
    assert (again.status_code, again.json()["field"]) == (409, "version")
    assert "is not parked" in again.json()["detail"]


REFUSED: tuple[tuple[str, dict[str, object], int, str], ...] = (
    (f"{NAME}/versions/9.9.9/promote", {"to": "shadow", **WHY}, 404, "version"),
    ("no-such-model/rollback", WHY, 404, "name"),
    (f"{NAME}/rollback", WHY, 409, "name"),
    (f"{NAME}/versions/1.1.0/promote", {"to": "canary", "share": 3, **WHY}, 409, "share"),
    (f"{NAME}/versions/1.1.0/promote", {"to": "live", **WHY}, 422, "to"),
    (f"{NAME}/versions/1.1.0/retire", {"who": "ada"}, 422, "reason"),
    (f"{NAME}/versions/1.1.0/retire", {"who": "ada", "reason": "  "}, 409, "reason"),
)


def test_refusal_names_the_field(client: TestClient) -> None:
    before = stages(client)
    for address, body, status, field in REFUSED:
        answer = client.post(f"{API}/{address}", json=body, headers=OURS)
        assert (answer.status_code, answer.json()["field"]) == (status, field), (address, body)
        assert answer.json()["detail"].startswith(f"{field}: ")
    assert stages(client) == before


def test_changes_of_other_sites_are_refused(client: TestClient) -> None:
    address = f"{API}/{NAME}/versions/1.0.0/retire"
    assert client.post(address, json=WHY).status_code == 403
    evil = {"Origin": "http://evil.example"}
    assert client.post(address, json=WHY, headers=evil).status_code == 403
    assert client.post(API, headers=evil).status_code == 403
    assert stages(client)["1.0.0"] == "production"


def test_archive_is_registered_as_a_shadow(
    client: TestClient, hospital: Hospital, tmp_path: Path
) -> None:
    archive = archive_of(write_package(tmp_path / "new", "3.0.0"))
    answer = client.post(API, files={"package": ("model.zip", archive)}, data=WHY, headers=OURS)
    assert (answer.status_code, answer.json()["stage"]) == (201, "shadow")
    with hospital.database.reading() as session:
        row = session.query(ModelRow).filter_by(version="3.0.0").one()
        assert (Path(row.package_path) / "model.pt2").read_bytes() == b"3.0.0"
        assert tmp_path / "data" in Path(row.package_path).parents
    assert list((tmp_path / "data" / "spool").iterdir()) == []
    again = client.post(API, files={"package": ("model.zip", archive)}, data=WHY, headers=OURS)
    assert again.status_code == 201
    page = {"Origin": "http://127.0.0.1", "Accept": "text/html"}
    sent = {"package": ("model.zip", archive)}
    on_page = client.post("/models", files=sent, data=WHY, headers=page)
    assert (on_page.status_code, on_page.headers["location"]) == (303, f"/models/{NAME}")
    nameless = client.post("/models", files=sent, data={"reason": "new"}, headers=page)
    assert nameless.status_code == 422


def test_what_is_no_package_is_refused(client: TestClient, tmp_path: Path) -> None:
    def upload(name: str, content: bytes) -> tuple[int, str]:
        answer = client.post(API, files={"package": (name, content)}, data=WHY, headers=OURS)
        return answer.status_code, answer.json()["detail"]

    assert upload("model.rar", b"x") == (
        422,
        "package: send a file that ends in .zip, .tar.gz, .tgz",
    )
    status, detail = upload("model.zip", b"x")
    assert (status, "cannot be unpacked" in detail) == (409, True)
    other = archive_of(write_package(tmp_path / "other", "1.0.0", title="Another"))
    status, detail = upload("model.zip", other)
    assert (status, "is registered with other content" in detail) == (409, True)
    assert upload("model.zip", bytes(1 << 21))[0] == 413
    nameless = client.post(API, files={"package": ("m.zip", b"x")}, headers=OURS)
    assert (nameless.status_code, nameless.json()["field"]) == (422, "who")


def test_versions_are_compared_on_what_both_analysed(
    client: TestClient, hospital: Hospital
) -> None:
    for flags in ((True, True), (False, True), (False, False)):
        hospital.complete(hospital.receive(*hospital.head_ct()))
        for present, version in zip((*flags, False), ("1.0.0", "1.1.0", "2.0.0"), strict=True):
            run = hospital.claim()
            assert run.manifest.version == version
            hospital.finish(run, hemorrhage(present=present))
    answer = client.get(
        f"{API}/{NAME}/comparison", params={"version_a": "1.0.0", "version_b": "1.1.0"}
    ).json()
    (agreement,) = answer["agreements"]
    assert (agreement["both_present"], agreement["only_b"], agreement["both_absent"]) == (1, 1, 1)
    assert agreement["kappa"] == pytest.approx(0.4)
    first = answer["differences"][0]
    assert (first["a"]["present"], first["b"]["present"]) == (False, True)


def test_description_of_the_api_has_its_models(client: TestClient) -> None:
    schema = client.get("/api/v1/openapi.json").json()
    assert {"Promotion", "StagedVersion", "Comparison", "Model", "Refusal"} <= set(
        schema["components"]["schemas"]
    )
    upload = schema["paths"][API]["post"]["requestBody"]["content"]
    assert "multipart/form-data" in upload
