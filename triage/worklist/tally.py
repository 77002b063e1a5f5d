"""What the worklist consists of: counted once, for the figures above it and what it is filtered by.

One statement groups the studies that are to be read by all that can be counted; an index has
these columns, so that no row is looked at. Everything else is added up from the groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from triage.core.orders import patient_class_in_words
from triage.core.priority import Priority
from triage.store.claims import people_reading
from triage.store.tables import StudyRow
from triage.worklist.filters import IS_FLAGGED, TO_READ, WorklistFilter, ward_of

_MOST_CHOICES = 200


class WorklistCounts(BaseModel):
    """How many studies are to be read, of each priority, and how many the AI has flagged."""

    model_config = ConfigDict(frozen=True)

    total: int
    by_priority: dict[str, int]
    flagged: int
    changed_after_reading: int


class Offer(BaseModel):
    """A value that one can filter by, how it reads, and how many studies have it."""

    model_config = ConfigDict(frozen=True)

    value: str
    label: str
    studies: int


class WorklistChoices(BaseModel):
    """What the studies that are to be read can be filtered by."""

    model_config = ConfigDict(frozen=True)

    modalities: tuple[Offer, ...]
    body_parts: tuple[Offer, ...]
    patient_classes: tuple[Offer, ...]
    wards: tuple[Offer, ...]
    people: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    priority: Priority
    is_flagged: bool
    modalities: frozenset[str]
    body_parts: frozenset[str]
    patient_class: str
    ward: str
    studies: int

    @classmethod
    def of(cls, row: Any) -> _Group:
        priority, is_flagged, modalities, body_parts, patient_class, location, studies = row
        return cls(
            priority=priority,
            is_flagged=bool(is_flagged),
            modalities=frozenset(filter(None, modalities.split("\\"))),
            body_parts=frozenset(filter(None, body_parts.split("\\"))),
            patient_class=patient_class,
            ward=ward_of(location),
            studies=studies,
        )

    def fits(self, wanted: WorklistFilter) -> bool:
        return (
            (not wanted.modalities or not self.modalities.isdisjoint(wanted.modalities))
            and (not wanted.body_parts or not self.body_parts.isdisjoint(wanted.body_parts))
            and (not wanted.patient_classes or self.patient_class in wanted.patient_classes)
            and (not wanted.wards or self.ward in wanted.wards)
            and (not wanted.flagged or self.is_flagged)
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """The studies that are to be read, in groups, and who reads."""

    groups: Sequence[_Group]
    people: Sequence[str]
    changed_after_reading: int

    def counts(self) -> WorklistCounts:
        """Return the figures that stand above the list."""
        by_priority = {priority.name.lower(): 0 for priority in reversed(Priority)}
        for group in self.groups:
            by_priority[group.priority.name.lower()] += group.studies
        return WorklistCounts(
            total=sum(by_priority.values()),
            by_priority=by_priority,
            flagged=sum(group.studies for group in self.groups if group.is_flagged),
            changed_after_reading=self.changed_after_reading,
        )

    def number_of(self, wanted: WorklistFilter) -> int:
        """Return how many studies a filter leaves; it must be one that the groups can answer."""
        return sum(group.studies for group in self.groups if group.fits(wanted))

    def choices(self) -> WorklistChoices:
        """Return what the list can be filtered by."""
        return WorklistChoices(
            modalities=_offers((g.modalities, g.studies) for g in self.groups),
            body_parts=_offers((g.body_parts, g.studies) for g in self.groups),
            patient_classes=tuple(
                offer.model_copy(update={"label": patient_class_in_words(offer.value)})
                for offer in _offers(({g.patient_class}, g.studies) for g in self.groups)
            ),
            wards=_offers(({g.ward}, g.studies) for g in self.groups),
            people=tuple(self.people),
        )


def tally_worklist(session: Session, now: datetime, changed_after_reading: int) -> Tally:
    """Count the studies that are to be read."""
    columns = (
        StudyRow.priority,
        IS_FLAGGED,
        StudyRow.modalities,
        StudyRow.body_parts,
        StudyRow.patient_class,
        StudyRow.location,
    )
    rows = session.execute(select(*columns, func.count()).where(TO_READ).group_by(*columns))
    return Tally(
        groups=[_Group.of(row) for row in rows],
        people=people_reading(session, now),
        changed_after_reading=changed_after_reading,
    )


def _offers(counted: Iterable[tuple[Iterable[str], int]]) -> tuple[Offer, ...]:
    studies: Counter[str] = Counter()
    for values, count in counted:
        for value in values:
            studies[value] += count
    del studies[""]
    commonest = sorted(value for value, _ in studies.most_common(_MOST_CHOICES))
    return tuple(Offer(value=v, label=v, studies=studies[v]) for v in commonest)
