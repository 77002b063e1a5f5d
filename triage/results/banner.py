"""Words in the pixels of a picture: what it is of, who made it, and what it is not for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from triage.results.context import PRIMARY_USE_WARNING, ResultContext

Colour = tuple[int, int, int]
Picture = NDArray[np.uint8]

_WARNING_COLOUR: Colour = (255, 210, 0)
_WHITE: Colour = (255, 255, 255)
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text and its colour."""

    text: str
    colour: Colour = _WHITE


def lines_of(context: ResultContext, said: Sequence[Line]) -> list[Line]:
    """Return the warning, model and version, what is `said` of findings, and the model's notice."""
    lines = [Line(PRIMARY_USE_WARNING, _WARNING_COLOUR), Line(context.manifest.identity), *said]
    return lines if context.notice == PRIMARY_USE_WARNING else [*lines, Line(context.notice)]


def with_banner(image: Picture, lines: Sequence[Line]) -> Picture:
    """Return `image` below a black strip with `lines` in it, so that no anatomy is covered."""
    width = image.shape[1]
    size = max(14, width // 40)
    font = ImageFont.load_default(size=size)
    margin, line_height = size // 2, round(1.35 * size)
    room = width - 2 * margin
    wrapped = [Line(part, one.colour) for one in lines for part in _wrap(one.text, font, room)]
    banner = Image.new("RGB", (width, 2 * margin + line_height * len(wrapped)))
    draw = ImageDraw.Draw(banner)
    for number, line in enumerate(wrapped):
        draw.text((margin, margin + number * line_height), line.text, font=font, fill=line.colour)
    return np.concatenate([np.asarray(banner, dtype=np.uint8), image])


def _wrap(line: str, font: _Font, width: int) -> list[str]:
    wrapped = [""]
    for word in line.split():
        longer = f"{wrapped[-1]} {word}".strip()
        if wrapped[-1] and font.getlength(longer) > width:
            wrapped.append(word)
        else:
            wrapped[-1] = longer
    return wrapped
