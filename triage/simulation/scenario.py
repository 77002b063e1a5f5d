"""A scenario: who comes, who reads, what the AI does. What is missing has a sensible value."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from triage.core.errors import TriageError
from triage.core.manifest import PriorityName
from triage.core.priority import Priority

HOURS = 24
BUSIEST = 0.98
"""Above this load a queue has not settled after any number of days that anybody would simulate."""

Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]*$")]
Minutes = Annotated[float, Field(gt=0, le=24 * 60)]
PerHour = Annotated[float, Field(ge=0, le=10_000)]
Readers = Annotated[int, Field(ge=0, le=200)]


class ScenarioError(TriageError):
    """A scenario is wrong; the message names each field and the fix, `field` the first."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Part(BaseModel):
    """A part of a scenario; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Duration(Part):
    """How long something takes: a mean, and how it is spread."""

    mean_min: Annotated[float, Field(ge=0, le=24 * 60)]
    """Mean, in minutes."""
    spread: Literal["exponential", "lognormal", "constant"] = "exponential"
    """How single values lie about the mean."""
    variation: Annotated[float, Field(gt=0, le=5)] = 0.5
    """Standard deviation by mean, of `lognormal`."""

    @property
    def second_moment(self) -> float:
        """The mean of the squares, in min²."""
        squared_variation = {
            "exponential": 1.0,
            "lognormal": self.variation**2,
            "constant": 0.0,
        }[self.spread]
        return self.mean_min**2 * (1 + squared_variation)


class Ai(Part):
    """A model that looks for one disease in all studies of a kind."""

    sensitivity: Share
    """Share of the diseased that it flags."""
    specificity: Share
    """Share of all others that it does not flag."""
    raises_to: PriorityName = Field(Priority.HIGH, json_schema_extra={"default": "high"})
    """The priority that a flagged study gets at least; an AI never lowers one."""
    turnaround: Duration = Duration(mean_min=0, spread="constant")
    """From when a study is on the list to when its flag is."""
    answers: Share = 1.0
    """Share of studies that it answers for; others stay where their order puts them."""


class Disease(Part):
    """What some studies of a kind show. A study shows one at most."""

    name: Name
    prevalence: Share
    """Share of the kind's studies."""
    reading: Duration | None = None
    """How long it takes to read these; without it as long as the kind's others."""
    ai: Ai | None = None
    """The model that looks for it, if there is one."""


def _different(parts: Sequence[Disease] | Sequence[StudyKind], field: str) -> None:
    names = [part.name for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{field}: {name!r} is there twice; give each a name of its own")


class StudyKind(Part):
    """Studies that the same models look at."""

    name: Name = "studies"
    share: Share = 1.0
    """Share of all studies."""
    reading: Duration = Duration(mean_min=10)
    """How long it takes to read one."""
    diseases: Annotated[tuple[Disease, ...], Field(max_length=8)] = ()
    """What they may show."""

    @model_validator(mode="after")
    def _at_most_all(self) -> Self:
        if sum(disease.prevalence for disease in self.diseases) > 1 + 1e-9:
            raise ValueError("diseases: prevalences add up to more than 1; a study shows one")
        _different(self.diseases, "diseases")
        return self


class OrderShare(Part):
    """Studies that were ordered with a priority."""

    priority: PriorityName
    share: Share
    """Share of all studies."""
    reading: Duration | None = None
    """How long it takes to read these; without it as their kind and disease say."""


class Scenario(Part):
    """A reading room over some days, with and without the AI."""

    name: Name = "Reading room"
    arrivals_per_hour: PerHour | tuple[PerHour, ...] = 4.8
    """How many studies come: one rate, or 24, one for each hour of the day from midnight."""
    readers: Readers | tuple[Readers, ...] = 1
    """How many read: one number, or 24."""
    orders: Annotated[tuple[OrderShare, ...], Field(min_length=1, max_length=4)] = (
        OrderShare(priority=Priority.ROUTINE, share=1.0),
    )
    """How studies are ordered; shares add up to 1."""
    studies: Annotated[tuple[StudyKind, ...], Field(min_length=1, max_length=12)] = (
        StudyKind(
            name="head CT",
            diseases=(
                Disease(
                    name="hemorrhage",
                    prevalence=0.1,
                    ai=Ai(sensitivity=0.9, specificity=0.9),
                ),
            ),
        ),
    )
    """What is read; shares add up to 1."""
    interrupting_from: PriorityName | None = None
    """From this priority on a study interrupts the reading of a less urgent one, which goes on
    later. Without it, what is begun is finished."""
    target_min: Minutes = 60
    """How long a study should wait at most."""
    days: Annotated[int, Field(ge=1, le=3660)] = 30
    """Days that count, in each replication."""
    warm_up_days: Annotated[int, Field(ge=0, le=366)] = 2
    """Days before and after these that do not: the room begins and ends empty."""
    replications: Annotated[int, Field(ge=2, le=1000)] = 20
    """How often it is played, each time with other studies."""

    @field_validator("arrivals_per_hour", "readers")
    @classmethod
    def _one_or_24(cls, value: object) -> object:
        if isinstance(value, tuple) and len(value) != HOURS:
            raise ValueError(f"give one number or 24, one for each hour; these are {len(value)}")
        return value

    @model_validator(mode="after")
    def _shares_are_whole(self) -> Self:
        for field, parts in (("orders", self.orders), ("studies", self.studies)):
            whole = sum(part.share for part in parts)
            if abs(whole - 1) > 1e-6:
                raise ValueError(f"{field}: shares add up to {whole:g}; they must add up to 1")
        if len({order.priority for order in self.orders}) < len(self.orders):
            raise ValueError("orders: a priority is given twice; give each once")
        _different(self.studies, "studies")
        return self

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        if not sum(self.hourly_arrivals):
            raise ValueError("arrivals_per_hour: no study comes; give a rate above 0")
        if not sum(self.hourly_readers):
            raise ValueError("readers: nobody reads; give at least 1")
        if self.load > BUSIEST:
            raise ValueError(
                f"readers: the load is {100 * self.load:.0f} % of what they can read, so that the "
                f"list grows without end; give more readers or fewer arrivals_per_hour, "
                f"for at most {100 * BUSIEST:.0f} %"
            )
        return self

    @property
    def hourly_arrivals(self) -> tuple[float, ...]:
        """Studies for each hour of the day."""
        rates = self.arrivals_per_hour
        return rates if isinstance(rates, tuple) else (rates,) * HOURS

    @property
    def hourly_readers(self) -> tuple[int, ...]:
        """Readers for each hour of the day."""
        return self.readers if isinstance(self.readers, tuple) else (self.readers,) * HOURS

    @property
    def is_steady(self) -> bool:
        """Whether all hours of the day are alike."""
        return all(
            one == other
            for hours in (self.hourly_arrivals, self.hourly_readers)
            for one, other in pairwise(hours)
        )

    @property
    def mean_reading_min(self) -> float:
        """How long it takes to read a study, over all of them."""
        return sum(
            order.share * (order.reading.mean_min if order.reading else _mean_of_kinds(self))
            for order in self.orders
        )

    @property
    def load(self) -> float:
        """The work of a day by what the readers can do in one."""
        work = sum(self.hourly_arrivals) * self.mean_reading_min
        capacity = sum(self.hourly_readers) * 60
        return work / capacity if capacity else float("inf")

    @property
    def expected_studies(self) -> float:
        """How many studies are played in all, for one of the two ways to read them."""
        days = self.days + 2 * self.warm_up_days
        return sum(self.hourly_arrivals) * days * self.replications


def _mean_of_kinds(scenario: Scenario) -> float:
    return sum(
        kind.share * sum(share * reading.mean_min for share, reading in readings_of(kind))
        for kind in scenario.studies
    )


def readings_of(kind: StudyKind) -> list[tuple[float, Duration]]:
    """Return how long it takes to read a study with each disease, and at last one with none.

    Each comes with its share of the kind.
    """
    readings = [(one.prevalence, one.reading or kind.reading) for one in kind.diseases]
    return [*readings, (1 - sum(share for share, _ in readings), kind.reading)]


def example_scenario() -> str:
    """Return the example as TOML, with what each field means."""
    return Path(__file__).with_name("example.toml").read_text(encoding="utf-8")


def load_scenario(path: Path) -> Scenario:
    """Return the scenario of a TOML or JSON file.

    Raises:
        ScenarioError: the file cannot be read, or the scenario is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ScenarioError(f"{path}: is no {path.suffix or 'TOML'} file: {error}") from error
    return scenario_of(content, f"{path}: ")


def scenario_of(content: object, said_before: str = "") -> Scenario:
    """Return the scenario that parsed TOML or JSON says.

    Raises:
        ScenarioError: it is wrong; all fields that are come in one message.
    """
    if not isinstance(content, Mapping):
        raise ScenarioError(f"{said_before}a scenario is a table of fields")
    try:
        return Scenario.model_validate(dict(content))
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        lines = [_line(one) for one in wrong if not _is_about_its_parts(one, wrong)]
        text = "\n".join(f"{said_before}{field}: {said}" for field, said in lines)
        raise ScenarioError(text, lines[0][0]) from error


def _is_about_its_parts(error: Any, others: Sequence[Any]) -> bool:
    """Whether it only says that a list is empty without those of its parts that are wrong."""
    place = error["loc"]
    return error["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in others
    )


def _line(error: Any) -> tuple[str, str]:
    """Return the field that an error is about, and what it says."""
    said = error["msg"].removeprefix("Value error, ")
    path = [part for part in error["loc"] if not _is_alternative(part)]
    field = ""
    for part in path:
        field += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if field else part
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(path[-1]), _known_names(), n=1)
        said = "is no field of a scenario" + (f"; did you mean {near[0]}?" if near else "")
    elif not path and ": " in said:  # of a validator of the whole, which names its field
        field, said = said.split(": ", 1)
    elif error["type"] == "value_error" and said.startswith("diseases: "):
        field, said = f"{field}.diseases", said.removeprefix("diseases: ")
    return field, said


def _is_alternative(part: int | str) -> bool:
    """Whether it says which type of several was tried, and is no part of a field's name."""
    return isinstance(part, str) and (
        "[" in part or part in ("float", "int", "tuple") or "constrained" in part
    )


def _known_names() -> list[str]:
    parts = (Scenario, StudyKind, OrderShare, Disease, Ai, Duration)
    return sorted({name for part in parts for name in part.model_fields})
