"""When a study counts as complete, and when one of its series is enough for a first analysis.

No signal proves that a study is whole: a performed procedure step speaks of its own images, a count
of the archive is a lower bound while the archive itself is receiving, and Images in Acquisition
(0020,1002) speaks of one acquisition. So numbers complete a study at once only where all that were
announced agree with all that is held; otherwise the quiet period decides, and every wait has an
end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, StrEnum


@dataclass(frozen=True, slots=True)
class QuietPeriods:
    """How long nothing may have arrived before a study counts as complete.

    Attributes:
        default_s: seconds for every modality that is not named.
        by_modality_s: seconds for each named Modality (0008,0060).
        by_calling_ae_title_s: seconds for each named sender; they go before its modalities'.
    """

    default_s: float = 30.0
    by_modality_s: Mapping[str, float] = field(default_factory=lambda: {"CT": 5.0, "MR": 10.0})
    by_calling_ae_title_s: Mapping[str, float] = field(default_factory=dict)

    def for_modalities(self, modalities: frozenset[str]) -> timedelta:
        """Return the longest quiet period of any modality in the study."""
        named = [self.by_modality_s.get(m, self.default_s) for m in modalities]
        return timedelta(seconds=max(named, default=self.default_s))

    def for_study(self, modalities: frozenset[str], senders: frozenset[str]) -> timedelta:
        """Return the longest quiet period of any sender of the study.

        A sender that is named has its own; one that is not has that of the study's modalities.
        """
        named = [self.by_calling_ae_title_s[s] for s in senders if s in self.by_calling_ae_title_s]
        if named and len(named) == len(senders):
            return timedelta(seconds=max(named))
        return max([self.for_modalities(modalities), *(timedelta(seconds=s) for s in named)])

    @property
    def shortest(self) -> timedelta:
        """The shortest quiet period: silence alone completes no study sooner."""
        every = (self.default_s, *self.by_modality_s.values(), *self.by_calling_ae_title_s.values())
        return timedelta(seconds=min(every))


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a study waits at the most, and for whose numbers.

    Attributes:
        expected_wait_s: seconds after the last image for which announced images are waited for.
        maximum_age_s: seconds after which a study is complete though its arrival does not end.
        wrong_acquisitions_from: senders whose Images in Acquisition is not heeded.
        listening_since: when the receiver began to listen. Silence before that says nothing: a
            sender that found nobody there will try again.
    """

    expected_wait_s: float = 60.0
    maximum_age_s: float = 1800.0
    wrong_acquisitions_from: frozenset[str] = frozenset()
    listening_since: datetime | None = None

    @property
    def expected_wait(self) -> timedelta:
        """How long images that were announced are waited for."""
        return timedelta(seconds=self.expected_wait_s)

    @property
    def maximum_age(self) -> timedelta:
        """How long a study may go on arriving."""
        return timedelta(seconds=self.maximum_age_s)

    def silence(self, last_instance_at: datetime, now: datetime) -> timedelta:
        """Return for how long nothing has come although somebody was listening."""
        return now - max(last_instance_at, self.listening_since or last_instance_at)


class Source(StrEnum):
    """Who announced images; the values are the words that reasons use."""

    MPPS = "MPPS"
    AVAILABILITY = "Instance Availability Notification"
    ARCHIVE = "archive's count"
    ACQUISITION = "Images in Acquisition"


class Standing(Enum):
    """How far an announcement can be relied on.

    FINAL is a completed step, available instances, or a count that was given twice. OPEN may still
    grow. VOID promises nothing: a discontinued step, or instances that are not available.
    """

    FINAL = "final"
    OPEN = "open"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class Tally:
    """How many instances were announced, and how many of those are held."""

    expected: int
    held: int

    @property
    def missing(self) -> int:
        """How many have not come."""
        return max(0, self.expected - self.held)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What one signal says of a study's images.

    Attributes:
        series: what it says of each series, by Series Instance UID.
        whole: what it says of the study where it does not tell the series apart.
    """

    source: Source
    standing: Standing
    series: Mapping[str, Tally] = field(default_factory=dict)
    whole: Tally | None = None

    @property
    def tally(self) -> Tally:
        """All of it together."""
        tallies = [self.whole] if self.whole is not None else list(self.series.values())
        return Tally(sum(t.expected for t in tallies), sum(t.held for t in tallies))

    @property
    def is_short(self) -> bool:
        """Whether anything announced has not come."""
        if self.whole is not None:
            return self.whole.missing > 0
        return any(t.missing for t in self.series.values())

    def begun(self, held: frozenset[str]) -> Tally:
        """What it says of the series that have begun to come.

        A series of which nothing came may be one that the archive does not route here at all.
        """
        if self.whole is not None:
            return self.whole
        tallies = [t for uid, t in self.series.items() if uid in held or t.held]
        return Tally(sum(t.expected for t in tallies), sum(t.held for t in tallies))


@dataclass(frozen=True, slots=True)
class SeriesArrival:
    """A series whose images are arriving; `held` counts them."""

    series_instance_uid: str
    modality: str
    held: int
    last_instance_at: datetime
    calling_ae_titles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Arrival:
    """What the receiver knows about a study whose images are arriving.

    Attributes:
        receiving_since: when it began, or was reopened; None where the maximum age does not apply.
    """

    modalities: frozenset[str]
    last_instance_at: datetime
    open_associations: int
    calling_ae_titles: frozenset[str] = frozenset()
    receiving_since: datetime | None = None
    series: Sequence[SeriesArrival] = ()
    announcements: Sequence[Announcement] = ()

    @property
    def held_series(self) -> frozenset[str]:
        """The series that have begun to come."""
        return frozenset(s.series_instance_uid for s in self.series)

    @property
    def promised(self) -> list[Announcement]:
        """The announcements that promise images."""
        return [a for a in self.announcements if a.standing is not Standing.VOID]


def completion_reason(
    arrival: Arrival, quiet: QuietPeriods, now: datetime, bounds: Bounds | None = None
) -> str | None:
    """Return why the study is complete at `now`, or None while more may come.

    An association that has sent images of the study and is still open keeps it incomplete, unless
    the modality has completed its step and every image of it is held, or the study is too old.
    """
    bounds = bounds or Bounds()
    arrival = _heeded(arrival, bounds)
    at_once = _all_is_held(arrival)
    if at_once is not None:
        return at_once
    since = arrival.receiving_since
    if since is not None and now - since >= bounds.maximum_age:
        return f"still arriving after {_seconds(bounds.maximum_age)}, the maximum age of a study"
    if arrival.open_associations:
        return None
    short = _largest_shortfall(arrival)
    wanted = quiet.for_study(arrival.modalities, arrival.calling_ae_titles)
    if short is not None:
        wanted = max(wanted, bounds.expected_wait)
    if bounds.silence(arrival.last_instance_at, now) < wanted:
        return None
    reason = f"association released and no image for {_seconds(wanted)}"
    return reason + _what_never_came(arrival)


def waiting_for(arrival: Arrival) -> str | None:
    """Return what was announced and has not come, in words, or None if nothing was.

    >>> few = Announcement(Source.MPPS, Standing.FINAL, {"1.2": Tally(40, 28)})
    >>> now = datetime(2026, 3, 1)
    >>> waiting_for(Arrival(frozenset(), now, 0, series=[SeriesArrival("1.2", "CT", 28, now)],
    ...                     announcements=[few]))
    'waiting for 12 of 40 images (MPPS)'
    """
    short = _largest_shortfall(arrival)
    if short is None:
        return None
    source, tally = short
    return f"waiting for {tally.missing} of {_images(tally.expected)} ({source})"


def series_is_enough(
    one: SeriesArrival,
    arrival: Arrival,
    quiet: QuietPeriods,
    now: datetime,
    bounds: Bounds | None = None,
) -> str | None:
    """Return why a first analysis of the series need not wait for the study, or None if it must.

    The series is whole by its own number, or nothing came for it during its quiet period.
    """
    bounds = bounds or Bounds()
    arrival = _heeded(arrival, bounds)
    said = [
        (a, a.series[one.series_instance_uid])
        for a in arrival.promised
        if one.series_instance_uid in a.series
    ]
    is_short = any(tally.missing for _, tally in said)
    for announcement, tally in said:
        is_settled = announcement.standing is Standing.FINAL and tally.expected > 0
        if is_settled and not is_short and tally.held == one.held:
            return f"{_all_images(one.held, 'of the series ')} ({announcement.source})"
    wanted = quiet.for_study(frozenset({one.modality}), one.calling_ae_titles)
    if is_short:
        wanted = max(wanted, bounds.expected_wait)
    if bounds.silence(one.last_instance_at, now) < wanted:
        return None
    return f"no image of the series for {_seconds(wanted)}"


def _heeded(arrival: Arrival, bounds: Bounds) -> Arrival:
    """Return `arrival` without the numbers of senders that are known to state wrong ones."""
    if not bounds.wrong_acquisitions_from & arrival.calling_ae_titles:
        return arrival
    kept = [a for a in arrival.announcements if a.source is not Source.ACQUISITION]
    return replace(arrival, announcements=kept)


def _all_is_held(arrival: Arrival) -> str | None:
    """Return why the numbers alone complete the study, or None.

    Whatever falls short anywhere, a step that goes on or was discontinued, or an image that nobody
    announced makes the quiet period decide.
    """
    if any(a.is_short for a in arrival.promised) or not arrival.series:
        return None
    of = {s: [a for a in arrival.announcements if a.source is s] for s in Source}
    steps, notices = of[Source.MPPS], of[Source.AVAILABILITY]
    if not all(a.standing is Standing.FINAL for a in steps):
        return None
    if steps and _cover(arrival, steps, notices):
        return _held_by(Source.MPPS, steps)
    if arrival.open_associations:
        return None
    if notices and _cover(arrival, notices):
        return _held_by(Source.AVAILABILITY, notices)
    for count in of[Source.ARCHIVE]:
        # Fewer there than here means that the archive is behind, and more of it may be on the way.
        if count.standing is Standing.FINAL and _is_equal(count, arrival):
            return _held_by(Source.ARCHIVE, [count])
    return None


def _cover(arrival: Arrival, *sources: Sequence[Announcement]) -> bool:
    """Return whether one of the sources, or both, announced every image of every series held."""
    if any(a.standing is not Standing.FINAL for source in sources for a in source):
        return False
    named: dict[str, int] = {}
    for source in sources:
        for uid in arrival.held_series:
            total = sum(a.series[uid].expected for a in source if uid in a.series)
            named[uid] = max(total, named.get(uid, 0))
    # A late image may be in a series that was announced, but it is not of what was announced.
    return all(one.held <= named[one.series_instance_uid] for one in arrival.series)


def _is_equal(count: Announcement, arrival: Arrival) -> bool:
    if count.whole is not None:
        return count.whole.expected == count.whole.held > 0
    is_known = arrival.held_series <= count.series.keys()
    return is_known and all(t.expected == t.held for t in count.series.values())


def _held_by(source: Source, announcements: Sequence[Announcement]) -> str:
    return f"{_all_images(sum(a.tally.expected for a in announcements))} ({source})"


def _largest_shortfall(arrival: Arrival) -> tuple[Source, Tally] | None:
    begun = [(a.source, a.begun(arrival.held_series)) for a in arrival.promised]
    short = [(source, tally) for source, tally in begun if tally.missing]
    return max(short, key=lambda pair: pair[1].missing, default=None)


def _what_never_came(arrival: Arrival) -> str:
    short = [a for a in arrival.promised if a.is_short]
    if not short:
        return ""
    worst = max(short, key=lambda a: a.tally.missing)
    return f"; {worst.tally.held} of {_images(worst.tally.expected)} came ({worst.source})"


def _all_images(count: int, of: str = "") -> str:
    return f"its one image {of}is here" if count == 1 else f"all {count} images {of}are here"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _seconds(period: timedelta) -> str:
    return f"{period.total_seconds():g} s"
