"""What the rules would have told people of the last days: for tuning them against fatigue."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.findings import Finding
from triage.core.notifications import Reachable, Telling, telling
from triage.core.runs import RunState
from triage.core.stages import COUNTING_STAGES
from triage.settings.notifications import FoundIn, NotificationRuleSettings, NotificationSettings
from triage.store.notifications import finding_class
from triage.store.tables import AnalysisRunRow, FindingRow, StudyRow


class HourOfPerson(BaseModel):
    """What one person would have been told in one hour that had anything for them."""

    model_config = ConfigDict(frozen=True)

    recipient: str
    hour: datetime
    at_once: int
    held: dict[str, int]


class Preview(BaseModel):
    """What the rules make of the findings of some days.

    Only first steps: whether anybody would have acknowledged is not known. What was read before the
    finding came is left out.
    """

    model_config = ConfigDict(frozen=True)

    days: int
    findings: int
    notifications: dict[str, int]
    repeated: int
    already_read: int
    hours: tuple[HourOfPerson, ...]

    @property
    def most_in_an_hour(self) -> int:
        """The most that anybody would have been told at once in an hour of the clock."""
        return max((hour.at_once for hour in self.hours), default=0)


@dataclass
class _Simulation:
    """People and what they were told so far."""

    settings: NotificationSettings
    told: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    hours: dict[tuple[str, datetime], list[Telling]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def tell(self, rule: NotificationRuleSettings, finding: Finding, at: datetime) -> None:
        for person in self.settings.people_of(rule.steps[0].to, at):
            reachable = Reachable(
                self.told[person.name], person.quiet_until(at, self.settings.time_zone)
            )
            when = telling(
                reachable,
                finding.priority,
                self.settings.quiet_rules,
                is_model_trusted=True,
                now=at,
            )
            if when.held is None:
                self.told[person.name].append(at)
            hour = at.replace(minute=0, second=0, microsecond=0)
            self.hours[person.name, hour].append(when)


def preview_notifications(
    session: Session, settings: NotificationSettings, *, days: int, now: datetime
) -> Preview:
    """Let the rules of `settings` look at the findings of the last days, and tell nobody."""
    simulation = _Simulation(settings)
    known: set[tuple[int, str]] = set()
    by_rule: Counter[str] = Counter()
    findings = repeated = already_read = 0
    for run, study, finding in _findings_since(session, now - timedelta(days=days)):
        rule = settings.rule_for(finding, _found_in(run, study))
        if rule is None:
            continue
        findings += 1
        at = run.finished_at or run.created_at
        if (study.id, finding_class(finding)) in known:
            repeated += 1
        elif study.read_at is not None and study.read_at <= at:
            already_read += 1
        else:
            known.add((study.id, finding_class(finding)))
            by_rule[rule.name] += 1
            simulation.tell(rule, finding, at)
    return Preview(
        days=days,
        findings=findings,
        notifications=dict(by_rule),
        repeated=repeated,
        already_read=already_read,
        hours=tuple(
            HourOfPerson(
                recipient=recipient,
                hour=hour,
                at_once=sum(when.held is None for when in tellings),
                held=dict(Counter(when.held.value for when in tellings if when.held)),
            )
            for (recipient, hour), tellings in sorted(simulation.hours.items())
        ),
    )


def _findings_since(
    session: Session, since: datetime
) -> Iterator[tuple[AnalysisRunRow, StudyRow, Finding]]:
    """Yield the present findings of what counts, in the order in which they came."""
    rows = session.execute(
        select(AnalysisRunRow, StudyRow, FindingRow)
        .join(StudyRow, StudyRow.id == AnalysisRunRow.study_id)
        .join(FindingRow, FindingRow.run_id == AnalysisRunRow.id)
        .where(
            AnalysisRunRow.finished_at >= since,
            AnalysisRunRow.state.in_((RunState.COMPLETED, RunState.SUPERSEDED)),
            AnalysisRunRow.stage.in_(COUNTING_STAGES),
            FindingRow.present.is_(True),
        )
        .order_by(AnalysisRunRow.finished_at, FindingRow.id)
    )
    for run, study, row in rows:
        yield run, study, Finding.model_validate(row.content)


def _found_in(run: AnalysisRunRow, study: StudyRow) -> FoundIn:
    return FoundIn(run.model.name, tuple(study.modalities.split("\\")), study.location)
