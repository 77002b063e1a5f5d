"""The key images with the answer drawn into them, for whoever sees nothing but images.

A picture is made of each key image of what is present, with outlines, boxes and heat maps of all
findings that show on it. Where nothing is present there is none: a picture beside a negative
result only asks to be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from triage.core.findings import Box, Finding
from triage.results.banner import Colour, Line, Picture, lines_of, with_banner
from triage.results.capture import build_capture
from triage.results.context import OutlinedFinding, ResultContext
from triage.results.contours import Points, regions_of
from triage.results.display import Display, displayed
from triage.results.tint import to_picture, with_heat

MOST_PICTURES = 6

_LINE_WIDTH_OF_PICTURE = 1 / 300
_COLOURS: tuple[Colour, ...] = (
    (255, 96, 96),
    (96, 176, 255),
    (120, 220, 120),
    (240, 200, 80),
    (220, 140, 255),
    (255, 160, 96),
)


def build_secondary_captures(context: ResultContext) -> list[Dataset]:
    """Return the pictures, those of the most urgent finding first, six at most."""
    findings = context.present_by_urgency
    colours = {f.key: _colour_of(context, f, number) for number, f in enumerate(findings)}
    captures = []
    for number, place in enumerate(_places(context, findings), start=1):
        shown = [f for f in findings if _shows(context, f, place)]
        heated = _heated(context, shown)
        said = [_said(f, colours[f.key], is_heated=f is heated) for f in shown]
        drawn = _drawn(context, shown, heated, colours, place)
        pixels = with_banner(drawn, lines_of(context, said))
        capture = build_capture(
            context, "secondary-capture", pixels, finding=shown[0], place=place, number=number
        )
        captures.append(capture)
    return captures


def _places(context: ResultContext, findings: Sequence[Finding]) -> list[int]:
    """Return which images are drawn, the best of each finding before the second best of any."""
    wanted = [_places_of(context, finding) for finding in findings]
    longest = max(map(len, wanted), default=0)
    in_turn = [each[turn] for turn in range(longest) for each in wanted if turn < len(each)]
    return list(dict.fromkeys(in_turn))[:MOST_PICTURES]


def _places_of(context: ResultContext, finding: Finding) -> list[int]:
    places = context.places_of_key_images(finding)
    if not places and (outlined := _outlined(context, finding)):
        places = [context.best_place_of(outlined)]
    if not places and (boxes := _boxes_by_place(context, finding)):
        places = list(boxes)
    if not places and context.expected_shape[0] == 1:
        places = [0]
    return places


def _shows(context: ResultContext, finding: Finding, place: int) -> bool:
    outlined = _outlined(context, finding)
    is_outlined = outlined is not None and bool(context.plane_of(outlined, place).any())
    return (
        is_outlined
        or place in _places_of(context, finding)
        or place in _boxes_by_place(context, finding)
    )


def _outlined(context: ResultContext, finding: Finding) -> OutlinedFinding | None:
    return next((o for o in context.outlined_findings if o.finding.key == finding.key), None)


def _boxes_by_place(context: ResultContext, finding: Finding) -> dict[int, list[Box]]:
    """Return the boxes of a finding by the place of their image, that of the best box first."""
    by_place: dict[int, list[Box]] = {}
    uids = [str(source.SOPInstanceUID) for source in context.sources]
    for box in finding.boxes:
        if box.sop_instance_uid not in uids:
            continue
        place = uids.index(box.sop_instance_uid)
        if context.is_multi_frame:
            if box.frame not in context.frames:
                continue
            place = context.frames.index(box.frame)
        by_place.setdefault(place, []).append(box)
    return by_place


def _colour_of(context: ResultContext, finding: Finding, number: int) -> Colour:
    outlined = _outlined(context, finding)
    stated = outlined.color if outlined is not None else None
    return stated or _COLOURS[number % len(_COLOURS)]


def _heated(context: ResultContext, findings: Sequence[Finding]) -> Finding | None:
    """Return whose heat map is shown: of several on one another none could be told apart."""
    return next((f for f in findings if f.key in context.analysis.heat_maps), None)


def _said(finding: Finding, colour: Colour, *, is_heated: bool) -> Line:
    words = finding.in_words()
    return Line(f"{words} (heat map)" if is_heated else words, colour)


def _drawn(
    context: ResultContext,
    findings: Sequence[Finding],
    heated: Finding | None,
    colours: dict[str, Colour],
    place: int,
) -> Picture:
    """Return the image with all that is to be seen on it, below what is drawn with lines."""
    base = displayed(context, place)
    pixels = base.pixels
    if heated is not None:
        heat = np.clip(np.nan_to_num(context.analysis.heat_maps[heated.key]), 0, 1)
        pixels = with_heat(pixels, np.clip(base.resized(heat), 0, 1))
    image = Image.fromarray(to_picture(pixels))
    draw = ImageDraw.Draw(image)
    width = max(2, round(max(image.size) * _LINE_WIDTH_OF_PICTURE))
    for finding in findings:
        if outlined := _outlined(context, finding):
            for region in regions_of(context.plane_of(outlined, place)):
                for ring in (region.outer, *region.holes):
                    _draw_ring(draw, base, ring, colours[finding.key], width)
        for box in _boxes_by_place(context, finding).get(place, ()):
            _draw_box(draw, base, box, colours[finding.key], width)
    return np.asarray(image, dtype=np.uint8)


def _draw_ring(
    draw: ImageDraw.ImageDraw, base: Display, ring: Points, colour: Colour, width: int
) -> None:
    # Half a pixel on: the picture counts from the corner of its first pixel, outlines from the
    # middle.
    closed = np.concatenate([ring, ring[:1]]) + 0.5
    points = [(float(x), float(y)) for x, y in closed * base.scale]
    draw.line(points, fill=colour, width=width, joint="curve")


def _draw_box(
    draw: ImageDraw.ImageDraw, base: Display, box: Box, colour: Colour, width: int
) -> None:
    across, down = base.scale
    corners = (box.left * across, box.top * down, box.right * across, box.bottom * down)
    draw.rectangle(corners, outline=colour, width=width)
