"""The priority policy: what a hospital decided makes a study more urgent, as one document.

A point is a minute: a study with 60 points stands where it would stand had it come an hour
earlier. So every study's wait grows at the same rate as every other's, nothing of one class can be
overtaken by what comes later than its points explain, and the order of the list is a fixed key.

Nothing in a policy can lower a study: points and targets are not negative, and of several classes
the most urgent counts.
"""

from __future__ import annotations

import difflib
import fnmatch
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Self

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from triage.core.errors import TriageError
from triage.core.findings import Finding
from triage.core.manifest import PriorityName
from triage.core.priority import Priority

MOST_POINTS = 7 * 24 * 60
"""A week: more than that no policy can put one study before another of its class."""
LONGEST_MINUTES = 366 * 24 * 60

Points = Annotated[int, Field(ge=0, le=MOST_POINTS)]
Minutes = Annotated[int, Field(ge=1, le=LONGEST_MINUTES)]
Text = Annotated[str, Field(max_length=1000)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^;\n]+$")]
Pattern = Annotated[str, Field(min_length=1, max_length=128)]


class PolicyError(TriageError):
    """A policy is not usable: one line for each field that is wrong, with the fix.

    Attributes:
        problems: pairs of the field ("findings.0.points") and what is wrong with it.
    """

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{field}: {said}" for field, said in problems))
        self.problems = problems


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ByClass(_Part):
    """A number for each class; what is left out has none."""

    stat: Minutes | None = None
    high: Minutes | None = None
    routine: Minutes | None = None
    low: Minutes | None = None

    def of(self, priority: Priority) -> int | None:
        """Return the number of a class."""
        number: int | None = getattr(self, priority.name.lower())
        return number


class Targets(ByClass):
    """Minutes from the first image until a study should be read."""

    @model_validator(mode="after")
    def _urgent_is_sooner(self) -> Self:
        shortest: tuple[str, int] | None = None
        for priority in Priority:
            name, minutes = priority.name.lower(), self.of(priority)
            if minutes is None:
                continue
            if shortest is not None and minutes > shortest[1]:
                raise ValueError(
                    f"{name} has {minutes} minutes, which is longer than the {shortest[1]} of "
                    f"{shortest[0]}; the more urgent must be due first"
                )
            shortest = (name, minutes)
        return self

    def for_class(self, priority: Priority) -> int | None:
        """Return the target of a class: never later than that of a less urgent one."""
        known = [self.of(p) for p in Priority if p <= priority]
        return min((minutes for minutes in known if minutes is not None), default=None)


class OrderPoints(_Part):
    """The points that a study has because of what its order says."""

    stat: Points = 0
    high: Points = 0
    routine: Points = 0
    low: Points = 0

    def of(self, priority: Priority) -> int:
        """Return the points of an order of that priority."""
        points: int = getattr(self, priority.name.lower())
        return points


class LocationRule(_Part):
    """Where a patient is, and what that is worth.

    Attributes:
        name: how the worklist says it: "Emergency".
        patient_classes: HL7 table 0004: E, I, O …; any of them.
        locations: patterns such as "ED*", any of them; capital and small letters are the same.
            Where both are given, both must hold.
        at_least: the class that such a study has at least.
        points: minutes of waiting that it is worth.
        turnaround_minutes: targets that hold here where they are sooner than the general ones.
    """

    name: Name
    patient_classes: Annotated[tuple[Pattern, ...], Field(max_length=20)] = ()
    locations: Annotated[tuple[Pattern, ...], Field(max_length=100)] = ()
    at_least: PriorityName | None = None
    points: Points = 0
    turnaround_minutes: Targets = Targets()

    @model_validator(mode="after")
    def _names_a_place(self) -> Self:
        if not self.patient_classes and not self.locations:
            raise ValueError("name where: add patient_classes or locations")
        return self

    def holds(self, patient_class: str, location: str) -> bool:
        """Return whether the patient is there."""
        is_class = not self.patient_classes or patient_class.strip().upper() in {
            code.strip().upper() for code in self.patient_classes
        }
        is_place = not self.locations or any(
            fnmatch.fnmatchcase(location.strip().upper(), pattern.strip().upper())
            for pattern in self.locations
        )
        return is_class and is_place


def _code_as_text(value: Any) -> Any:
    # TOML writes a code such as 50960005 most easily as a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Code = Annotated[str, BeforeValidator(_code_as_text), Field(min_length=1, max_length=64)]


class Minimum(_Part):
    """The least that a measurement must be, for example a Volume of 5 mL.

    `concept` is the code's value or meaning, `unit` the UCUM unit.
    """

    concept: Code
    at_least: Annotated[float, Field(allow_inf_nan=False)]
    unit: Annotated[str, Field(min_length=1, max_length=16)]

    def reached_by(self, finding: Finding) -> bool | None:
        """Return whether the finding reaches it, None where it was not measured so."""
        measured = [
            m.value
            for m in finding.measurements
            if self.concept.casefold() in (m.concept.value.casefold(), m.concept.meaning.casefold())
            and m.unit.value == self.unit
        ]
        return max(measured) >= self.at_least if measured else None

    def in_words(self) -> str:
        """Return it as people say it."""
        return f"{self.concept} of {self.at_least:g} {self.unit} or more"


class FindingRule(_Part):
    """What a finding asks for; a finding that no rule names asks for what its manifest says.

    Attributes:
        finding: its key in the manifest, or the value of its code, such as 50960005.
        model: the model's name; left out, it is of any model.
        minimum_confidence: 0 to 1; below it this rule does not raise anything.
        minimum: the least measurement; below it this rule does not raise anything.
        priority: the class that it asks for. routine: it raises no class.
        points: minutes of waiting that it is worth within its class.
    """

    finding: Code
    model: Annotated[str, Field(max_length=64)] = ""
    minimum_confidence: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    minimum: Minimum | None = None
    priority: PriorityName = Priority.ROUTINE
    points: Points = 0

    def names(self, model: str, finding: Finding) -> bool:
        """Return whether it is about the finding of that model (name, without its version)."""
        is_of_model = not self.model or self.model == model
        return is_of_model and self.finding in (finding.key, finding.code.value)

    def holds(self, finding: Finding) -> bool | None:
        """Return whether the finding reaches what the rule demands, None where nobody knows."""
        if finding.confidence < self.minimum_confidence:
            return False
        return True if self.minimum is None else self.minimum.reached_by(finding)

    def in_words(self) -> str:
        """Return what it says of the finding.

        >>> FindingRule(finding="a", priority="stat", points=30, minimum_confidence=0.8).in_words()
        'STAT +30, from confidence 0.8 on'
        """
        asked = f"{self.priority.label}{f' +{self.points}' if self.points else ''}"
        if self.priority <= Priority.ROUTINE:
            asked = f"no higher class, +{self.points}" if self.points else "nothing"
        demands = []
        if self.minimum_confidence:
            demands.append(f"from confidence {self.minimum_confidence:g} on")
        if self.minimum is not None:
            demands.append(f"with {self.minimum.in_words()}")
        return ", ".join([asked, *demands])


class PriorityPolicy(_Part):
    """All that decides a study's place, but for the study itself.

    Attributes:
        name: how people call it.
        description: why it is as it is.
        order_points: by what the order says, within the class.
        locations: where patients are; all rules that hold count, and their points add up.
        findings: what findings ask for; of several the most urgent class and the most points.
        turnaround_minutes: by class, from the first image until a study should be read.
        rises_after_minutes: a study that waited so long in its class goes up one. Left out: it
            stays. Use it where everything that is read is marked as read, or the list fills up.
        most_points: the most minutes that all points of a study together are worth.
    """

    name: Name = "Shipped policy"
    description: Text = ""
    order_points: OrderPoints = OrderPoints()
    locations: Annotated[tuple[LocationRule, ...], Field(max_length=200)] = ()
    findings: Annotated[tuple[FindingRule, ...], Field(max_length=500)] = ()
    turnaround_minutes: Targets = Targets()
    rises_after_minutes: ByClass = ByClass()
    most_points: Points = 12 * 60

    @model_validator(mode="after")
    def _most_urgent_does_not_rise(self) -> Self:
        if self.rises_after_minutes.stat is not None:
            raise ValueError("rises_after_minutes.stat: there is nothing above STAT; remove it")
        return self

    def locations_of(self, patient_class: str, location: str) -> tuple[LocationRule, ...]:
        """Return the rules that hold where the patient is."""
        return tuple(rule for rule in self.locations if rule.holds(patient_class, location))

    def asked_by(self, model: str, finding: Finding) -> tuple[Priority, int]:
        """Return the class and the points that a present finding of a model asks for.

        Where a rule demands a measurement that was not made, nobody can say that the finding is
        below it: it asks for what its manifest says, as if no rule named it.
        """
        rules = [rule for rule in self.findings if rule.names(model, finding)]
        held = {id(rule): rule.holds(finding) for rule in rules}
        holding = [rule for rule in rules if held[id(rule)]]
        if holding:
            return max(r.priority for r in holding), max(r.points for r in holding)
        if not rules or None in held.values():
            return finding.priority, 0
        return Priority.ROUTINE, 0


SHIPPED_POLICY = PriorityPolicy(
    description=(
        "The order's priority, or what the models' manifests ask for if that is more urgent. "
        "Within a class, emergency patients go before others who came up to an hour earlier, "
        "inpatients before those who came up to a quarter of an hour earlier."
    ),
    locations=(
        LocationRule(name="Emergency patient", patient_classes=("E",), points=60),
        LocationRule(name="Inpatient", patient_classes=("I",), points=15),
    ),
    turnaround_minutes=Targets(stat=60, high=4 * 60, routine=24 * 60, low=3 * 24 * 60),
)
"""What holds until somebody activates another policy."""


def policy_from_toml(text: str) -> PriorityPolicy:
    """Return the policy that a TOML document describes.

    Raises:
        PolicyError: it is no TOML, or a field is wrong.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError([("policy", f"this is not valid TOML: {error}")]) from None
    return parse_policy(content)


def policy_as_toml(policy: PriorityPolicy) -> str:
    """Return the policy as a TOML document that `policy_from_toml` reads, with all that it says.

    >>> print(policy_as_toml(PriorityPolicy(name="Ours")).splitlines()[0])
    name = "Ours"
    """
    rules = {"locations", "findings"}
    parts = [tomli_w.dumps(policy.model_dump(mode="json", exclude_none=True, exclude=rules))]
    for name in sorted(rules):
        for rule in getattr(policy, name):
            # Of a rule only what it says, and never in a line: [[...]] can be added to by hand.
            said = tomli_w.dumps({name: rule.model_dump(mode="json", exclude_defaults=True)})
            parts.append(said.replace(f"[{name}]", f"[[{name}]]", 1))
    return "\n".join(parts)


def parse_policy(content: Mapping[str, Any]) -> PriorityPolicy:
    """Return the policy that a mapping describes.

    Raises:
        PolicyError: a field is unknown, missing or wrong; each is named, with the fix.
    """
    try:
        return PriorityPolicy.model_validate(dict(content))
    except ValidationError as error:
        raise PolicyError([_problem(one) for one in error.errors()]) from None


def _problem(error: Any) -> tuple[str, str]:
    path = error["loc"]
    field = ".".join(map(str, path)) or "policy"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = _fields_beside(path)
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        return field, f"this field is unknown; {advice}"
    if error["type"] == "missing":
        return field, "this field is required; add it"
    if isinstance(error["input"], dict | PriorityPolicy | _Part):
        return field, message
    return field, f"{message} (found {error['input']!r})"


_PARTS: Mapping[str, type[BaseModel]] = {
    "order_points": OrderPoints,
    "locations": LocationRule,
    "findings": FindingRule,
    "turnaround_minutes": Targets,
    "rises_after_minutes": ByClass,
    "minimum": Minimum,
}


def _fields_beside(path: tuple[int | str, ...]) -> list[str]:
    names = [part for part in path[:-1] if isinstance(part, str)]
    model = _PARTS[names[-1]] if names else PriorityPolicy
    return sorted(model.model_fields)
