"""The picture for archives and phones that show nothing else: where a model looked.

One image is made, of the most urgent present finding that has a heat map or an outline. Where
nothing is present there is none: a picture beside a negative result only asks to be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from triage.core.findings import Finding
from triage.decoding.heat_pictures import SALIENCY
from triage.results.banner import Colour, Line, Picture, lines_of, with_banner
from triage.results.capture import build_capture
from triage.results.context import ResultContext, coded
from triage.results.display import Plane, displayed
from triage.results.tint import to_picture, with_heat, with_tint

_OUTLINE_TINT = 0.4


@dataclass(frozen=True)
class _Overlay:
    """What is drawn over one image.

    Attributes:
        source: index of the source image, or of the analysed frame of a multi-frame source.
        strength: from 0 to 1 on the source pixels.
        color: of full strength; None for the scale from red to yellow.
        is_heat: whether it is a heat map and not an outline.
    """

    finding: Finding
    source: int
    strength: Plane
    color: Colour | None = None
    is_heat: bool = False


def build_heat_map(context: ResultContext) -> Dataset | None:
    """Return the Secondary Capture of the most urgent present finding, or None.

    8-bit RGB with the finding, the model and the warning in the pixels above the image.
    """
    overlay = _choose_overlay(context)
    if overlay is None:
        return None
    lines = lines_of(context, [Line(overlay.finding.in_words())])
    pixels = with_banner(_blend(context, overlay), lines)
    capture = build_capture(
        context, "heat-map", pixels, finding=overlay.finding, place=overlay.source
    )
    if overlay.is_heat:
        capture.DerivationCodeSequence = [coded(SALIENCY)]
    return capture


def _choose_overlay(context: ResultContext) -> _Overlay | None:
    outlined = {each.finding.key: each for each in context.outlined_findings}
    for finding in context.present_by_urgency:
        places = context.places_of_key_images(finding)
        heat = context.analysis.heat_maps.get(finding.key)
        if heat is not None:
            strength = np.clip(np.nan_to_num(heat), 0, 1)
            return _Overlay(finding, places[0] if places else 0, strength, is_heat=True)
        if finding.key in outlined:
            each = outlined[finding.key]
            place = context.best_place_of(each)
            shown = context.plane_of(each, place).astype(np.float32)
            return _Overlay(finding, place, shown, each.color)
    return None


def _blend(context: ResultContext, overlay: _Overlay) -> Picture:
    """Return the image with the overlay, uint8 of shape (rows, columns, 3), scaled for reading."""
    base = displayed(context, overlay.source)
    strength = np.clip(base.resized(overlay.strength), 0, 1)
    if overlay.color is None:
        return to_picture(with_heat(base.pixels, strength))
    return to_picture(with_tint(base.pixels, _OUTLINE_TINT * strength, overlay.color))
