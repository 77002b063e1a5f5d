"""Drift tests: seldom an alarm where nothing has changed, and one where something has."""

from __future__ import annotations

import numpy as np
import pytest

from triage.core.drift import (
    Method,
    Sample,
    compare_categories,
    compare_numbers,
    compare_outcomes,
    compare_samples,
    population_stability_index,
)

SCANNERS = ("Alpha", "Beta", "Gamma", "Delta")


def drawn(
    generator: np.random.Generator,
    runs: int = 300,
    *,
    shift_mm: float = 0.0,
    rate: float = 0.1,
    scanners: tuple[float, ...] = (0.5, 0.3, 0.19, 0.01),
) -> Sample:
    """Return a sample like a model's: two scores, their rates, three inputs and the scanner."""
    scores = {f"{key}: score": generator.beta(1, 9, runs) for key in ("bleed", "fracture")}
    inputs = {
        "slice_thickness_mm": generator.choice([1.0, 2.5, 5.0], runs) + shift_mm,
        "values_mean": generator.normal(-300, 40, runs),
        "images": generator.integers(20, 60, runs).astype(float),
    }
    return Sample(
        numbers={name: list(values) for name, values in (scores | inputs).items()},
        categories={"scanner": list(generator.choice(SCANNERS, runs, p=scanners))},
        outcomes={"bleed: positive rate": list(generator.random(runs) < rate)},
    )


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_without_a_change_models_are_alarmed_no_oftener_than_stated(level: float) -> None:
    generator = np.random.default_rng(20261128)
    models = 120
    alarmed = sum(
        any(
            test.is_significant(level)
            for test in compare_samples(drawn(generator), drawn(generator), minimum=100)
        )
        for _ in range(models)
    )
    # Four standard errors: a wrong adjustment would be far beyond, chance hardly ever.
    assert alarmed / models <= level + 4 * (level * (1 - level) / models) ** 0.5


def found(current: Sample, level: float = 0.01) -> set[str]:
    reference = drawn(np.random.default_rng(1))
    tests = compare_samples(reference, current, minimum=100)
    return {test.subject for test in tests if test.is_significant(level)}


def test_a_new_protocol_is_found_and_nothing_else_is_blamed() -> None:
    assert found(drawn(np.random.default_rng(2), shift_mm=0.5)) == {"slice_thickness_mm"}


def test_a_positive_rate_that_doubles_is_found() -> None:
    assert found(drawn(np.random.default_rng(3), rate=0.25)) == {"bleed: positive rate"}


def test_a_scanner_that_was_never_seen_is_found() -> None:
    assert found(drawn(np.random.default_rng(4), scanners=(0.4, 0.2, 0.1, 0.3))) == {"scanner"}


def test_too_few_runs_are_not_tested() -> None:
    few = drawn(np.random.default_rng(5), runs=99, shift_mm=3)
    assert compare_samples(drawn(np.random.default_rng(6)), few, minimum=100) == ()


def test_what_never_varies_is_no_test_and_costs_the_others_nothing() -> None:
    same = Sample(categories={"modality": ["CT"] * 200})
    assert compare_samples(same, same, minimum=100) == ()


def test_rare_names_are_taken_together() -> None:
    names = [f"scanner {n}" for n in range(100)]
    test = compare_categories("scanner", names, names[::-1])
    assert test.p_value == 1.0
    two = compare_categories("sex", ["F"] * 50 + ["M"] * 50, ["F"] * 90 + ["M"] * 10)
    assert two.method is Method.FISHER
    assert two.p_value < 1e-6


def test_scores_that_are_nearly_all_zero_can_be_compared() -> None:
    zeros = [0.0] * 400
    assert compare_numbers("score", zeros, zeros).p_value == 1.0
    shifted = compare_numbers("score", zeros, [0.0] * 200 + [0.9] * 200)
    assert shifted.p_value < 1e-6
    assert shifted.size == "large"


def test_rates_are_compared_as_fisher_did() -> None:
    # The lady tasting tea: three of four cups right, one-sided 0.243, two-sided 0.486.
    test = compare_outcomes("tea", [True] * 3 + [False], [True] + [False] * 3)
    assert test.p_value == pytest.approx(0.4857, abs=1e-4)


def test_stability_index_equals_one_worked_by_hand() -> None:
    # Shares 0.5/0.5 and 0.6/0.4: 0.1 ln 1.2 - 0.1 ln 0.8 = 0.0405.
    assert population_stability_index([5e6, 5e6], [6e6, 4e6]) == pytest.approx(0.0405, abs=1e-4)
