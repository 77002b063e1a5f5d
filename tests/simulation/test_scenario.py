"""Scenarios: what is understood, and what is refused in words that name the field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from triage.core.priority import Priority
from triage.simulation.scenario import (
    Scenario,
    ScenarioError,
    example_scenario,
    load_scenario,
    scenario_of,
)

_AI = {"sensitivity": 0.9, "specificity": 0.9}


def diseases(*ones: dict[str, object]) -> dict[str, object]:
    return {"studies": [{"diseases": list(ones)}]}


@pytest.mark.parametrize(
    ("content", "field", "said"),
    [
        ({"redears": 2}, "redears", "did you mean readers?"),
        ({"readers": 0}, "readers", "nobody reads"),
        ({"readers": 1, "arrivals_per_hour": 9}, "readers", "the load is 150 %"),
        ({"arrivals_per_hour": 0}, "arrivals_per_hour", "no study comes"),
        ({"arrivals_per_hour": [1, 2]}, "arrivals_per_hour", "or 24"),
        ({"orders": [{"priority": "urgent", "share": 1}]}, "orders[1].priority", "routine, high"),
        ({"orders": [{"priority": "stat", "share": 0.3}]}, "orders", "add up to 0.3"),
        (
            diseases({"name": "a", "prevalence": 0.1, "ai": {**_AI, "sensitivity": 1.2}}),
            "studies[1].diseases[1].ai.sensitivity",
            "less than or equal to 1",
        ),
        (
            diseases({"name": "a", "prevalence": 0.1, "ai": {**_AI, "sensitivty": 1}}),
            "studies[1].diseases[1].ai.sensitivty",
            "did you mean sensitivity?",
        ),
        (
            diseases({"name": "a", "prevalence": 0.6}, {"name": "b", "prevalence": 0.6}),
            "studies[1].diseases",
            "more than 1",
        ),
        (
            diseases({"name": "a", "prevalence": 0.1}, {"name": "a", "prevalence": 0.1}),
            "studies[1].diseases",
            "twice",
        ),
        ({"interrupting_from": "emergency"}, "interrupting_from", "low, routine, high, stat"),
    ],
)
def test_what_is_wrong_is_named(content: dict[str, object], field: str, said: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        scenario_of(content)
    assert refused.value.field == field
    assert f"{field}: " in str(refused.value)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_all_that_is_wrong_comes_at_once() -> None:
    with pytest.raises(ScenarioError) as refused:
        scenario_of({"days": 0, "target_min": -1})
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == [
        "target_min",
        "days",
    ]


def test_the_example_is_a_scenario_and_toml_and_json_are_the_same(tmp_path: Path) -> None:
    in_toml, in_json = tmp_path / "room.toml", tmp_path / "room.json"
    in_toml.write_text(example_scenario())
    scenario = load_scenario(in_toml)
    in_json.write_text(scenario.model_dump_json())
    assert load_scenario(in_json) == scenario
    assert scenario.interrupting_from is Priority.STAT
    assert not scenario.is_steady
    assert json.loads(scenario.model_dump_json())["orders"][0]["priority"] == "stat"


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("readers = ")
    with pytest.raises(ScenarioError, match=r"broken\.toml: is no \.toml file"):
        load_scenario(broken)
    with pytest.raises(ScenarioError, match="cannot be read: No such file"):
        load_scenario(tmp_path / "nowhere.toml")


def test_load_counts_hours_readers_and_both_reading_times() -> None:
    scenario = scenario_of(
        {
            "arrivals_per_hour": [0] * 12 + [6] * 12,
            "readers": [1] * 12 + [2] * 12,
            "orders": [
                {"priority": "stat", "share": 0.5, "reading": {"mean_min": 5}},
                {"priority": "routine", "share": 0.5},
            ],
        }
    )
    assert scenario.mean_reading_min == pytest.approx(7.5)
    assert scenario.load == pytest.approx(72 * 7.5 / (36 * 60))


def test_the_default_is_a_scenario() -> None:
    assert scenario_of({}) == Scenario()
