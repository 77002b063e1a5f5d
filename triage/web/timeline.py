"""A study's life as a picture: bars on one line of time, written as SVG by a template.

Places are per cent of the width, so that the picture fits a screen and a telephone alike. Analysis
takes seconds, and reading comes hours later: times in which nothing is done are drawn short, with
a mark that says how long they were.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from triage.worklist.lanes import Bar, Lane
from triage.worklist.wording import duration

_ROW, _BAR, _TOP = 38, 12, 26
_LONGEST_QUIET = 0.25  # of all busy time; what is longer is drawn short
_SHORTEST_BREAK = timedelta(seconds=5)
_BREAK_PERCENT = 7.0
_ALL_BREAKS_PERCENT = 50.0
_MOST_TICKS = 6


@dataclass(frozen=True)
class Shape:
    """A bar, or a mark where it has no length; `x` and `width` in per cent."""

    x: float
    width: float
    tone: str
    title: str


@dataclass(frozen=True)
class Row:
    """A line of the picture at `y` pixels."""

    y: int
    group: str
    name: str
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Tick:
    """A place on the axis and how long after the beginning it is."""

    x: float
    text: str


@dataclass(frozen=True)
class Break:
    """A time that is drawn shorter than it was."""

    x: float
    width: float
    text: str


@dataclass(frozen=True)
class Timeline:
    """The picture; heights in pixels."""

    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    breaks: tuple[Break, ...]
    height: int
    bar: int = _BAR


@dataclass(frozen=True)
class Scale:
    """Where moments are: the known ones, in order, and the place of each in per cent."""

    moments: tuple[datetime, ...]
    places: tuple[float, ...]
    breaks: tuple[Break, ...]

    def at(self, moment: datetime) -> float:
        """Return the place of a moment, between those of its known neighbours."""
        after = bisect_right(self.moments, moment)
        if after == 0:
            return self.places[0]
        if after == len(self.moments):
            return self.places[-1]
        start, end = self.moments[after - 1], self.moments[after]
        left, right = self.places[after - 1], self.places[after]
        return left + (right - left) * ((moment - start) / (end - start))


def timeline(lanes: Sequence[Lane]) -> Timeline:
    """Return the picture of `lanes`; at least one has a bar."""
    bars = [bar for lane in lanes for bar in lane.bars]
    scale = scale_of(bars)
    rows = tuple(
        Row(_TOP + number * _ROW, lane.group, lane.name, _shapes(lane, scale))
        for number, lane in enumerate(lanes)
    )
    return Timeline(rows, _ticks(scale), scale.breaks, _TOP + len(rows) * _ROW)


def scale_of(bars: Sequence[Bar]) -> Scale:
    """Return the scale on which all bars have a place, and long quiet times are short."""
    moments = tuple(sorted({m for bar in bars for m in (bar.start, bar.end)}))
    if len(moments) == 1:
        return Scale(moments, (0.0,), ())
    gaps = list(pairwise(moments))
    busy = [_is_busy(start, end, bars) for start, end in gaps]
    worked = sum((e - s for (s, e), b in zip(gaps, busy, strict=True) if b), timedelta(0))
    limit = max(_LONGEST_QUIET * worked, _SHORTEST_BREAK)
    is_short = [not b and e - s > limit for (s, e), b in zip(gaps, busy, strict=True)]
    linear = sum(
        (e - s for (s, e), cut in zip(gaps, is_short, strict=True) if not cut), timedelta()
    )
    each = min(_BREAK_PERCENT, _ALL_BREAKS_PERCENT / max(1, sum(is_short)))
    if not linear:
        each = 100 / len(gaps)
    left_over = 100 - each * sum(is_short)
    places = [0.0]
    breaks = []
    for (start, end), cut in zip(gaps, is_short, strict=True):
        width = each if cut else left_over * ((end - start) / linear)
        if cut:
            breaks.append(Break(places[-1], width, duration((end - start).total_seconds())))
        places.append(places[-1] + width)
    return Scale(moments, tuple(places), tuple(breaks))


def _is_busy(start: datetime, end: datetime, bars: Sequence[Bar]) -> bool:
    return any(bar.start <= start and bar.end >= end for bar in bars if not bar.is_idle)


def _shapes(lane: Lane, scale: Scale) -> tuple[Shape, ...]:
    shapes = []
    for bar in lane.bars:
        x = scale.at(bar.start)
        shapes.append(Shape(round(x, 3), round(scale.at(bar.end) - x, 3), bar.tone.value, bar.text))
    return tuple(shapes)


def _ticks(scale: Scale) -> tuple[Tick, ...]:
    first = scale.moments[0]
    wanted = [0.0, *(b.x + b.width for b in scale.breaks), 100.0, 50.0, 25.0, 75.0]
    chosen: list[float] = []
    for x in wanted:
        if len(chosen) < _MOST_TICKS and all(abs(x - other) >= 12 for other in chosen):
            chosen.append(x)
    return tuple(Tick(x, _after(_moment_at(scale, x) - first)) for x in sorted(chosen))


def _moment_at(scale: Scale, x: float) -> datetime:
    after = min(max(1, bisect_right(scale.places, x)), len(scale.places) - 1)
    if len(scale.moments) == 1:
        return scale.moments[0]
    left, right = scale.places[after - 1], scale.places[after]
    start, end = scale.moments[after - 1], scale.moments[after]
    return start + (end - start) * ((x - left) / (right - left) if right > left else 1.0)


def _after(passed: timedelta) -> str:
    seconds = passed.total_seconds()
    return "0" if seconds < 0.05 else f"+{duration(seconds)}"
