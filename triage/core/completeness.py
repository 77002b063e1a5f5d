"""When a study counts as complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class QuietPeriods:
    """How long nothing may have arrived before a study counts as complete.

    Attributes:
        default_s: seconds for every modality that is not named.
        by_modality_s: seconds for each named Modality (0008,0060).
    """

    default_s: float = 30.0
    by_modality_s: Mapping[str, float] = field(default_factory=lambda: {"CT": 5.0, "MR": 10.0})

    def for_modalities(self, modalities: frozenset[str]) -> timedelta:
        """Return the longest quiet period of any modality in the study."""
        named = [self.by_modality_s.get(m, self.default_s) for m in modalities]
        return timedelta(seconds=max(named, default=self.default_s))

    @property
    def shortest(self) -> timedelta:
        """The shortest quiet period: no study is complete sooner after its last image."""
        return timedelta(seconds=min([self.default_s, *self.by_modality_s.values()]))


@dataclass(frozen=True, slots=True)
class Arrival:
    """What the receiver knows about a study whose images are arriving."""

    modalities: frozenset[str]
    last_instance_at: datetime
    open_associations: int


def completion_reason(arrival: Arrival, quiet: QuietPeriods, now: datetime) -> str | None:
    """Return why the study is complete at `now`, or None while more may come.

    An association that has sent images of the study and is still open keeps it incomplete.
    """
    if arrival.open_associations:
        return None
    wanted = quiet.for_modalities(arrival.modalities)
    if now - arrival.last_instance_at < wanted:
        return None
    return f"association released and no image for {wanted.total_seconds():g} s"
