"""With and without the AI: what a scenario comes to, for those it is meant for and for all others.

Each replication reads the same studies twice. Means and shares are taken over replications, which
are independent, with Student's interval; the difference is taken within each replication first
(paired by common random numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy
from pydantic import BaseModel, ConfigDict

from triage.core.priority import Priority
from triage.simulation.cohorts import NO_DISEASE, Cohort, Floats, draw_cohort
from triage.simulation.formulas import Part, expected_waits
from triage.simulation.room import read_cohort
from triage.simulation.scenario import Scenario, ScenarioError

GroupKind = Literal["all", "disease", "other", "flagged", "not-flagged", "order"]
Mask = npt.NDArray[np.bool_]

_CURVE_POINTS = 61
_CURVE_TO_TARGETS = 4


class Figures(BaseModel):
    """What the comparison says; frozen."""

    model_config = ConfigDict(frozen=True)


class Estimate(Figures):
    """A mean over replications with its 95 % interval."""

    mean: float
    low: float
    high: float


class Waiting(Figures):
    """How long a group waits, in minutes."""

    mean_min: Estimate
    """Mean wait."""
    median_min: float
    p90_min: float
    """Nine in ten wait at most so long."""
    within_target: Estimate
    """Share that waits at most so long as the target."""
    formula_mean_min: float | None
    """Mean wait by queueing theory, where it has a closed form."""
    curve: tuple[float, ...]
    """Share that waits at most so long, for each of the comparison's `curve_min`."""


class Group(Figures):
    """What the AI changes for some of the patients."""

    kind: GroupKind
    name: str
    share: float
    """Share of all studies."""
    studies: int
    without_ai: Waiting
    with_ai: Waiting
    difference_min: Estimate
    """With less without: below 0 is time gained, above 0 is time lost."""
    waits_longer: float
    """Share of the group that waits more than a minute longer with the AI than without."""
    longer_p95_min: float
    """The wait of 19 in 20 grows by at most so much, in minutes."""


class WaitComparison(Figures):
    """A scenario, read with and without the AI."""

    scenario: Scenario
    seed: int
    studies: int
    """How many studies count, in all replications."""
    load: float
    """The work by what the readers can do."""
    curve_min: tuple[float, ...]
    groups: tuple[Group, ...]

    def group(self, kind: GroupKind, name: str = "") -> Group:
        """Return a group.

        Raises:
            KeyError: nobody is in it.
        """
        for one in self.groups:
            if one.kind == kind and name in ("", one.name):
                return one
        raise KeyError(f"{kind} {name}".strip())


@dataclass(frozen=True)
class _Grouping:
    """Who belongs to a group, among the studies of a cohort and among the parts of a formula.

    `study_kind` and `disease` are of a disease's group, `order` of an order's.
    """

    kind: GroupKind
    name: str
    study_kind: int = 0
    disease: int = NO_DISEASE
    order: Priority = Priority.ROUTINE

    def is_in(self, cohort: Cohort) -> Mask:
        """Return which studies belong to it."""
        match self.kind:
            case "disease":
                mask = (cohort.kind == self.study_kind) & (cohort.disease == self.disease)
            case "other":
                mask = cohort.disease == NO_DISEASE
            case "flagged":
                mask = cohort.is_flagged
            case "not-flagged":
                mask = ~cohort.is_flagged
            case "order":
                mask = cohort.order == int(self.order)
            case "all":
                mask = np.ones_like(cohort.counts)
        return np.asarray(mask)

    def has(self, part: Part) -> bool:
        """Return whether a part belongs to it."""
        match self.kind:
            case "disease":
                return part.kind == self.study_kind and part.disease == self.disease
            case "other":
                return part.disease == NO_DISEASE
            case "flagged":
                return part.is_flagged
            case "not-flagged":
                return not part.is_flagged
            case "order":
                return part.order is self.order
        return True


@dataclass(frozen=True)
class _Played:
    """A replication: what counted of its studies, and how long they waited (`(studies,)`)."""

    masks: tuple[Mask, ...]
    without_ai: Floats
    with_ai: Floats


def compare(
    scenario: Scenario,
    *,
    seed: int = 1,
    most_studies: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> WaitComparison:
    """Play a scenario with and without the AI.

    The same seed gives the same figures. `progress` is told how many replications are done.

    Raises:
        ScenarioError: more studies would be played than `most_studies`.
    """
    _check_size(scenario, most_studies)
    groupings = list(_groupings(scenario))
    played = []
    for number in range(scenario.replications):
        played.append(_play(scenario, groupings, np.random.default_rng([seed, number])))
        if progress is not None:
            progress(number + 1)
    times = np.linspace(0, _CURVE_TO_TARGETS * scenario.target_min, _CURVE_POINTS)
    groups = [
        _group(scenario, grouping, played, place, times)
        for place, grouping in enumerate(groupings)
        if any(one.masks[place].any() for one in played)
    ]
    return WaitComparison(
        scenario=scenario,
        seed=seed,
        studies=sum(len(one.with_ai) for one in played),
        load=scenario.load,
        curve_min=tuple(times.tolist()),
        groups=tuple(groups),
    )


def _check_size(scenario: Scenario, most: float | None) -> None:
    if most is not None and scenario.expected_studies > most:
        raise ScenarioError(
            f"days: about {scenario.expected_studies:.0f} studies would be played, at most "
            f"{most:.0f} may be here; give fewer days, warm_up_days or replications",
            "days",
        )


def _play(
    scenario: Scenario, groupings: Sequence[_Grouping], generator: np.random.Generator
) -> _Played:
    cohort = draw_cohort(scenario, generator)
    waits = [
        read_cohort(
            cohort,
            scenario.hourly_readers,
            interrupting_from=scenario.interrupting_from,
            with_ai=with_ai,
        ).wait[cohort.counts]
        for with_ai in (False, True)
    ]
    masks = tuple(grouping.is_in(cohort)[cohort.counts] for grouping in groupings)
    return _Played(masks, *waits)


def _groupings(scenario: Scenario) -> Iterator[_Grouping]:
    for number, kind in enumerate(scenario.studies):
        for which, disease in enumerate(kind.diseases):
            name = disease.name if len(scenario.studies) == 1 else f"{disease.name}, {kind.name}"
            yield _Grouping("disease", name, study_kind=number, disease=which)
    yield _Grouping("other", "without these findings")
    yield _Grouping("flagged", "flagged by AI")
    yield _Grouping("not-flagged", "not flagged")
    if len(scenario.orders) > 1:
        for order in sorted(scenario.orders, key=lambda one: -one.priority):
            yield _Grouping("order", f"ordered {order.priority.label}", order=order.priority)
    yield _Grouping("all", "all studies")


def _group(
    scenario: Scenario,
    grouping: _Grouping,
    played: Sequence[_Played],
    place: int,
    times: Floats,
) -> Group:
    without = [one.without_ai[one.masks[place]] for one in played]
    with_ai = [one.with_ai[one.masks[place]] for one in played]
    longer = np.concatenate(with_ai) - np.concatenate(without)
    count = len(longer)
    differences = [
        float(b.mean() - a.mean()) for a, b in zip(without, with_ai, strict=True) if len(a)
    ]
    return Group(
        kind=grouping.kind,
        name=grouping.name,
        share=count / sum(len(one.with_ai) for one in played),
        studies=count,
        without_ai=_waiting(scenario, grouping, without, times, with_ai=False),
        with_ai=_waiting(scenario, grouping, with_ai, times, with_ai=True),
        difference_min=_estimate(differences),
        waits_longer=float((longer > 1).mean()),
        longer_p95_min=max(0.0, float(np.quantile(longer, 0.95))),
    )


def _waiting(
    scenario: Scenario,
    grouping: _Grouping,
    waits: Sequence[Floats],
    times: Floats,
    *,
    with_ai: bool,
) -> Waiting:
    pooled = np.sort(np.concatenate(waits))
    middle, ninth = np.quantile(pooled, [0.5, 0.9])
    curve = np.searchsorted(pooled, times, side="right") / len(pooled)
    some = [one for one in waits if len(one)]
    return Waiting(
        mean_min=_estimate([float(one.mean()) for one in some]),
        median_min=float(middle),
        p90_min=float(ninth),
        within_target=_estimate([float((one <= scenario.target_min).mean()) for one in some]),
        formula_mean_min=_formula(scenario, grouping, with_ai=with_ai),
        curve=tuple(np.round(curve, 6).tolist()),
    )


def _formula(scenario: Scenario, grouping: _Grouping, *, with_ai: bool) -> float | None:
    waits = expected_waits(scenario, with_ai=with_ai)
    if waits is None:
        return None
    chosen = [(part.share, wait) for part, wait in waits if grouping.has(part)]
    whole = sum(share for share, _ in chosen)
    return sum(share * wait for share, wait in chosen) / whole if whole else None


def _estimate(values: Sequence[float]) -> Estimate:
    """Return mean and interval of independent values; of a single one, itself."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean=mean, low=mean, high=mean)
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    margin = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * error
    return Estimate(mean=mean, low=mean - margin, high=mean + margin)
