"""A scenario from what an installation saw, and what had to be assumed where it saw nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from triage.core.agreement import Agreement
from triage.core.priority import Priority
from triage.simulation.scenario import (
    HOURS,
    Ai,
    Disease,
    Duration,
    OrderShare,
    Scenario,
    ScenarioError,
    StudyKind,
)

FEWEST_STUDIES = 50
FEWEST_READINGS = 20

_BUSY = 0.9
_ASSUMED_READING_MIN = 10.0
_ASSUMED_SENSITIVITY = 0.9
_ASSUMED_SPECIFICITY = 0.9


@dataclass(frozen=True)
class FindingHistory:
    """What a model said of one finding, and what readers said of that.

    `agreement` is None where nobody said anything.
    """

    key: str
    raises_to: Priority
    flagged: int
    not_flagged: int
    agreement: Agreement | None = None


@dataclass(frozen=True)
class ModelHistory:
    """What a model did: how many studies it was to look at, and how many it answered for.

    `turnaround_min` is the mean time from a study's first image to its flag.
    """

    name: str
    studies: int
    answered: int
    turnaround_min: float
    findings: tuple[FindingHistory, ...]


@dataclass(frozen=True)
class ReadingHistory:
    """What an installation saw; counts and means, nothing of a patient.

    Attributes:
        days: how many days it is about, from the first study on.
        arrivals: studies that came in each hour of the local day.
        orders: studies by the priority of their order.
        claims_min: how long studies were read, as their workitems say.
        gaps_min: times between two readings, where the second study lay there before the first was
            read.
    """

    days: float
    arrivals: tuple[int, ...]
    orders: dict[Priority, int]
    claims_min: tuple[float, ...] = ()
    gaps_min: tuple[float, ...] = ()
    models: tuple[ModelHistory, ...] = ()

    @property
    def studies(self) -> int:
        """All studies."""
        return sum(self.arrivals)


@dataclass(frozen=True)
class Note:
    """Where a field of the scenario comes from."""

    field: str
    text: str
    is_known: bool


@dataclass(frozen=True)
class Fit:
    """A scenario, and where its fields come from."""

    scenario: Scenario
    notes: tuple[Note, ...]


@dataclass
class _Notes:
    """Collects what is known and what is assumed."""

    notes: list[Note] = field(default_factory=list)

    def known(self, field: str, text: str) -> None:
        self.notes.append(Note(field, text, is_known=True))

    def assumed(self, field: str, text: str) -> None:
        self.notes.append(Note(field, text, is_known=False))


def fit_scenario(history: ReadingHistory, *, readers: int | None = None) -> Fit:
    """Return the scenario that a history comes to.

    Raises:
        ScenarioError: there are fewer than FEWEST_STUDIES.
    """
    if history.studies < FEWEST_STUDIES:
        raise ScenarioError(
            f"--from-history: {history.studies} studies came in this time, at least "
            f"{FEWEST_STUDIES} are needed; give more days, or a scenario of your own "
            "(`triage simulate --example`)",
            "from_history",
        )
    notes = _Notes()
    arrivals = tuple(round(count / history.days, 4) for count in history.arrivals)
    notes.known(
        "arrivals_per_hour", f"{history.studies} studies in {history.days:.1f} days, by hour of day"
    )
    reading = _reading(history, readers or 1, notes)
    studies = _kinds(history, reading, notes)
    notes.assumed("interrupting_from", "nothing interrupts a reading; the list does not know")
    return Fit(
        Scenario(
            name="This reading room",
            arrivals_per_hour=arrivals,
            readers=_readers(sum(arrivals), studies, readers, notes),
            orders=_orders(history, notes),
            studies=studies,
        ),
        tuple(notes.notes),
    )


def _reading(history: ReadingHistory, readers: int, notes: _Notes) -> Duration:
    by_all = f"times between readings while studies lay waiting, by {readers} at a time"
    for values, scale, text in (
        (history.claims_min, 1, "workitems, from start to end of what was performed"),
        (history.gaps_min, readers, by_all),
    ):
        if len(values) >= FEWEST_READINGS:
            mean, variation = _spread([scale * one for one in values])
            notes.known("studies.reading", f"{mean:.1f} min, of {len(values)} {text}")
            return Duration(mean_min=mean, spread="lognormal", variation=variation)
    notes.assumed(
        "studies.reading",
        f"{_ASSUMED_READING_MIN:g} min, exponential; too few studies were claimed or marked read",
    )
    return Duration(mean_min=_ASSUMED_READING_MIN)


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and coefficient of variation, within what a scenario may say."""
    mean = max(sum(values) / len(values), 0.1)
    variance = sum((one - mean) ** 2 for one in values) / (len(values) - 1)
    return round(mean, 2), round(min(max(variance**0.5 / mean, 0.05), 5.0), 2)


def _readers(
    arrivals_per_day: float, studies: Sequence[StudyKind], said: int | None, notes: _Notes
) -> int:
    if said is not None:
        notes.known("readers", f"{said}, as given")
        return said
    work = arrivals_per_day * sum(kind.share * kind.reading.mean_min for kind in studies)
    readers = 1
    while work > _BUSY * readers * HOURS * 60:
        readers += 1
    notes.assumed(
        "readers", f"{readers} around the clock, as the work asks for; say how many there are"
    )
    return readers


def _orders(history: ReadingHistory, notes: _Notes) -> tuple[OrderShare, ...]:
    total = sum(history.orders.values())
    shares = {one: count / total for one, count in history.orders.items() if count}
    notes.known(
        "orders",
        ", ".join(
            f"{100 * share:.1f} % {one.label}"
            for one, share in sorted(shares.items(), reverse=True)
        ),
    )
    return tuple(
        OrderShare(priority=one, share=share) for one, share in sorted(shares.items(), reverse=True)
    )


def _kinds(history: ReadingHistory, reading: Duration, notes: _Notes) -> tuple[StudyKind, ...]:
    looked_at = sum(model.studies for model in history.models)
    if looked_at > history.studies:
        notes.assumed(
            "studies.share", "models look at the same studies; each gets studies of its own here"
        )
    scale = max(history.studies, looked_at)
    kinds = [
        StudyKind(
            name=f"studies for {model.name}"[:64],
            share=model.studies / scale,
            reading=reading,
            diseases=_diseases(model, notes),
        )
        for model in history.models[:11]
        if model.studies
    ]
    left = 1 - sum(kind.share for kind in kinds)
    if left > 1e-9:
        kinds.append(StudyKind(name="studies for no model", share=left, reading=reading))
    return tuple(kinds)


def _diseases(model: ModelHistory, notes: _Notes) -> tuple[Disease, ...]:
    diseases, left = [], 1.0
    for finding in model.findings[:8]:
        name = f"{model.name}: {finding.key}"
        prevalence, sensitivity, specificity = _performance(name, finding, notes)
        prevalence = min(prevalence, left)
        left -= prevalence
        diseases.append(
            Disease(
                name=finding.key,
                prevalence=prevalence,
                ai=Ai(
                    sensitivity=sensitivity,
                    specificity=specificity,
                    raises_to=finding.raises_to,
                    turnaround=Duration(mean_min=round(model.turnaround_min, 2)),
                    answers=model.answered / model.studies,
                ),
            )
        )
    notes.known(
        f"{model.name}: turnaround, answers",
        f"{model.turnaround_min:.1f} min from first image to flag; "
        f"answers for {model.answered} of {model.studies} studies",
    )
    return tuple(diseases)


def _performance(name: str, finding: FindingHistory, notes: _Notes) -> tuple[float, float, float]:
    """Return prevalence, sensitivity and specificity, of feedback where there is enough."""
    said = finding.agreement
    total = finding.flagged + finding.not_flagged
    if said and said.sensitivity and said.positive_predictive_value:
        assert said.negative_predictive_value is not None
        right = finding.flagged * said.positive_predictive_value.value
        missed = finding.not_flagged * (1 - said.negative_predictive_value.value)
        clear = finding.not_flagged - missed
        wrong = finding.flagged - right
        specificity = clear / (clear + wrong) if clear + wrong else 1.0
        notes.known(
            name,
            f"{said.judged.decided} judged statements (corrected after Begg & Greenes): "
            f"sensitivity {said.sensitivity.value:.2f}, specificity {specificity:.2f}, "
            f"prevalence {(right + missed) / total:.3f}",
        )
        return (right + missed) / total, said.sensitivity.value, specificity
    rate = finding.flagged / total if total else 0.0
    prevalence = _rogan_gladen(rate)
    notes.assumed(
        name,
        f"sensitivity {_ASSUMED_SENSITIVITY} and specificity {_ASSUMED_SPECIFICITY}, too little "
        f"feedback; so prevalence {prevalence:.3f}, of {finding.flagged} in {total} flagged",
    )
    return prevalence, _ASSUMED_SENSITIVITY, _ASSUMED_SPECIFICITY


def _rogan_gladen(rate: float) -> float:
    """Return the prevalence of which so many are flagged (Rogan & Gladen, Am J Epidemiol 1978)."""
    corrected = (rate + _ASSUMED_SPECIFICITY - 1) / (
        _ASSUMED_SENSITIVITY + _ASSUMED_SPECIFICITY - 1
    )
    return min(max(corrected, 0.0), 1.0)
