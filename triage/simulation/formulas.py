"""What queueing theory says of mean waiting times, where it has a closed form.

Poisson arrivals at rates λ₁ … λₙ (class 1 is the most urgent), c readers, and σₖ the load of the
classes up to k:

- One reader, any reading times, what is begun is finished: Cobham (Operations Research 2:70, 1954),
  Wₖ = R / ((1-σₖ₋₁)(1-σₖ)) with R = Σ λᵢ E[Sᵢ²] / 2.
- One reader, interrupted studies go on later: as above with R over the classes up to k only, and
  s σₖ₋₁ / (1-σₖ₋₁) more for a study that takes s (Conway, Maxwell & Miller, Theory of Scheduling,
  1967, chapter 8).
- c readers, exponential reading times of one mean, what is begun is finished: Cobham (1954), Kella
  & Yechiali (Communications in Statistics. Stochastic Models 1:115, 1985), with Erlang's C for the
  load of all, R = C · mean / c.
- c readers as above, with interruptions: the classes up to k do not feel the others, and their mean
  wait is that of M/M/c, W₁₋ₖ; so λₖWₖ = Λₖ W₁₋ₖ - Λₖ₋₁ W₁₋ₖ₋₁ (Buzen & Bondi, Operations Research
  31:456, 1983).
- Two classes of different means, c readers, with interruptions: no closed form, but a Markov chain
  that can be solved (`two_preemptive_classes`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from triage.core.priority import Priority
from triage.simulation.scenario import Ai, Duration, Scenario, StudyKind

_SETTLED = 1e-12


@dataclass(frozen=True)
class Arrivals:
    """A class of studies: how many come in a minute, and the moments of their reading times."""

    per_min: float
    mean_min: float
    second_moment: float

    @property
    def work(self) -> float:
        """The load that they are to one reader."""
        return self.per_min * self.mean_min


def erlang_c(readers: int, work: float) -> float:
    """Return the probability that a study must wait in M/M/c; `work` is λ / μ, below `readers`.

    >>> round(erlang_c(2, 1.6), 4)
    0.7111
    """
    blocked = 1.0  # Erlang's B by its recursion
    for number in range(1, readers + 1):
        blocked = work * blocked / (number + work * blocked)
    load = work / readers
    return blocked / (1 - load + load * blocked)


def mean_wait_mmc(readers: int, work: float, mean_min: float) -> float:
    """Return the mean wait in M/M/c, in minutes."""
    return erlang_c(readers, work) * mean_min / (readers - work)


def waits_in_turn(classes: Sequence[Arrivals], readers: int = 1) -> list[float]:
    """Return the mean wait of each class where what is begun is finished, in minutes.

    With more than one reader all reading times must be exponential with one mean.
    """
    if readers == 1:
        residual = sum(one.per_min * one.second_moment for one in classes) / 2
    else:
        work = sum(one.work for one in classes)
        residual = erlang_c(readers, work) * classes[0].mean_min / readers
    waits, before = [], 0.0
    for one in classes:
        after = before + one.work / readers
        waits.append(residual / ((1 - before) * (1 - after)))
        before = after
    return waits


def wait_interrupted(classes: Sequence[Arrivals], place: int, reading_min: float) -> float:
    """Return the mean wait, for one reader, of a study of the class at `place` with interruptions.

    `reading_min` is how long it takes to read the studies that are asked about, which may be a part
    of their class.
    """
    before = sum(one.work for one in classes[:place])
    after = before + classes[place].work
    residual = sum(one.per_min * one.second_moment for one in classes[: place + 1]) / 2
    return residual / ((1 - before) * (1 - after)) + reading_min * before / (1 - before)


def waits_interrupted(classes: Sequence[Arrivals], readers: int) -> list[float]:
    """Return the same for each class and c readers, exponential reading times and one mean."""
    mean_min = classes[0].mean_min
    waits, rate, weighted = [], 0.0, 0.0
    for one in classes:
        rate += one.per_min
        total = rate * mean_wait_mmc(readers, rate * mean_min, mean_min)
        waits.append((total - weighted) / one.per_min)
        weighted = total
    return waits


def two_preemptive_classes(
    urgent: Arrivals, other: Arrivals, readers: int, longest: int = 400
) -> tuple[float, float]:
    """Return the mean waits of two classes of different means, the first interrupting the second.

    States of the Markov chain are how many of each are in the room, up to `longest`; its balance
    equations are solved as they are. Exact but for what lies beyond.
    """
    most_urgent = _reach(urgent.work / readers, readers)
    most_other = min(longest, _reach((urgent.work + other.work) / readers, readers) * 2)
    shape = (most_urgent + 1, most_other + 1)
    first, second = np.indices(shape)
    reading_first = np.minimum(first, readers)
    reading_second = np.minimum(second, readers - reading_first)
    rates = (
        (np.where(first < most_urgent, urgent.per_min, 0.0), (1, 0)),
        (np.where(second < most_other, other.per_min, 0.0), (0, 1)),
        (reading_first / urgent.mean_min, (-1, 0)),
        (reading_second / other.mean_min, (0, -1)),
    )
    share = _stationary(shape, rates)
    in_room = (share * first).sum(), (share * second).sum()
    return tuple(  # type: ignore[return-value]
        float(number / one.per_min - one.mean_min)
        for number, one in zip(in_room, (urgent, other), strict=True)
    )


def _reach(load: float, readers: int) -> int:
    return readers + math.ceil(math.log(_SETTLED) / math.log(load)) if load else readers


def _stationary(
    shape: tuple[int, int], rates: Sequence[tuple[np.ndarray, tuple[int, int]]]
) -> np.ndarray:
    count = shape[0] * shape[1]
    state = np.arange(count).reshape(shape)
    rows, columns, values = [], [], []
    for rate, (up, right) in rates:
        is_left = rate > 0
        source = state[is_left]
        target = source + up * shape[1] + right
        rows += [target, source]
        columns += [source, source]
        values += [rate[is_left], -rate[is_left]]
    # Half a second that no start should wait for.
    from scipy.sparse import coo_array, csr_array  # noqa: PLC0415
    from scipy.sparse.linalg import spsolve  # noqa: PLC0415

    balance = csr_array(
        coo_array(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
            shape=(count, count),
        )
    ).tolil()
    balance[0, :] = 1.0  # one equation follows from the others; instead shares add up to 1
    right_side = np.zeros(count)
    right_side[0] = 1.0
    return np.asarray(spsolve(balance.tocsc(), right_side)).reshape(shape)


@dataclass(frozen=True)
class Part:
    """Studies that are alike in all that matters to the list.

    `disease` is an index into the kind's diseases, or -1; `priority` is the effective one.
    """

    share: float
    order: Priority
    kind: int
    disease: int
    is_flagged: bool
    priority: Priority
    reading: Duration


def parts_of(scenario: Scenario, *, with_ai: bool) -> list[Part]:
    """Return all that a scenario consists of; shares add up to 1."""
    parts = []
    for order, (number, kind) in product(scenario.orders, enumerate(scenario.studies)):
        for disease, (share, reading) in _shown(kind):
            for chance, flags in _calls(kind, disease):
                raised = max((ai.raises_to for ai in flags), default=order.priority)
                parts.append(
                    Part(
                        share=order.share * kind.share * share * chance,
                        order=order.priority,
                        kind=number,
                        disease=disease,
                        is_flagged=bool(flags),
                        priority=max(order.priority, raised) if with_ai else order.priority,
                        reading=order.reading or reading,
                    )
                )
    return [part for part in parts if part.share > 0]


def _shown(kind: StudyKind) -> list[tuple[int, tuple[float, Duration]]]:
    ill = [
        (n, (one.prevalence, one.reading or kind.reading)) for n, one in enumerate(kind.diseases)
    ]
    return [*ill, (-1, (1 - sum(one.prevalence for one in kind.diseases), kind.reading))]


def _calls(kind: StudyKind, disease: int) -> list[tuple[float, tuple[Ai, ...]]]:
    """Return what the AIs say together: how likely, and which of them flag the study."""
    chances: list[tuple[float, tuple[Ai, ...]]] = [(1.0, ())]
    for number, one in enumerate(kind.diseases):
        if one.ai is None:
            continue
        rate = one.ai.sensitivity if number == disease else 1 - one.ai.specificity
        rate *= one.ai.answers
        chances = [
            (chance * said, (*flags, one.ai) if is_flagged else flags)
            for chance, flags in chances
            for said, is_flagged in ((rate, True), (1 - rate, False))
        ]
    return chances


def expected_waits(scenario: Scenario, *, with_ai: bool) -> list[tuple[Part, float]] | None:
    """Return the mean wait of each part in minutes, None where there is no closed form."""
    parts = parts_of(scenario, with_ai=with_ai)
    levels = sorted({part.priority for part in parts}, reverse=True)
    if not scenario.is_steady or (with_ai and _is_late(scenario)):
        return None
    readers = scenario.hourly_readers[0]
    if readers > 1 and len({(p.reading.mean_min, _is_exponential(p.reading)) for p in parts}) > 1:
        return None
    if readers > 1 and not _is_exponential(parts[0].reading):
        return None
    classes = [_class(scenario, [p for p in parts if p.priority is level]) for level in levels]
    place = {level: number for number, level in enumerate(levels)}
    start = scenario.interrupting_from
    if len(levels) == 1 or start is None or levels[0] < start:
        waits = waits_in_turn(classes, readers)
        return [(part, waits[place[part.priority]]) for part in parts]
    if levels[-2] < start:  # some interrupt and some do not
        return None
    if readers == 1:
        return [
            (part, wait_interrupted(classes, place[part.priority], part.reading.mean_min))
            for part in parts
        ]
    waits = waits_interrupted(classes, readers)
    return [(part, waits[place[part.priority]]) for part in parts]


def _is_late(scenario: Scenario) -> bool:
    return any(
        disease.ai is not None and disease.ai.turnaround.mean_min > 0
        for kind in scenario.studies
        for disease in kind.diseases
    )


def _is_exponential(reading: Duration) -> bool:
    return reading.spread == "exponential"


def _class(scenario: Scenario, parts: Sequence[Part]) -> Arrivals:
    share = sum(part.share for part in parts)
    return Arrivals(
        per_min=scenario.hourly_arrivals[0] / 60 * share,
        mean_min=sum(part.share * part.reading.mean_min for part in parts) / share,
        second_moment=sum(part.share * part.reading.second_moment for part in parts) / share,
    )
