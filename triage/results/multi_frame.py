"""A multi-frame source as a segmentation refers to it: the analysed frames, each by its number.

highdicom derives a segmentation's frames from all frames of the source, and matches them by their
place. A source may have several frames at one place (times, b-values), several stacks, or, in
nuclear medicine, no functional groups. So it is shown the frames that were analysed and nothing
else, and their numbers are put right afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from triage.decoding.multi_frame import frame_value

_MEASURES = ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")


def header_of_frames(source: Dataset, frames: Sequence[int]) -> Dataset:
    """Return the header of an image that has only `frames`, counted from 1, in their order."""
    header = Dataset()
    header.update(source)
    header.file_meta = source.file_meta
    header.NumberOfFrames = len(frames)
    header.SharedFunctionalGroupsSequence = [_shared(source, frames[0] - 1)]
    header.PerFrameFunctionalGroupsSequence = [_placed(source, frame - 1) for frame in frames]
    return header


def refer_to_frames(segmentation: Dataset, frames: Sequence[int]) -> None:
    """Put the frame numbers of the real source where those of `header_of_frames` stand."""
    groups = [
        *segmentation.get("SharedFunctionalGroupsSequence", ()),
        *segmentation.PerFrameFunctionalGroupsSequence,
    ]
    for group in groups:
        for derivation in group.get("DerivationImageSequence", ()):
            for reference in derivation.SourceImageSequence:
                reference.ReferencedFrameNumber = frames[reference.ReferencedFrameNumber - 1]


def _shared(source: Dataset, index: int) -> Dataset:
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = frame_value(source, index, "ImageOrientationPatient")
    for keyword in _MEASURES:
        value = frame_value(source, index, keyword)
        if value is not None:
            setattr(measures, keyword, value)
    if measures.get("SpacingBetweenSlices") is not None:
        # Negative in nuclear medicine alone, where it says which way the slices follow.
        measures.SpacingBetweenSlices = abs(measures.SpacingBetweenSlices)
    shared = Dataset()
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelMeasuresSequence = [measures]
    return shared


def _placed(source: Dataset, index: int) -> Dataset:
    position, placed = Dataset(), Dataset()
    position.ImagePositionPatient = frame_value(source, index, "ImagePositionPatient")
    placed.PlanePositionSequence = [position]
    return placed
