"""Plots as shapes that a template writes as SVG; colours and fonts are the style sheet's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 10, 40
_PLOT_WIDTH, _PLOT_HEIGHT = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

Values = Sequence[float | None]


@dataclass(frozen=True)
class Bars:
    """A bar at each place, on top of those of the layers before; `tone` is a class name."""

    label: str
    tone: str
    values: Sequence[float]


@dataclass(frozen=True)
class Line:
    """A line through the values; None leaves a gap."""

    label: str
    tone: str
    values: Values


@dataclass(frozen=True)
class Band:
    """The area between two lines."""

    label: str
    tone: str
    low: Values
    high: Values


Layer = Bars | Line | Band


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, in the units of the picture, and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Shape:
    """A path: its kind ("bars", "line" or "band"), its tone, what the legend says, its data."""

    kind: str
    tone: str
    label: str
    path: str


@dataclass(frozen=True)
class Chart:
    """A plot, ready to be written; `summary` is its text alternative."""

    title: str
    y_title: str
    x_title: str
    summary: str
    shapes: tuple[Shape, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    base: int = HEIGHT - _BOTTOM


def chart(
    title: str,
    layers: Sequence[Layer],
    *,
    y_title: str,
    x_title: str,
    places: int,
    x_labels: Mapping[float, str],
    summary: str,
    percent: bool = False,
) -> Chart:
    """Return the plot of layers with a value at each of `places` evenly spaced places.

    `x_labels` say what stands below which place; a fraction is between two. With `percent` values
    are shares from 0 to 1.
    """
    low, high, step = _range(layers)
    return Chart(
        title=title,
        y_title=y_title,
        x_title=x_title,
        summary=summary,
        shapes=_shapes(layers, places, low, high),
        x_ticks=tuple(Tick(_x(at, places), text) for at, text in x_labels.items()),
        y_ticks=tuple(
            Tick(_y(value, low, high), _number(value, step, percent=percent))
            for value in _steps(low, high, step)
        ),
    )


def labels_of(names: Sequence[str], most: int = 5) -> dict[float, str]:
    """Return labels for days (`2026-11-28`) or hours (`2026-11-28 18`), few enough to be read.

    >>> labels_of(["2026-11-27", "2026-11-28"])
    {0: '11-27', 1: '11-28'}
    """
    every = max(1, -(-len(names) // most))
    return {
        place: f"{name[11:]}:00" if len(name) > 10 else name[5:]
        for place, name in enumerate(names)
        if place % every == 0
    }


def _shapes(layers: Sequence[Layer], places: int, low: float, high: float) -> tuple[Shape, ...]:
    shapes = []
    below = [0.0] * places
    for layer in layers:
        if isinstance(layer, Bars):
            above = [a + b for a, b in zip(below, layer.values, strict=True)]
            shapes.append(Shape("bars", layer.tone, layer.label, _bars(below, above, low, high)))
            below = above
        elif isinstance(layer, Band):
            path = "".join(_areas(layer, places, low, high))
            shapes.append(Shape("band", layer.tone, layer.label, path))
        else:
            points = [
                None if v is None else (_x(n, places), _y(v, low, high))
                for n, v in enumerate(layer.values)
            ]
            shapes.append(Shape("line", layer.tone, layer.label, _through(points)))
    return tuple(shapes)


def _bars(below: Sequence[float], above: Sequence[float], low: float, high: float) -> str:
    half = max(0.5, _PLOT_WIDTH / len(above) * 0.4)
    return "".join(
        f"M{_x(n, len(above)) - half:.1f} {_y(bottom, low, high):.1f}h{2 * half:.1f}"
        f"V{_y(top, low, high):.1f}h{-2 * half:.1f}z"
        for n, (bottom, top) in enumerate(zip(below, above, strict=True))
        if top > bottom
    )


def _through(points: Sequence[tuple[float, float] | None]) -> str:
    parts = []
    is_drawing = False
    for point in points:
        if point is not None:
            parts.append(f"{'L' if is_drawing else 'M'}{point[0]:.1f} {point[1]:.1f}")
            # A point alone between two gaps is a dot: a line without length, with round ends.
            parts += [] if is_drawing else ["h0"]
        is_drawing = point is not None
    return "".join(parts)


def _areas(band: Band, places: int, low: float, high: float) -> list[str]:
    areas: list[str] = []
    run: list[tuple[float, float, float]] = []
    for n, (bottom, top) in enumerate([*zip(band.low, band.high, strict=True), (None, None)]):
        if bottom is not None and top is not None:
            run.append((_x(n, places), _y(bottom, low, high), _y(top, low, high)))
        elif run:
            areas.append(_area(run, _PLOT_WIDTH / places * 0.3))
            run = []
    return areas


def _area(run: Sequence[tuple[float, float, float]], half: float) -> str:
    if len(run) == 1:
        x, bottom, top = run[0]
        run = [(x - half, bottom, top), (x + half, bottom, top)]
    forth = [f"{x:.1f} {top:.1f}" for x, _, top in run]
    back = [f"{x:.1f} {bottom:.1f}" for x, bottom, _ in reversed(run)]
    return f"M{'L'.join(forth + back)}z"


def _x(place: float, places: int) -> float:
    return _LEFT + (place + 0.5) * _PLOT_WIDTH / max(places, 1)


def _y(value: float, low: float, high: float) -> float:
    return _TOP + _PLOT_HEIGHT * (1 - (value - low) / (high - low))


def _range(layers: Sequence[Layer]) -> tuple[float, float, float]:
    """Return where the axis begins and ends, and its step; it begins at 0 where nothing is less."""
    values = [value for layer in layers for value in _values(layer) if value is not None]
    stacked = [sum(column) for column in zip(*_stack(layers), strict=True)]
    low, high = min([0.0, *values]), max([0.0, *values, *stacked])
    if high == low:
        high = low + 1.0
    step = 10 ** math.floor(math.log10((high - low) / 4))
    while (high - low) / step > 5:
        step *= 2.5 if f"{step:e}".startswith("2") else 2
    return math.floor(low / step) * step, math.ceil(high / step) * step, step


def _values(layer: Layer) -> list[float | None]:
    if isinstance(layer, Band):
        return [*layer.low, *layer.high]
    return list(layer.values)


def _stack(layers: Sequence[Layer]) -> list[Sequence[float]]:
    return [layer.values for layer in layers if isinstance(layer, Bars)]


def _steps(low: float, high: float, step: float) -> list[float]:
    return [low + n * step for n in range(round((high - low) / step) + 1)]


def _number(value: float, step: float, *, percent: bool) -> str:
    if percent:
        value, step = 100 * value, 100 * step
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    digits += 1 if digits and f"{step:e}".startswith("2.5") else 0
    return f"{value:.{digits}f}{' %' if percent else ''}"
