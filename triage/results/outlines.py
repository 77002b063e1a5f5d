"""Where a finding is on one image, as lines in the image's plane."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triage.core.findings import Box, Finding
from triage.results.context import ResultContext
from triage.results.contours import regions_of
from triage.results.key_images import index_of

MOST_OUTLINES = 50

Line = NDArray[np.float64]
"""Points of shape (n, 2): column and row in pixels, where (0, 0) is the upper left corner of the
first pixel and its middle (0.5, 0.5) (DICOM PS3.3 C.10.5.1.1 and C.18.6.1.1)."""


def outlines_of(context: ResultContext, finding: Finding, index: int) -> list[Line]:
    """Return the closed lines around `finding` on the image at `index`, the longest first.

    They are the contours of its mask, where it has one, and else the rectangles of its boxes;
    none where the model only says that it is there. The smallest specks beyond `MOST_OUTLINES`
    are left out: the SEG has them all.
    """
    for outlined in context.outlined_findings:
        if outlined.finding.key == finding.key:
            return contours(context.mask_of(outlined)[index])
    return [
        rectangle(box)
        for box in finding.boxes
        if index_of(context, box.sop_instance_uid, box.frame) == index
    ][:MOST_OUTLINES]


def contours(mask: NDArray[np.bool_]) -> list[Line]:
    """Return the closed contours of a mask of shape (rows, columns), also of its holes."""
    rows, columns = mask.shape
    rings = [ring for region in regions_of(mask) for ring in (region.outer, *region.holes)]
    # Rings are open, and count from the middle of the first pixel.
    lines = [np.concatenate([ring, ring[:1]]) + 0.5 for ring in rings]
    lines.sort(key=_length, reverse=True)
    return [np.clip(line, 0, (columns, rows)) for line in lines[:MOST_OUTLINES]]


def _length(line: Line) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def rectangle(box: Box) -> Line:
    """Return the closed line around a box."""
    left, top, right, bottom = box.left, box.top, box.right, box.bottom
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
