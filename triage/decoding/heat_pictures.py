"""What a heat map is in a picture: how large, in which colours, and how it is read back from them.

Known to who draws the picture (`triage.results`) and to who lays it over the image again
(`triage.web`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from triage.core.codes import Code
from triage.decoding.multi_frame import frame_value

SALIENCY = Code(value="130404", scheme="DCM", meaning="Saliency")
"""How much a pixel counted for the answer: what heat maps show."""

STRONGEST_HEAT = 0.55
"""The share of the colour where the heat is strongest; the rest is the image."""

_SMALLEST_SIDE, _LARGEST_SIDE = 512, 1024
_MOST_STRETCHED = 8.0


def heat_colour(strength: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the colours (..., 3) from 0 to 1 of strengths from 0 to 1: from red to yellow."""
    strong = strength[..., np.newaxis]
    return np.concatenate([np.ones_like(strong), strong, np.zeros_like(strong)], axis=-1)


def heat_of(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return how strong the heat is that lies over a grey image, from 0 to 255.

    Over grey, red exceeds blue by the heat and by nothing else. It is known to one part in 140, for
    the picture, of shape (rows, columns, 3), is in bytes.
    """
    excess = picture[..., 0].astype(np.float32) - picture[..., 2]
    strength = np.clip(excess / (255 * STRONGEST_HEAT), 0, 1)
    return np.asarray(np.rint(255 * strength), dtype=np.uint8)


def says_heat(picture: Dataset) -> bool:
    """Return whether a picture says that its colours are a heat map (Derivation Code Sequence).

    Outlines are drawn in colours too.
    """
    codes = picture.get("DerivationCodeSequence") or ()
    stated = [(item.get("CodeValue"), item.get("CodingSchemeDesignator")) for item in codes]
    return (SALIENCY.value, SALIENCY.scheme) in stated


def picture_size(dataset: Dataset, frame: int) -> tuple[int, int]:
    """Return columns and rows of the picture of a frame, from 0 on, in its true proportions."""
    width, height = float(dataset.Columns), float(dataset.Rows) * _proportion(dataset, frame)
    factor = min(max(height, width, _SMALLEST_SIDE), _LARGEST_SIDE) / max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _proportion(dataset: Dataset, frame: int) -> float:
    """Return how much higher than wide a pixel is (DICOM PS3.3 C.7.6.3.1.7, 10.7.1.3)."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        stated = frame_value(dataset, frame, keyword)
        if stated is not None and len(stated) == 2 and min(map(float, stated)) > 0:
            proportion = float(stated[0]) / float(stated[1])
            return min(max(proportion, 1 / _MOST_STRETCHED), _MOST_STRETCHED)
    return 1.0
