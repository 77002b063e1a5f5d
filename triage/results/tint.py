"""Colour laid over an image, thin enough to see the image through it."""

from __future__ import annotations

import numpy as np

from triage.decoding.heat_pictures import STRONGEST_HEAT, heat_colour
from triage.results.banner import Colour, Picture
from triage.results.display import Plane


def with_heat(base: Plane, strength: Plane) -> Plane:
    """Return `base` (rows, columns, 3) with `strength` from 0 to 1 over it, from red to yellow."""
    return _mixed(base, heat_colour(strength), STRONGEST_HEAT * strength[..., np.newaxis])


def with_tint(base: Plane, share: Plane, colour: Colour) -> Plane:
    """Return `base` (rows, columns, 3) with `share` of its light from `colour`."""
    full = np.asarray(colour, np.float32) / np.float32(255)
    return _mixed(base, full, share[..., np.newaxis])


def _mixed(base: Plane, colour: Plane, share: Plane) -> Plane:
    return np.asarray(base * (1 - share) + colour * share, dtype=np.float32)


def to_picture(pixels: Plane) -> Picture:
    """Return pixels from 0 to 1 as bytes."""
    return np.asarray(np.round(255 * np.clip(pixels, 0, 1)), dtype=np.uint8)
