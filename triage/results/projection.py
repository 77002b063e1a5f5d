"""Projections as planes: the place that a Parametric Map must state and a radiograph does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from triage.core.uids import derived_uid
from triage.decoding.multi_frame import frame_value

# Letters of Patient Orientation (DICOM PS3.3 C.7.6.1.1.1) as directions in LPS.
_DIRECTIONS = {
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "H": (0, 0, 1),
    "F": (0, 0, -1),
}
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_SLICE_THICKNESS_MM = 1.0  # must be stated and means nothing for a projection
_PARALLEL = 1e-3


def place_of_projection(source: Dataset, index: int) -> Dataset | None:
    """Return place, directions and spacing of a frame, for a frame of reference of its own.

    The first pixel lies at its origin. The directions are those of Patient Orientation; None where
    they or the spacing are not stated, for a map must not say what nobody knows.
    """
    orientation = _orientation(source.get("PatientOrientation"))
    stated = (frame_value(source, index, keyword) for keyword in _SPACINGS)
    spacing = next((s for s in stated if s is not None and len(s) == 2), None)
    if orientation is None or spacing is None:
        return None
    place = Dataset()
    own = derived_uid(str(source.SOPInstanceUID), "frame of reference")
    place.FrameOfReferenceUID = own
    place.PositionReferenceIndicator = None
    place.ImagePositionPatient = [0, 0, 0]
    place.ImageOrientationPatient = orientation
    place.PixelSpacing = spacing
    place.SliceThickness = _SLICE_THICKNESS_MM
    return place


def _orientation(stated: Sequence[str] | None) -> list[float] | None:
    """Return Patient Orientation, such as ["L", "F"], as direction cosines."""
    if not stated or isinstance(stated, str) or len(stated) != 2:
        return None
    row, column = (_direction(letters) for letters in stated)
    if row is None or column is None or abs(float(np.dot(row, column))) > _PARALLEL:
        return None
    return [round(float(value), 6) for value in (*row, *column)]


def _direction(letters: str) -> NDArray[np.float64] | None:
    if not letters or any(letter not in _DIRECTIONS for letter in letters):
        return None
    summed = np.array([_DIRECTIONS[letter] for letter in letters], np.float64).sum(axis=0)
    length = float(np.linalg.norm(summed))
    return np.asarray(summed / length) if length else None
