"""The pages of the models, without a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.web.hospital import Hospital, hemorrhage
from tests.web.packages import NAME, park, register_versions
from triage.core.stages import Stage
from triage.models.overview import add_evaluation
from triage.models.stages import version_of

HTML = {"accept": "text/html"}
OURS = {**HTML, "Origin": "http://127.0.0.1"}

FIGURES = {
    "cases": 40,
    "patients": 38,
    "hemorrhage.positives": 12,
    "hemorrhage.negatives": 28,
    "hemorrhage.auc": 0.93,
    "hemorrhage.auc_low": 0.85,
    "hemorrhage.auc_high": 0.99,
    "hemorrhage.sensitivity": 0.917,
    "hemorrhage.sensitivity_low": 0.646,
    "hemorrhage.sensitivity_high": 0.985,
    "hemorrhage.specificity": None,
    "roc": {"hemorrhage": [[0, 0], [0, 0.5], [0.2, 0.9], [1, 1]]},
    "groups": [
        {
            "finding": "hemorrhage",
            "by": "scanner",
            "value": "<b>Maker</b>",
            "true_positives": 11,
            "false_positives": 2,
            "true_negatives": 26,
            "false_negatives": 1,
        }
    ],
}


@pytest.fixture(autouse=True)
def _registered(hospital: Hospital, tmp_path: Path) -> None:
    stages = {"1.0.0": Stage.PRODUCTION, "1.1.0": Stage.SHADOW}
    register_versions(hospital.database, hospital.clock, tmp_path / "registry", stages)


def analyse_one(hospital: Hospital, *, production: bool, shadow: bool) -> str:
    """Let both versions analyse a new study, and return its UID."""
    uid = hospital.receive(*hospital.head_ct())
    hospital.complete(uid)
    for present in (production, shadow):
        hospital.finish(hospital.claim(), hemorrhage(present=present))
    return uid


def test_list_shows_stage_health_and_counts(client: TestClient, hospital: Hospital) -> None:
    analyse_one(hospital, production=True, shadow=True)
    page = client.get("/models", headers=HTML).text
    for words in ("1.0.0", "production", "shadow", "1 completed", "well", "not for clinical use"):
        assert words in page


def test_page_holds_the_shadow_against_production(client: TestClient, hospital: Hospital) -> None:
    analyse_one(hospital, production=True, shadow=True)
    differing = analyse_one(hospital, production=False, shadow=True)
    page = client.get(f"/models/{NAME}", headers=HTML).text
    assert "1.1.0 against 1.0.0 in production" in page
    assert "50.0 %" in page
    assert f"/studies/{differing}" in page


def test_page_shows_evaluations_with_their_curve(client: TestClient, hospital: Hospital) -> None:
    with hospital.database.transaction() as session:
        add_evaluation(
            session,
            version_of(session, NAME, "1.0.0"),
            FIGURES,
            labels_name="labels.csv",
            who="ada",
            at=hospital.clock(),
        )
    page = client.get(f"/models/{NAME}", headers=HTML).text
    assert "0.930" in page
    assert "(0.850 to 0.990)" in page
    assert "<polyline" in page
    assert "&lt;b&gt;Maker&lt;/b&gt;" in page


def test_buttons_change_the_stage_and_ask_for_a_reason(client: TestClient) -> None:
    address = f"/models/{NAME}/versions/1.1.0/stage"
    form = {"to": "canary", "who": "ada", "reason": "to see", "share": "25"}
    assert client.post(address, data={**form, "reason": ""}, headers=OURS).status_code == 422
    assert client.post(address, data=form, headers={**HTML}).status_code == 403
    answer = client.post(address, data=form, headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/models/{NAME}")
    assert "canary 25 %" in client.get(f"/models/{NAME}", headers=HTML).text
    client.post(address, data={**form, "to": "production"}, headers=OURS)
    client.post(f"/models/{NAME}/rollback", data=form, headers=OURS)
    page = client.get(f"/models/{NAME}", headers=HTML).text
    assert "rolled-back: retired to production" in page
    assert "made room for 1.0.0: to see" in page


def test_button_lets_a_parked_version_go_on(client: TestClient, hospital: Hospital) -> None:
    assert "Let its runs go on" not in client.get(f"/models/{NAME}", headers=HTML).text
    park(hospital)
    page = client.get(f"/models/{NAME}", headers=HTML).text
    assert "parked: it crashed" in page
    assert "Let its runs go on" in page
    form = {"who": "ada", "reason": "new driver"}
    answer = client.post(f"/models/{NAME}/versions/1.0.0/resume", data=form, headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/models/{NAME}")
    page = client.get(f"/models/{NAME}", headers=HTML).text
    assert "parked: it crashed" not in page
    assert "new driver" in page


def test_unknown_model_is_said_on_a_page(client: TestClient) -> None:
    answer = client.get("/models/no-such-model", headers=HTML)
    assert answer.status_code == 404
    assert "no model no-such-model is registered" in answer.text


def test_page_without_models_says_how_to_get_one(client: TestClient, hospital: Hospital) -> None:
    with hospital.database.transaction() as session:
        for table in ("model_events", "models"):
            session.connection().exec_driver_sql(f"DELETE FROM {table}")
    assert "triage models register FOLDER" in client.get("/models", headers=HTML).text
