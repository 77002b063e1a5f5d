"""To which side of the patient the rows and the columns of an image run, in letters.

The letters are A (anterior), P (posterior), R (right), L (left), H (head) and F (feet), DICOM
PS3.3 C.7.6.1.1.1; the patient's coordinates grow to the left, to the back and to the head (LPS,
C.7.6.2.1.1).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

Directions = tuple[str, str]
"""To where the columns count up, which is the right edge, and to where the rows do: the lower."""

OBLIQUE_FROM_DEGREES = 10.0
"""What leans less to a second axis is not called oblique: hardly a head lies quite straight."""

_AXES = (("L", "R"), ("P", "A"), ("H", "F"))
_OPPOSITE = {one: other for pair in _AXES for one, other in (pair, pair[::-1])}
_LEANING = math.sin(math.radians(OBLIQUE_FROM_DEGREES))
_LENGTH = (0.9, 1.1)  # of a direction; what is no unit vector is no direction
_UPRIGHT = 0.1  # cosine: rows and columns stand on one another
_STATED = re.compile("[APRLHF]{1,3}")


def directions_of(orientation: Sequence[float]) -> Directions | None:
    """Return the letters of Image Orientation (Patient), two where a direction is oblique.

    None where the six numbers are no two directions that stand on one another: a letter must not
    say what the image does not.

    >>> directions_of((1, 0, 0, 0, 1, 0)), directions_of((0, 1, 0, 0, 0, -1))
    (('L', 'P'), ('P', 'F'))
    >>> directions_of((0.8, 0.6, 0, -0.6, 0.8, 0))
    ('LP', 'PR')
    """
    row, column = tuple(orientation[:3]), tuple(orientation[3:])
    lengths = (math.hypot(*row), math.hypot(*column))
    if not all(_LENGTH[0] <= length <= _LENGTH[1] for length in lengths):
        return None
    if abs(sum(r * c for r, c in zip(row, column, strict=True))) > _UPRIGHT:
        return None
    return _letters(row), _letters(column)


def stated_directions(patient_orientation: Any) -> Directions | None:
    """Return the two values of Patient Orientation (0020,0020), None where they are not letters.

    Nor are they taken where both run along one axis, or in letters for quadrupeds.

    >>> stated_directions(["L", "F"]), stated_directions(["L", "R"]), stated_directions(["LE", "V"])
    (('L', 'F'), None, None)
    """
    if not isinstance(patient_orientation, (list, tuple)) or len(patient_orientation) != 2:
        return None
    row, column = (str(value).strip() for value in patient_orientation)
    if not _are_letters(row) or not _are_letters(column):
        return None
    return None if row[0] in (column[0], opposite(column[0])) else (row, column)


def opposite(letters: str) -> str:
    """Return the letters of the other way.

    >>> opposite("LPH")
    'RAF'
    """
    return "".join(_OPPOSITE[letter] for letter in letters)


def _letters(direction: Sequence[float]) -> str:
    """Return the letter of the nearest axis, and of the second where the direction leans to it."""
    nearest = sorted(range(3), key=lambda axis: -abs(direction[axis]))[:2]
    shown = [axis for axis in nearest if abs(direction[axis]) >= _LEANING]
    return "".join(_AXES[axis][direction[axis] < 0] for axis in shown)


def _are_letters(value: str) -> bool:
    axes = {frozenset((letter, _OPPOSITE.get(letter))) for letter in value}
    return bool(_STATED.fullmatch(value)) and len(axes) == len(value)
