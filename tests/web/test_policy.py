"""The priority policy over the API and on its page."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.web.hospital import Hospital, hemorrhage

OURS = {"X-Triage-Request": "1"}
HTML = {"accept": "text/html"}
FORM = {**HTML, "Origin": "http://127.0.0.1"}
CALM: dict[str, Any] = {
    "name": "Calm",
    "findings": [{"finding": "hemorrhage", "priority": "high", "points": 30}],
}
CALM_TOML = """
name = "Calm"
[[findings]]
finding = "hemorrhage"
priority = "high"
points = 30
"""
SAID = {"reason": "the board decided so", "who": "Dr. Haus"}


@pytest.fixture
def flagged(hospital: Hospital) -> str:
    """A study with a hemorrhage, STAT by the shipped policy, after one that is routine."""
    hospital.register_model()
    hospital.receive(*hospital.head_ct(slices=1))
    hospital.clock.advance(60)
    uid = hospital.receive(*hospital.head_ct(slices=1))
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage())
    hospital.clock.advance(60)
    return uid


def classes(client: TestClient) -> list[str]:
    """Return the classes of the studies on the list."""
    return [entry["priority"] for entry in client.get("/api/v1/worklist").json()["entries"]]


def test_policy_is_shown_checked_activated_and_rolled_back(
    client: TestClient, flagged: str
) -> None:
    shown = client.get("/api/v1/policy").json()
    assert (shown["version"], shown["ai_counts"], shown["who"]) == (0, True, "")
    checked = client.post("/api/v1/policy/check", json={"policy": CALM_TOML}, headers=OURS)
    assert checked.json()["findings"][0]["points"] == 30
    again = client.post("/api/v1/policy/check", json={"policy": shown["toml"]}, headers=OURS)
    assert again.json() == shown["policy"]
    previewed = client.post("/api/v1/policy/preview", json={"policy": CALM}, headers=OURS)
    assert (previewed.status_code, previewed.json()["lower"]) == (200, 1)
    assert classes(client) == ["stat", "routine"]
    now = client.put("/api/v1/policy", json={"policy": CALM, **SAID}, headers=OURS)
    assert (now.status_code, now.json()["version"]) == (200, 1)
    assert now.json()["who"] == "Dr. Haus (from testclient)"
    assert classes(client) == ["high", "routine"]
    nobody = client.put("/api/v1/policy", json={"policy": {}, "reason": "x"}, headers=OURS)
    assert (nobody.status_code, nobody.json()["field"]) == (422, "who")
    same = client.put("/api/v1/policy", json={"policy": CALM, **SAID}, headers=OURS)
    assert (same.status_code, same.json()["field"]) == (409, "policy")
    back = client.post("/api/v1/policy/rollback", json={"version": 0, **SAID}, headers=OURS)
    assert (back.status_code, back.json()["version"]) == (200, 0)
    assert classes(client) == ["stat", "routine"]
    events = client.get("/api/v1/policy/history").json()
    assert [(e["action"], e["version"]) for e in events] == [("activated", 0), ("activated", 1)]
    assert '+finding = "hemorrhage"' in events[1]["diff"]
    missing = client.post("/api/v1/policy/rollback", json={"version": 9, **SAID}, headers=OURS)
    assert (missing.status_code, missing.json()["field"]) == (404, "version")


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"most_points": -1}, "most_points"),
        ({"findings": [{"finding": "x", "pionts": 3}]}, "findings.0.pionts"),
        ("most_points =", "policy"),
    ],
)
def test_wrong_policy_names_the_field(
    client: TestClient, policy: dict[str, Any] | str, field: str
) -> None:
    answer = client.put("/api/v1/policy", json={"policy": policy, **SAID}, headers=OURS)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    page = client.post("/policy/preview", data={"document": "most_points = -1"}, headers=FORM)
    assert page.status_code == 422
    assert "<code>most_points</code> Input should be greater than or equal to 0" in page.text
    assert "most_points = -1</textarea>" in page.text  # what was written is not lost


def test_ai_is_switched_off_with_a_banner_and_on_again(client: TestClient, flagged: str) -> None:
    off = {"is_on": False, "reason": "many false alarms", "who": "Dr. Haus"}
    assert "AI prioritization is off" not in client.get("/", headers=HTML).text
    assert client.post("/api/v1/policy/switch", json=off, headers=OURS).status_code == 200
    assert classes(client) == ["routine", "routine"]
    page = client.get("/", headers=HTML).text
    assert "AI prioritization is off" in page
    assert "many false alarms" in page
    assert "Hemorrhage" in page  # findings are still shown
    assert client.post("/api/v1/policy/switch", json=off, headers=OURS).status_code == 409
    form = {"is_on": "true", "reason": "mended", "said": "Dr. Haus"}
    answer = client.post("/policy/switch", data=form, headers=FORM)
    assert (answer.status_code, answer.headers["location"]) == (303, "/policy")
    assert classes(client) == ["stat", "routine"]
    history = client.get("/policy", headers=HTML).text
    assert "AI prioritization switched off" in history
    assert "mended" in history


def test_page_explains_previews_and_activates(client: TestClient, flagged: str) -> None:
    page = client.get("/policy", headers=HTML).text
    assert "Emergency patient" in page
    assert "patient class E" in page
    assert "STAT, as the model's manifest says" in page
    upload = {"file": ("ours.toml", CALM_TOML, "text/plain")}
    previewed = client.post("/policy/preview", files=upload, headers=FORM)
    assert previewed.status_code == 200
    assert "What Calm would have done" in previewed.text
    assert f'href="/studies/{flagged}"' in previewed.text
    wanted = {"document": CALM_TOML, "reason": "the board", "said": "Dr. Haus"}
    assert client.post("/policy", data=wanted, headers=FORM).status_code == 303
    page = client.get("/policy", headers=HTML).text
    assert "Calm, version 1" in page
    assert "High +30" in page
    assert "Activated by Dr. Haus" in page


def test_nothing_is_decided_from_another_site(client: TestClient) -> None:
    other = {"Origin": "http://evil.example"}
    for address in ("/policy", "/policy/switch", "/policy/rollback", "/policy/preview"):
        assert client.post(address, data={}, headers=other).status_code == 403
    assert client.put("/api/v1/policy", json={}, headers=other).status_code == 403


def test_texts_of_a_policy_are_only_text(client: TestClient) -> None:
    evil = {**CALM, "name": "<script>alert(1)</script>", "description": "<img src=x>"}
    answer = client.put("/api/v1/policy", json={"policy": evil, **SAID}, headers=OURS)
    assert answer.status_code == 200
    page = client.get("/policy", headers=HTML).text
    assert "<script>alert" not in page
    assert "<img src=x>" not in page
