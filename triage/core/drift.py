"""Whether a model's inputs and outputs today are still those of its reference: pure statistics.

A difference here is a reason to look, and no proof that the model has become worse: scores change
with the patients, and a model can fail on inputs that look like those of before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

import numpy as np
import scipy  # imports scipy.stats when asked for it: a second that no start should wait for
from numpy.typing import ArrayLike, NDArray

_LEAST_EXPECTED = 5.0  # Cochran, Biometrics 10:417 (1954)
MODERATE_SHIFT, LARGE_SHIFT = 0.1, 0.25
_Value = TypeVar("_Value", float, str, bool)


class Method(StrEnum):
    """The statistical test of a comparison."""

    KOLMOGOROV_SMIRNOV = "Kolmogorov-Smirnov"
    CHI_SQUARE = "chi-square"
    FISHER = "Fisher's exact"


@dataclass(frozen=True)
class Sample:
    """What was observed in a number of runs, by subject.

    Attributes:
        numbers: continuous values, such as scores and slice thicknesses.
        categories: names, such as manufacturers.
        outcomes: whether each run had a finding.
    """

    numbers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    outcomes: Mapping[str, Sequence[bool]] = field(default_factory=dict)


@dataclass(frozen=True)
class DriftTest:
    """One comparison of now with the reference.

    Attributes:
        subject: what was compared.
        method: the test.
        p_value: the chance of a difference like this, or a larger one, if nothing has changed.
        adjusted_p_value: the same after Benjamini and Hochberg over all tests of the model.
        stability_index: how large the difference is; see `population_stability_index`.
        reference: what is usual in the reference, in words; `current` the same of now.
        reference_count: observations in the reference; `current_count` the same of now.
    """

    subject: str
    method: Method
    p_value: float
    stability_index: float
    reference: str
    current: str
    reference_count: int
    current_count: int
    adjusted_p_value: float = 1.0

    def is_significant(self, level: float) -> bool:
        """Return whether it is a drift at the false discovery rate `level`."""
        return self.adjusted_p_value <= level

    @property
    def size(self) -> str:
        """How large the difference is, by the usual marks of the stability index."""
        if self.stability_index < MODERATE_SHIFT:
            return "small"
        return "moderate" if self.stability_index < LARGE_SHIFT else "large"


def compare_samples(reference: Sample, current: Sample, minimum: int) -> tuple[DriftTest, ...]:
    """Test every subject that both samples observed at least `minimum` times.

    The p-values are adjusted together (Benjamini & Hochberg, J R Stat Soc B 57:289, 1995), so
    that a model with many characteristics does not raise an alarm by their number alone. The
    strongest evidence comes first.
    """
    tests = [
        *_tests(compare_numbers, reference.numbers, current.numbers, minimum),
        *_tests(compare_categories, reference.categories, current.categories, minimum),
        *_tests(compare_outcomes, reference.outcomes, current.outcomes, minimum),
    ]
    if not tests:
        return ()
    adjusted = scipy.stats.false_discovery_control([test.p_value for test in tests], method="bh")
    found = [
        replace(test, adjusted_p_value=float(p)) for test, p in zip(tests, adjusted, strict=True)
    ]
    return tuple(sorted(found, key=lambda test: (test.p_value, test.subject)))


def _tests(
    test: Callable[[str, Sequence[_Value], Sequence[_Value]], DriftTest],
    reference: Mapping[str, Sequence[_Value]],
    current: Mapping[str, Sequence[_Value]],
    minimum: int,
) -> Iterator[DriftTest]:
    for subject in sorted(reference.keys() & current.keys()):
        before: Sequence[_Value] = reference[subject]
        now: Sequence[_Value] = current[subject]
        is_enough = min(len(before), len(now)) >= max(minimum, 1)
        if is_enough and len(set(before) | set(now)) > 1:  # what never varies cannot have changed
            yield test(subject, before, now)


def compare_numbers(
    subject: str, reference: Sequence[float], current: Sequence[float]
) -> DriftTest:
    """Compare two samples of a continuous value by the two-sample Kolmogorov-Smirnov test.

    Hodges, Arkiv för Matematik 3:469 (1958). Ties make it cautious.
    """
    outcome = scipy.stats.ks_2samp(reference, current, method="asymp")
    return DriftTest(
        subject=subject,
        method=Method.KOLMOGOROV_SMIRNOV,
        p_value=float(outcome.pvalue),
        stability_index=population_stability_index(*_binned(reference, current)),
        reference=f"median {np.median(reference):.3g}",
        current=f"median {np.median(current):.3g}",
        reference_count=len(reference),
        current_count=len(current),
    )


def compare_categories(subject: str, reference: Sequence[str], current: Sequence[str]) -> DriftTest:
    """Compare how often each name occurs in two samples by Pearson's chi-square test.

    Names so rare that fewer than five would be expected are taken together; two names that are
    left are compared by Fisher's exact test.
    """
    before, now = Counter(reference), Counter(current)
    table = _contingency(before, now)
    method, p_value = Method.CHI_SQUARE, 1.0
    if table.shape[1] == 2:
        method, p_value = Method.FISHER, float(scipy.stats.fisher_exact(table).pvalue)
    elif table.shape[1] > 2:
        p_value = float(scipy.stats.chi2_contingency(table).pvalue)
    names = sorted(before | now)
    return DriftTest(
        subject=subject,
        method=method,
        p_value=p_value,
        stability_index=population_stability_index(
            [before[name] for name in names], [now[name] for name in names]
        ),
        reference=_most_frequent(before),
        current=_most_frequent(now),
        reference_count=len(reference),
        current_count=len(current),
    )


def compare_outcomes(subject: str, reference: Sequence[bool], current: Sequence[bool]) -> DriftTest:
    """Compare two positive rates by Fisher's exact test (J R Stat Soc 98:39, 1935).

    Not by the binomial test: the reference is a sample too, and has an error of its own.
    """
    before, now = (sum(reference), len(reference)), (sum(current), len(current))
    counts = [[part, whole - part] for part, whole in (before, now)]
    return DriftTest(
        subject=subject,
        method=Method.FISHER,
        p_value=float(scipy.stats.fisher_exact(np.array(counts)).pvalue),
        stability_index=population_stability_index(*counts),
        reference=f"{100 * before[0] / before[1]:.1f} % positive",
        current=f"{100 * now[0] / now[1]:.1f} % positive",
        reference_count=before[1],
        current_count=now[1],
    )


def population_stability_index(reference: ArrayLike, current: ArrayLike) -> float:
    """Return how far two distributions over the same bins lie apart; 0 is not at all.

    Usual marks are 0.1 for a moderate and 0.25 for a large shift (Siddiqi, Credit Risk Scorecards,
    2006). It says how large a shift is and not whether it is one: in small samples it is never 0
    (Yurdakul, Statistical Properties of PSI, 2018). Half a count is added to every bin, so that an
    empty one gives a finite number.

    >>> round(population_stability_index([50, 50], [50, 50]), 3)
    0.0
    >>> population_stability_index([50, 50], [90, 10]) > 0.25
    True
    """
    before = np.asarray(reference, dtype=np.float64) + 0.5
    now = np.asarray(current, dtype=np.float64) + 0.5
    before, now = before / before.sum(), now / now.sum()
    return float(np.sum((now - before) * np.log(now / before)))


def _binned(
    reference: Sequence[float], current: Sequence[float]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the counts of both in the tenths of the reference, or fewer where values repeat."""
    inner = np.unique(np.quantile(reference, np.linspace(0.1, 0.9, 9)))
    before = np.bincount(np.searchsorted(inner, reference), minlength=len(inner) + 1)
    now = np.bincount(np.searchsorted(inner, current), minlength=len(inner) + 1)
    return before, now


def _contingency(before: Counter[str], now: Counter[str]) -> NDArray[np.int64]:
    smaller, whole = min(before.total(), now.total()), before.total() + now.total()
    both = before + now
    rare = {name for name, count in both.items() if count * smaller / whole < _LEAST_EXPECTED}
    kept = sorted(both.keys() - rare)
    columns = [[before[name], now[name]] for name in kept]
    rest = [sum(before[name] for name in rare), sum(now[name] for name in rare)]
    if any(rest):
        columns.append(rest)
    return np.array(columns, dtype=np.int64).T.reshape(2, -1)


def _most_frequent(counts: Counter[str]) -> str:
    name, count = min(counts.items(), key=lambda one: (-one[1], one[0]))
    return f"{name} {100 * count / counts.total():.0f} %"
