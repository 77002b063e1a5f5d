"""What triage would bring, as a page and over the API."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import anyio
import pytest
from fastapi.testclient import TestClient

from tests.store.lived import add_runs, add_watched_model, every
from tests.web.hospital import Hospital
from triage.simulation.compare import WaitComparison, compare
from triage.simulation.scenario import Scenario, scenario_of
from triage.web.simulating import MOST_STUDIES, Simulations
from triage.web.simulation import Room

API = "/api/v1/simulations"
HTML = {"Accept": "text/html"}
PAGE = {**HTML, "Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
PROGRAM = {"X-Triage-Request": "tests"}
SMALL = {"days": 1, "warm_up_days": 0, "replications": 2}
ROOM = {
    "arrivals_per_hour": "2",
    "readers": "1",
    "reading_min": "12",
    "stat": "10",
    "interrupting_from": "stat",
    "target_min": "20",
    "finding": "<b>bleed</b>",
    "prevalence": "20",
    "sensitivity": "95",
    "specificity": "80",
    "raises_to": "high",
    "turnaround_min": "2",
}


@pytest.fixture
def lived(hospital: Hospital) -> None:
    """An installation that saw 200 studies."""
    now = hospital.clock()
    with hospital.database.transaction() as session:
        model = add_watched_model(session, now - timedelta(days=9))
        add_runs(session, model, every(now, 200, timedelta(minutes=50)))


def table_of(page: str) -> list[str]:
    return re.findall(r'<th scope="row">(.*?)</th>', page)


def test_the_page_plays_what_its_form_says(client: TestClient) -> None:
    form = client.get("/simulation", headers=HTML)
    assert form.status_code == 200
    assert set(re.findall(r'name="(\w+)"', form.text)) >= ROOM.keys()

    answer = client.post("/simulation", data=ROOM, headers=PAGE)
    assert answer.status_code == 200
    assert table_of(answer.text)[:2] == ["&lt;b&gt;bleed&lt;/b&gt;", "without these findings"]
    assert "<b>bleed" not in answer.text
    assert "Patients with &lt;b&gt;bleed&lt;/b&gt; are read" in answer.text
    assert "All others wait" in answer.text
    assert 'value="95"' in answer.text
    assert "readers are 40 % busy" in answer.text
    assert "unsafe-inline" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"readers": "0"}, "readers: Input should be greater than or equal to 1"),
        ({"reading_min": "100"}, "readers: the load is 333 %"),
        ({"stat": "ten"}, "stat: Input should be a valid number"),
        ({"finding": ""}, "finding: String should have at least 1 character"),
        ({"surprise": "1"}, "surprise: Extra inputs are not permitted"),
        ({"history_days": "0"}, "history days: Input should be greater"),
    ],
)
def test_a_wrong_form_is_shown_again_with_what_is_wrong(
    client: TestClient, changes: dict[str, str], said: str
) -> None:
    if "history_days" in changes:
        answer = client.post("/simulation", data=changes, headers=PAGE)
    else:
        answer = client.post("/simulation", data=ROOM | changes, headers=PAGE)
    assert answer.status_code == 422
    assert f"Nothing was simulated. {said}" in answer.text
    assert '<form class="room"' in answer.text


@pytest.mark.usefixtures("lived")
def test_the_page_plays_what_this_installation_saw(client: TestClient) -> None:
    asked = {"history_days": "30", "history_readers": ""}
    answer = client.post("/simulation", data=asked, headers=PAGE)
    assert answer.status_code == 200, answer.text
    assert "200 studies in" in answer.text
    assert "assumed" in answer.text
    assert table_of(answer.text)[0] == "hemorrhage"
    assert "P1-1" not in answer.text
    told = client.post("/simulation", data={**asked, "history_readers": "3"}, headers=PAGE)
    assert "3, as given" in told.text


@pytest.mark.parametrize("per_hour", ["0.05", "5", "60"])
def test_a_page_plays_as_much_as_it_may(per_hour: str) -> None:
    room = Room.model_validate(ROOM | {"arrivals_per_hour": per_hour, "readers": "20"})
    scenario = room.scenario()
    assert 0 < scenario.expected_studies <= MOST_STUDIES
    assert scenario.replications >= 2


def test_without_history_the_page_says_so(client: TestClient) -> None:
    answer = client.post("/simulation", data={"history_days": "30"}, headers=PAGE)
    assert answer.status_code == 422
    assert "0 studies came in this time" in answer.text


def test_the_api_gives_the_same_as_the_library(client: TestClient) -> None:
    scenario = {**SMALL, "readers": 2, "interrupting_from": "high"}
    answer = client.post(API, json={"scenario": scenario, "seed": 9}, headers=PROGRAM)
    assert answer.status_code == 200, answer.text
    assert WaitComparison.model_validate(answer.json()) == compare(scenario_of(scenario), seed=9)


@pytest.mark.parametrize(
    ("scenario", "field", "said"),
    [
        ({"readers": 0}, "readers", "nobody reads"),
        ({"reders": 1}, "reders", "did you mean readers?"),
        (
            {"studies": [{"diseases": [{"name": "a", "prevalence": 2}]}]},
            "studies[1].diseases[1].prevalence",
            "less than or equal to 1",
        ),
        ({"days": 3000, "replications": 1000}, "days", "give fewer days"),
    ],
)
def test_the_api_names_the_field_that_is_wrong(
    client: TestClient, scenario: dict[str, Any], field: str, said: str
) -> None:
    answer = client.post(API, json={"scenario": scenario}, headers=PROGRAM)
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert said in answer.json()["detail"]


@pytest.mark.usefixtures("lived")
def test_the_api_gives_the_installations_scenario_to_be_played(client: TestClient) -> None:
    answer = client.get(f"{API}/history", params={"days": 30, "readers": 2}, headers=PROGRAM)
    assert answer.status_code == 200
    said = answer.json()
    assert {note["field"] for note in said["notes"] if not note["is_known"]} >= {"studies.reading"}
    scenario = {**said["scenario"], **SMALL}
    played = client.post(API, json={"scenario": scenario}, headers=PROGRAM)
    assert played.status_code == 200
    assert played.json()["scenario"]["readers"] == 2


def test_other_sites_cannot_ask_for_simulations(client: TestClient) -> None:
    elsewhere = {"Origin": "http://elsewhere.example"}
    assert client.post(API, json={}, headers=elsewhere).status_code == 403
    assert client.post("/simulation", data=ROOM, headers=elsewhere).status_code == 403


async def test_more_than_a_few_at_once_are_sent_away() -> None:
    simulations = Simulations()
    statuses: list[int] = []

    async def play() -> None:
        try:
            await simulations.play(scenario)
            statuses.append(200)
        except Exception as error:  # noqa: BLE001
            statuses.append(error.status_code)  # type: ignore[attr-defined]

    scenario = Scenario(days=2, warm_up_days=0, replications=2)
    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(play)
    simulations.close()
    assert sorted(statuses) == [200] * 4 + [503] * 2
