"""The simulation beside queueing theory: with fixed seeds, within what chance allows.

A mean over replications lies outside its 99.9 % interval once in a thousand; seeds are fixed, so a
test that holds goes on to hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from benchmarks.simulation import CASES, one_disease
from triage.simulation.compare import Estimate, compare
from triage.simulation.formulas import (
    Arrivals,
    erlang_c,
    mean_wait_mmc,
    parts_of,
    two_preemptive_classes,
    wait_interrupted,
    waits_in_turn,
    waits_interrupted,
)
from triage.simulation.scenario import scenario_of

_REPLICATIONS = 12
_WIDER = float(student.ppf(0.9995, _REPLICATIONS - 1) / student.ppf(0.975, _REPLICATIONS - 1))


def agrees(estimate: Estimate, theory: float) -> bool:
    return abs(estimate.mean - theory) <= (estimate.high - estimate.mean) * _WIDER + 1e-9


@pytest.mark.parametrize("case", CASES)
def test_mean_waits_agree_with_closed_forms(case: str) -> None:
    content = CASES[case]
    extent = {"days": round(40 / content["arrivals_per_hour"]), "warm_up_days": 1}
    comparison = compare(scenario_of({**content, **extent, "replications": _REPLICATIONS}), seed=3)
    assert comparison.groups
    for group in comparison.groups:
        for waiting in (group.without_ai, group.with_ai):
            assert waiting.formula_mean_min is not None, group.name
            assert agrees(waiting.mean_min, waiting.formula_mean_min), (group.name, waiting)


def test_emergencies_of_another_length_agree_with_the_markov_chain() -> None:
    stat = {"priority": "stat", "share": 0.2, "reading": {"mean_min": 5}}
    scenario = scenario_of(
        {
            "readers": 2,
            "arrivals_per_hour": 10.0,
            "orders": [stat, {"priority": "routine", "share": 0.8}],
            "studies": [{"reading": {"mean_min": 10}}],
            "interrupting_from": "stat",
            "days": 5,
            "warm_up_days": 1,
            "replications": _REPLICATIONS,
        }
    )
    waits = two_preemptive_classes(
        Arrivals(2 / 60, 5, 50), Arrivals(8 / 60, 10, 200), readers=2, longest=120
    )
    comparison = compare(scenario, seed=3)
    assert comparison.group("order", "ordered STAT").without_ai.formula_mean_min is None
    for name, wait in zip(("ordered STAT", "ordered Routine"), waits, strict=True):
        assert agrees(comparison.group("order", name).without_ai.mean_min, wait)


def test_formulas_agree_with_one_another() -> None:
    classes = [Arrivals(0.02, 10, 200), Arrivals(0.03, 10, 200), Arrivals(0.03, 10, 200)]
    in_turn = waits_in_turn(classes)
    interrupted = waits_interrupted(classes, readers=1)
    assert interrupted == pytest.approx([wait_interrupted(classes, n, 10) for n in range(3)])
    # The order in which studies are read changes nobody's work: means over all are the same.
    shares = np.array([0.02, 0.03, 0.03]) / 0.08
    whole = mean_wait_mmc(1, 0.8, 10)
    assert shares @ in_turn == pytest.approx(whole)
    assert shares @ interrupted == pytest.approx(whole)
    assert in_turn[0] > interrupted[0]


def test_the_markov_chain_is_the_closed_form_where_there_is_one() -> None:
    urgent, other = Arrivals(0.03, 10, 200), Arrivals(0.09, 10, 200)
    closed = waits_interrupted([urgent, other], readers=2)
    assert two_preemptive_classes(urgent, other, readers=2) == pytest.approx(closed, rel=1e-6)


@pytest.mark.parametrize(
    ("readers", "work", "waits"),
    # Of printed tables of Erlang's C (for example Cooper, Introduction to Queueing Theory, 1981).
    [(1, 0.8, 0.8), (2, 1.0, 1 / 3), (3, 2.0, 4 / 9), (5, 4.0, 0.5541)],
)
def test_erlang_c(readers: int, work: float, waits: float) -> None:
    assert erlang_c(readers, work) == pytest.approx(waits, abs=5e-5)


def test_quCAD_saving_is_sensitivity_times_that_of_the_flagged() -> None:  # noqa: N802
    """The metric of QuCAD, written out for one reader with equal means (Thompson et al., 2024)."""
    sensitivity, specificity, prevalence, load, mean = 0.9, 0.9, 0.1, 0.8, 10.0
    positive = prevalence * sensitivity + (1 - prevalence) * (1 - specificity)
    high = load * positive
    flagged = mean * high / (1 - high)
    unflagged = mean * (1 / ((1 - high) * (1 - load)) - 1)
    without = mean * load / (1 - load)
    saved = without - (sensitivity * flagged + (1 - sensitivity) * unflagged)

    content = one_disease(sensitivity, specificity, interrupting_from="high", days=1)
    group = compare(scenario_of({**content, "replications": 2})).group("disease")
    assert group.without_ai.formula_mean_min is not None
    assert group.with_ai.formula_mean_min is not None
    told = group.without_ai.formula_mean_min - group.with_ai.formula_mean_min
    assert told == pytest.approx(saved)
    assert saved == pytest.approx(33.6449, abs=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"arrivals_per_hour": [4.0] * 12 + [5.0] * 12},
        {"readers": [1] * 23 + [2]},
        {"readers": 2, "studies": [{"reading": {"mean_min": 10, "spread": "constant"}}]},
    ],
)
def test_no_formula_is_claimed_where_there_is_none(changes: dict[str, Any]) -> None:
    scenario = scenario_of({"days": 1, "replications": 2, **changes})
    for group in compare(scenario).groups:
        assert group.without_ai.formula_mean_min is None


@pytest.mark.parametrize("with_ai", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_parts_add_up_to_all_studies(case: str, with_ai: bool) -> None:
    parts = parts_of(scenario_of(CASES[case]), with_ai=with_ai)
    assert sum(part.share for part in parts) == pytest.approx(1)
