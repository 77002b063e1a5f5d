"""`[notifications]`: which findings people are told of, who, how, and when they have peace."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Annotated, Literal, Self, TypeVar
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, field_validator, model_validator

from triage.core.findings import Finding
from triage.core.notifications import QuietRules
from triage.core.on_call import Hours
from triage.core.priority import Priority
from triage.settings.parts import Seconds, Section

BROWSER = "browser"
"""The channel that needs no destination: the pages of Triage."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_EVERY_DAY: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
PriorityName = Literal["low", "routine", "high", "stat"]
ClockTime = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
Share = Annotated[float, Field(ge=0, le=1)]


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("no such time zone; write it as Europe/Berlin or UTC") from None
    return name


TimeZone = Annotated[str, AfterValidator(_known_zone)]


class HoursSettings(Section):
    """A stretch of local time on some weekdays."""

    weekdays: Annotated[tuple[Weekday, ...], Field(min_length=1)] = _EVERY_DAY
    """Days on which it begins; over midnight it ends on the next."""
    start: ClockTime = "00:00"
    """Local time at which it begins, as `"22:00"`."""
    end: ClockTime = "00:00"
    """Local time at which it ends; the same as `start` is a whole day."""

    def in_zone(self, zone: str) -> Hours:
        """Return these hours in a time zone."""
        start, end = time.fromisoformat(self.start), time.fromisoformat(self.end)
        return Hours(self.weekdays, start, end, ZoneInfo(zone))


class ShiftSettings(HoursSettings):
    """`shifts` of a group: who is on call when."""

    members: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Names of recipients who are on call in these hours."""


class RecipientSettings(Section):
    """`[[notifications.recipients]]`: a person who can be told."""

    name: Name
    """What rules, groups and the pages call the person."""
    user: Annotated[str, Field(max_length=128)] = ""
    """Name under which the pages know the person; empty is `name`."""
    email: Annotated[str, Field(pattern=r"^$|^[^@\s]+@[^@\s]+$")] = ""
    """E-mail address, for channels that are an e-mail destination."""
    quiet_hours: tuple[HoursSettings, ...] = ()
    """Hours of no disturbance: `{weekdays = […], start = "22:00", end = "07:00"}`; what comes then
    is in a digest at their end."""

    @property
    def known_as(self) -> str:
        """The name under which the pages know the person."""
        return self.user or self.name

    def quiet_until(self, at: datetime, zone: str) -> datetime | None:
        """Return the end of the quiet hours that the moment is in, or None."""
        ends = [hours.in_zone(zone).ends_after(at) for hours in self.quiet_hours]
        return max((end for end in ends if end is not None), default=None)


class GroupSettings(Section):
    """`[[notifications.groups]]`: people of whom those on call are told."""

    name: Name
    """What rules call it."""
    members: tuple[Name, ...] = ()
    """Names of recipients who are always on call."""
    shifts: tuple[ShiftSettings, ...] = ()
    """Who is on call when: `{weekdays = […], start = "18:00", end = "08:00", members = […]}`."""
    time_zone: TimeZone | None = None
    """Time zone of the shifts; none is `notifications.time_zone`."""

    @property
    def everybody(self) -> tuple[str, ...]:
        """All who are on call at any time, each once."""
        of_shifts = (name for shift in self.shifts for name in shift.members)
        return tuple(dict.fromkeys((*self.members, *of_shifts)))

    def on_call(self, at: datetime, zone: str) -> tuple[str, ...]:
        """Return who is on call; where nobody is, everybody: a gap must not swallow a finding."""
        now = (
            name
            for shift in self.shifts
            if shift.in_zone(self.time_zone or zone).holds(at)
            for name in shift.members
        )
        return tuple(dict.fromkeys((*self.members, *now))) or self.everybody

    @model_validator(mode="after")
    def _has_somebody(self) -> Self:
        if not self.everybody:
            raise ValueError(
                f"notifications.groups {self.name!r} has nobody; set members or shifts"
            )
        return self


class StepSettings(Section):
    """`steps` of a rule: who is told, and how long they have."""

    to: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Names of recipients and groups."""
    channels: Annotated[tuple[Name, ...], Field(min_length=1)] = (BROWSER,)
    """`browser`, and names of `[[destinations]]` of kind `email` or `webhook`."""
    escalate_after_s: Seconds = 900.0
    """Seconds without acknowledgement until the next step is told; after the last one, until it is
    noted that nobody acknowledged."""


@dataclass(frozen=True, slots=True)
class FoundIn:
    """What a rule looks at beside the finding: the model, and the study that it was found in."""

    model: str
    modalities: Collection[str]
    location: str


class NotificationRuleSettings(Section):
    """`[[notifications.rules]]`: findings that people are told of. The first rule that fits counts;
    what is left out is not asked."""

    name: Name
    """What the pages and the history call it."""
    findings: tuple[str, ...] = ()
    """Keys of findings, or their codes as `1386000`."""
    models: tuple[str, ...] = ()
    """Names of models, any version."""
    priorities: tuple[PriorityName, ...] = ("stat",)
    """Priorities that the finding asks for."""
    minimum_confidence: Share = 0.0
    """The least confidence."""
    minimum_measurement: dict[str, float] = {}  # noqa: RUF012
    """The least value of measurements by their meaning, in their own unit: `{Volume = 5.0}`."""
    modalities: tuple[str, ...] = ()
    """Modalities, one of which the study must have."""
    locations: tuple[str, ...] = ()
    """Where the patient is, as orders say it; the beginning is enough, so `ED` is also `ED^12`."""
    steps: Annotated[tuple[StepSettings, ...], Field(min_length=1, max_length=10)]
    """Who is told first, and to whom it escalates; see `[[notifications.rules.steps]]`."""

    def takes(self, finding: Finding, found_in: FoundIn) -> bool:
        """Return whether people are to be told of the finding by this rule."""
        names = {finding.key, finding.code.value}
        return (
            finding.present
            and (not self.findings or bool(names & set(self.findings)))
            and (not self.models or found_in.model in self.models)
            and (not self.priorities or finding.priority.name.lower() in self.priorities)
            and finding.confidence >= self.minimum_confidence
            and all(self._reaches(finding, *least) for least in self.minimum_measurement.items())
            and (not self.modalities or bool(set(self.modalities) & set(found_in.modalities)))
            and (not self.locations or found_in.location.startswith(self.locations))
        )

    @staticmethod
    def _reaches(finding: Finding, meaning: str, least: float) -> bool:
        return any(
            measured.concept.meaning == meaning and measured.value >= least
            for measured in finding.measurements
        )


_Named = TypeVar("_Named", RecipientSettings, GroupSettings, NotificationRuleSettings)


class NotificationSettings(Section):
    """`[notifications]`: people who are told of critical findings."""

    time_zone: TimeZone = "UTC"
    """Time zone of quiet hours and shifts, such as `Europe/Berlin`."""
    maximum_per_hour: Annotated[int, Field(ge=0)] = 6
    """Notifications that one person is told at once within any hour; more wait for a digest."""
    always_at_once: tuple[PriorityName, ...] = ("stat",)
    """Priorities for which neither that limit, quiet hours nor snooze hold."""
    digest_after_s: Seconds = 3600.0
    """Seconds after which what is over the limit is told in one digest."""
    longest_snooze_s: Seconds = 14400.0
    """The longest that a person may ask not to be told, in seconds."""
    predictive_value_floor: Share = 0.0
    """Positive predictive value, by feedback, under which a model's findings are told in digests
    only and do not escalate; 0 asks for none."""
    predictive_value_minimum: Annotated[int, Field(ge=1)] = 20
    """Judged positives that are needed to say so."""
    predictive_value_days: Annotated[float, Field(gt=0)] = 30.0
    """Days of feedback that count for it."""
    recipients: tuple[RecipientSettings, ...] = ()
    """People who can be told, each a section `[[notifications.recipients]]`."""
    groups: tuple[GroupSettings, ...] = ()
    """Groups with shifts, each a section `[[notifications.groups]]`."""
    rules: tuple[NotificationRuleSettings, ...] = ()
    """Which findings they are told of, each a section `[[notifications.rules]]`; without any,
    nobody is told."""

    @field_validator("recipients", "groups", "rules")
    @classmethod
    def _named_once(cls, named: tuple[_Named, ...]) -> tuple[_Named, ...]:
        _refuse_twice([one.name for one in named])
        return named

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        people = [one.name for one in self.recipients]
        groups = [one.name for one in self.groups]
        _refuse_twice([*people, *groups])
        _refuse_twice([one.known_as for one in self.recipients])
        for group in self.groups:
            _require_known(f"groups {group.name!r}", group.everybody, people)
        for rule in self.rules:
            for step in rule.steps:
                _require_known(f"rules {rule.name!r}", step.to, [*people, *groups])
        return self

    @property
    def quiet_rules(self) -> QuietRules:
        """How many messages a person gets, and which priorities know no quiet."""
        return QuietRules(
            self.maximum_per_hour,
            timedelta(seconds=self.digest_after_s),
            {Priority.parse(name) for name in self.always_at_once},
        )

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that any rule names, each once."""
        named = (name for rule in self.rules for step in rule.steps for name in step.channels)
        return tuple(dict.fromkeys(named))

    def rule(self, name: str) -> NotificationRuleSettings | None:
        """Return the rule of this name, None where it was removed meanwhile."""
        return next((rule for rule in self.rules if rule.name == name), None)

    def rule_for(self, finding: Finding, found_in: FoundIn) -> NotificationRuleSettings | None:
        """Return the first rule that takes the finding."""
        return next((rule for rule in self.rules if rule.takes(finding, found_in)), None)

    def recipient(self, name: str) -> RecipientSettings | None:
        """Return the recipient of this name, None where there is none any more."""
        return next((one for one in self.recipients if one.name == name), None)

    def recipient_known_as(self, person: str) -> RecipientSettings | None:
        """Return the recipient whom the pages know under this name."""
        return next((one for one in self.recipients if one.known_as == person), None)

    def people_of(self, names: Iterable[str], at: datetime) -> tuple[RecipientSettings, ...]:
        """Return the persons of a step at a moment: recipients, and who is on call of groups."""
        groups = {group.name: group for group in self.groups}
        called = (
            person
            for name in names
            for person in (groups[name].on_call(at, self.time_zone) if name in groups else (name,))
        )
        known = {one.name: one for one in self.recipients}
        return tuple(known[name] for name in dict.fromkeys(called))

    def check_channels(self, kinds: dict[str, str], outside: Collection[str]) -> None:
        """Refuse channels that are no destination for people.

        Args:
            kinds: the kind of each destination by its name.
            outside: names of destinations that get de-identified results only.

        Raises:
            ValueError: names the rule, the channel and the fix.
        """
        addressless = {one.name for one in self.recipients if not one.email}
        everybody = {group.name: group.everybody for group in self.groups}
        for rule in self.rules:
            for step in rule.steps:
                to = {one for name in step.to for one in everybody.get(name, (name,))}
                for channel in step.channels:
                    _check_channel(rule.name, channel, kinds, outside)
                    if kinds.get(channel) == "email" and (lacking := to & addressless):
                        raise ValueError(
                            f"notifications.rules {rule.name!r}: {channel} is e-mail, and "
                            f"{', '.join(sorted(lacking))} has no address; set email in "
                            "[[notifications.recipients]]"
                        )


def _check_channel(
    rule: str, channel: str, kinds: dict[str, str], outside: Collection[str]
) -> None:
    if channel == BROWSER and channel not in kinds:
        return
    known = sorted(name for name, kind in kinds.items() if kind in ("email", "webhook"))
    if channel not in known:
        raise ValueError(
            f"notifications.rules {rule!r}: {channel!r} is no channel; use one of "
            f"{', '.join([BROWSER, *known])}, or add a destination of kind email or webhook"
        )
    if channel in outside:
        raise ValueError(
            f"notifications.rules {rule!r}: {channel!r} is de-identified, so nobody could find the "
            "study; name another destination"
        )


def _refuse_twice(names: list[str]) -> None:
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"the name {', '.join(sorted(twice))} is there twice; rename one")


def _require_known(where: str, names: Collection[str], known: Collection[str]) -> None:
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(
            f"notifications.{where} names {', '.join(unknown)}, whom nobody knows; add them to "
            "[[notifications.recipients]]"
        )
