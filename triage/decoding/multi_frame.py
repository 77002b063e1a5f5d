"""What a frame of an image says of itself, wherever the standard lets it stand.

What a single-frame image has at its top stands for a frame of an enhanced multi-frame image in a
functional group, of that frame or shared by all (DICOM PS3.3 C.7.6.16), and for a reconstructed
slice of nuclear medicine in the description of its detector (C.8.4.8, C.8.4.11).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from triage.decoding.errors import DecodingError

_GROUPS: dict[str, tuple[str, ...]] = {
    "ComplexImageComponent": ("MRImageFrameTypeSequence",),
    "DiffusionBValue": ("MRDiffusionSequence",),
    "DiffusionDirectionality": ("MRDiffusionSequence",),
    "EffectiveEchoTime": ("MREchoSequence",),
    "FrameType": ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence"),
    "ImageOrientationPatient": ("PlaneOrientationSequence",),
    "ImagePositionPatient": ("PlanePositionSequence",),
    "NominalPercentageOfCardiacPhase": ("CardiacSynchronizationSequence",),
    "PixelSpacing": ("PixelMeasuresSequence",),
    "RescaleIntercept": ("PixelValueTransformationSequence",),
    "RescaleSlope": ("PixelValueTransformationSequence",),
    "SliceThickness": ("PixelMeasuresSequence",),
    "SpacingBetweenSlices": ("PixelMeasuresSequence",),
    "StackID": ("FrameContentSequence",),
    "TemporalPositionIndex": ("FrameContentSequence",),
    "WindowCenter": ("FrameVOILUTSequence",),
    "WindowWidth": ("FrameVOILUTSequence",),
}
"""The functional groups that an attribute may stand in."""

_MOST_FRAMES = 100_000
_IN_DETECTOR = frozenset({"ImagePositionPatient", "ImageOrientationPatient"})


def number_of_frames(dataset: Dataset) -> int:
    """Return Number of Frames (0028,0008), 1 where it is missing.

    Raises:
        DecodingError: it is no number, or more frames are announced than are described.
    """
    try:
        count = int(dataset.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        raise DecodingError("its Number of Frames is no number") from None
    if not 1 <= count <= _MOST_FRAMES:
        raise DecodingError(f"its Number of Frames is {count}, of 1 to {_MOST_FRAMES} allowed")
    described = dataset.get("PerFrameFunctionalGroupsSequence")
    if described and len(described) != count:
        raise DecodingError(
            f"its Number of Frames is {count}, and {len(described)} frames are described"
        )
    return count


def frame_value(dataset: Dataset, index: int, keyword: str) -> Any:
    """Return an attribute of frame `index`, from 0 on, or None where nothing states it."""
    for item in _functional_groups(dataset, index):
        for group in _GROUPS.get(keyword, ()):
            sequence = item.get(group)
            if sequence and sequence[0].get(keyword) is not None:
                return sequence[0].get(keyword)
    if keyword in _IN_DETECTOR and dataset.get("DetectorInformationSequence"):
        return _of_detector(dataset, index, keyword)
    if keyword == "ImagePositionPatient" and number_of_frames(dataset) > 1:
        return None  # at the top it would be the same for all
    return dataset.get(keyword)


def functional_group(dataset: Dataset, index: int, group: str) -> Sequence[Dataset]:
    """Return the items of a functional group of frame `index`, or of the image's own sequence."""
    for item in (*_functional_groups(dataset, index), dataset):
        sequence = item.get(group)
        if sequence:
            return list(sequence)
    return ()


def _functional_groups(dataset: Dataset, index: int) -> list[Dataset]:
    found = []
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if per_frame:
        found.append(per_frame[index])
    shared = dataset.get("SharedFunctionalGroupsSequence")
    if shared:
        found.append(shared[0])
    return found


def _of_detector(dataset: Dataset, index: int, keyword: str) -> Any:
    """Return the place of a reconstructed slice (PS3.3 C.8.4.11, C.8.4.15).

    The detector states that of the first slice. The others follow at Spacing Between Slices along
    the normal, backwards where it is negative, in the order of the Slice Vector.
    """
    detector = dataset.DetectorInformationSequence[0]
    stated = detector.get(keyword)
    slices = dataset.get("SliceVector")
    spacing = dataset.get("SpacingBetweenSlices")
    if stated is None or keyword == "ImageOrientationPatient" or number_of_frames(dataset) == 1:
        return stated
    if slices is None or spacing is None:
        return None
    numbers = np.atleast_1d(np.array(slices, dtype=np.float64))
    orientation = detector.get("ImageOrientationPatient")
    if orientation is None or len(numbers) != number_of_frames(dataset):
        return None
    normal = _normal(np.array(orientation, dtype=np.float64))
    return list(np.array(stated, dtype=np.float64) + (numbers[index] - 1) * spacing * normal)


def _normal(orientation: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.cross(orientation[:3], orientation[3:])
