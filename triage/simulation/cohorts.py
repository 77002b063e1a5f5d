"""The studies of a replication: when they come, what they show, and what the AI says of them.

All of it is drawn before anything is read, so that the same studies are read with and without the
AI: common random numbers (Law, Simulation Modeling and Analysis, chapter 11), which make the
difference of the two much surer than either.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from triage.simulation.scenario import HOURS, Duration, Scenario

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

NO_DISEASE = -1
MINUTES_OF_DAY = HOURS * 60


@dataclass(frozen=True)
class Flag:
    """That an AI raises a study at a moment, in minutes."""

    at: float
    study: int
    priority: int


@dataclass(frozen=True)
class Cohort:
    """The studies of a replication in the order in which they come. All arrays: `(studies,)`.

    Attributes:
        arrives: minutes from the beginning.
        reading: minutes that it takes to read them.
        order: the priority they were ordered with.
        kind: index into the scenario's `studies`.
        disease: index into the kind's `diseases`, NO_DISEASE for none.
        is_flagged: whether an AI flagged them, even to where they were already.
        flags: what raises a study, by time.
        counts: whether they came on a day that counts.
    """

    arrives: Floats
    reading: Floats
    order: Integers
    kind: Integers
    disease: Integers
    is_flagged: npt.NDArray[np.bool_]
    flags: tuple[Flag, ...]
    counts: npt.NDArray[np.bool_]


def draw_cohort(scenario: Scenario, generator: np.random.Generator) -> Cohort:
    """Return the studies of one replication."""
    arrives = _arrivals(scenario, generator)
    count = len(arrives)
    orders = np.array([int(one.priority) for one in scenario.orders])
    place = _choose([one.share for one in scenario.orders], generator.random(count))
    kind = _choose([one.share for one in scenario.studies], generator.random(count))
    disease = _diseases(scenario, kind, generator.random(count))
    first = scenario.warm_up_days * MINUTES_OF_DAY
    last = first + scenario.days * MINUTES_OF_DAY
    cohort = Cohort(
        arrives=arrives,
        reading=_readings(scenario, place, kind, disease, generator.random(count)),
        order=orders[place],
        kind=kind,
        disease=disease,
        is_flagged=np.zeros(count, dtype=bool),
        flags=(),
        counts=(arrives >= first) & (arrives < last),
    )
    return _flagged(scenario, cohort, generator)


def _arrivals(scenario: Scenario, generator: np.random.Generator) -> Floats:
    """Draw a Poisson process whose rate is that of the hour (Law, chapter 8.6.2)."""
    days = scenario.days + 2 * scenario.warm_up_days
    expected = np.concatenate([[0.0], np.cumsum(np.tile(scenario.hourly_arrivals, days))])
    count = generator.poisson(expected[-1])
    at = np.sort(generator.random(count)) * expected[-1]
    return np.asarray(np.interp(at, expected, np.arange(len(expected)) * 60.0))


def _choose(shares: list[float], uniform: Floats) -> Integers:
    ends = np.cumsum(shares)
    return np.minimum(np.searchsorted(ends, uniform, side="right"), len(shares) - 1)


def _diseases(scenario: Scenario, kind: Integers, uniform: Floats) -> Integers:
    disease = np.full(len(kind), NO_DISEASE)
    for number, one in enumerate(scenario.studies):
        ends = np.cumsum([each.prevalence for each in one.diseases])
        drawn = np.searchsorted(ends, uniform, side="right")
        drawn[drawn == len(ends)] = NO_DISEASE
        disease = np.where(kind == number, drawn, disease)
    return disease


def _readings(
    scenario: Scenario, place: Integers, kind: Integers, disease: Integers, uniform: Floats
) -> Floats:
    minutes = np.zeros(len(kind))
    for number, one in enumerate(scenario.studies):
        for which in range(NO_DISEASE, len(one.diseases)):
            own = one.diseases[which].reading if which >= 0 else None
            these = (kind == number) & (disease == which)
            minutes[these] = durations(own or one.reading, uniform[these])
    for number, order in enumerate(scenario.orders):
        if order.reading is not None:
            these = place == number
            minutes[these] = durations(order.reading, uniform[these])
    return minutes


def durations(duration: Duration, uniform: Floats) -> Floats:
    """Return minutes so distributed, of uniform numbers in [0, 1): the inverse of its function."""
    if duration.spread == "constant" or duration.mean_min == 0:
        return np.full(len(uniform), duration.mean_min)
    if duration.spread == "exponential":
        return np.asarray(-np.log1p(-uniform) * duration.mean_min)
    sigma = np.sqrt(np.log1p(duration.variation**2))
    normal = ndtri(np.clip(uniform, 1e-12, 1 - 1e-12))
    return np.asarray(duration.mean_min * np.exp(sigma * normal - sigma**2 / 2))


def _flagged(scenario: Scenario, cohort: Cohort, generator: np.random.Generator) -> Cohort:
    """Return the cohort with what all AIs say of it."""
    count = len(cohort.arrives)
    flagged = np.zeros(count, dtype=bool)
    flags: list[Flag] = []
    for number, kind in enumerate(scenario.studies):
        for which, disease in enumerate(kind.diseases):
            said, late = generator.random(count), generator.random(count)
            if disease.ai is None:
                continue
            ai, is_ill = disease.ai, cohort.disease == which
            rate = np.where(is_ill, ai.sensitivity, 1 - ai.specificity) * ai.answers
            positive = (cohort.kind == number) & (said < rate)
            flagged |= positive
            raised = np.flatnonzero(positive & (cohort.order < int(ai.raises_to)))
            at = cohort.arrives[raised] + durations(ai.turnaround, late[raised])
            flags += map(Flag, at.tolist(), raised.tolist(), repeat(int(ai.raises_to)))
    in_time = sorted(flags, key=lambda flag: (flag.at, flag.study))
    return replace(cohort, is_flagged=flagged, flags=tuple(in_time))
