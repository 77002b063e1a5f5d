"""The key images with the answer drawn into them, for whoever sees nothing but images.

A picture is made of each key image of what is present, with outlines, boxes and heat maps of all
findings that show on it. Where nothing is present there is none: a picture beside a negative
result only asks to be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from triage.core.findings import Finding
from triage.results.banner import Colour, Line, lines_of, with_banner
from triage.results.capture import build_capture
from triage.results.context import ResultContext
from triage.results.drawing import boxes_by_place, colours_of, drawn, heated_of, outlined

MOST_PICTURES = 6


def build_secondary_captures(context: ResultContext) -> list[Dataset]:
    """Return the pictures, those of the most urgent finding first, six at most."""
    findings = context.present_by_urgency
    colours = colours_of(context)
    captures = []
    for number, place in enumerate(_places(context, findings), start=1):
        shown = [f for f in findings if _shows(context, f, place)]
        heated = heated_of(context, shown)
        said = [_said(f, colours[f.key], is_heated=f is heated) for f in shown]
        pixels = with_banner(drawn(context, shown, colours, place), lines_of(context, said))
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
    if not places and (segment := outlined(context, finding)):
        places = [context.best_place_of(segment)]
    if not places and (boxes := boxes_by_place(context, finding)):
        places = list(boxes)
    if not places and context.expected_shape[0] == 1:
        places = [0]
    return places


def _shows(context: ResultContext, finding: Finding, place: int) -> bool:
    segment = outlined(context, finding)
    is_outlined = segment is not None and bool(context.plane_of(segment, place).any())
    return (
        is_outlined
        or place in _places_of(context, finding)
        or place in boxes_by_place(context, finding)
    )


def _said(finding: Finding, colour: Colour, *, is_heated: bool) -> Line:
    words = finding.in_words()
    return Line(f"{words} (heat map)" if is_heated else words, colour)
