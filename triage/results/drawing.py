"""A source image with what a model saw drawn over it: heat map, outlines and boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from triage.core.findings import Box, Finding
from triage.results.banner import Colour, Picture
from triage.results.context import OutlinedFinding, ResultContext
from triage.results.contours import Points, regions_of
from triage.results.display import Display, displayed
from triage.results.tint import to_picture, with_heat

_LINE_WIDTH_OF_PICTURE = 1 / 300
_COLOURS: tuple[Colour, ...] = (
    (255, 96, 96),
    (96, 176, 255),
    (120, 220, 120),
    (240, 200, 80),
    (220, 140, 255),
    (255, 160, 96),
)


def outlined(context: ResultContext, finding: Finding) -> OutlinedFinding | None:
    """Return the finding with its segment, or None: it has no voxels."""
    return next((o for o in context.outlined_findings if o.finding.key == finding.key), None)


def boxes_by_place(context: ResultContext, finding: Finding) -> dict[int, list[Box]]:
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


def colours_of(context: ResultContext) -> dict[str, Colour]:
    """Return the colour of each present finding's lines: its segment's, or one of ours."""
    colours = {}
    for number, finding in enumerate(context.present_by_urgency):
        segment = outlined(context, finding)
        stated = segment.color if segment is not None else None
        colours[finding.key] = stated or _COLOURS[number % len(_COLOURS)]
    return colours


def heated_of(context: ResultContext, findings: Sequence[Finding]) -> Finding | None:
    """Return whose heat map is shown: of several on one another none could be told apart."""
    return next((f for f in findings if f.key in context.analysis.heat_maps), None)


def drawn(
    context: ResultContext,
    findings: Sequence[Finding],
    colours: Mapping[str, Colour],
    place: int,
) -> Picture:
    """Return the image at `place` with what its `findings` show: a heat map below lines and boxes.

    uint8 of shape (rows, columns, 3), scaled for reading.
    """
    heated = heated_of(context, findings)
    base = displayed(context, place)
    pixels = base.pixels
    if heated is not None:
        heat = np.clip(np.nan_to_num(context.analysis.heat_maps[heated.key]), 0, 1)
        pixels = with_heat(pixels, np.clip(base.resized(heat), 0, 1))
    image = Image.fromarray(to_picture(pixels))
    draw = ImageDraw.Draw(image)
    width = max(2, round(max(image.size) * _LINE_WIDTH_OF_PICTURE))
    for finding in findings:
        if segment := outlined(context, finding):
            for region in regions_of(context.plane_of(segment, place)):
                for ring in (region.outer, *region.holes):
                    _draw_ring(draw, base, ring, colours[finding.key], width)
        for box in boxes_by_place(context, finding).get(place, ()):
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
