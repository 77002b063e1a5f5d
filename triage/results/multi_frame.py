"""Source images as a derived image refers to them, each frame by its number.

highdicom derives a multi-frame image from all frames of its source, and matches them by their
place. A source may have several frames at one place (times, b-values), several stacks, or, in
nuclear medicine, no functional groups; a projection or an ultrasound image has no place at all.
So it is shown what was analysed and nothing else, and frame numbers are put right afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from triage.decoding.multi_frame import frame_value
from triage.results.context import ResultContext
from triage.results.projection import place_of_projection

_MEASURES = ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def derivation_sources(context: ResultContext, slices: Sequence[int]) -> list[Dataset]:
    """Return what highdicom is to derive an image from, for `slices` of what was analysed.

    Where the place in the patient is not known, the derived image says no more than its source:
    it has no frame of reference, and lies on the pixels of that image.
    """
    if context.is_multi_frame:
        return [header_of_frames(context.reference, [context.frames[i] for i in slices])]
    return [_located(context.sources[i]) for i in slices]


def placed_sources(context: ResultContext, slices: Sequence[int]) -> list[Dataset]:
    """Return the same for an image that must state a place; empty where none can be stated.

    A projection lies in a frame of reference of its own, see `place_of_projection`.
    """
    first = context.frames[slices[0]] - 1 if context.is_multi_frame else 0
    source = context.reference if context.is_multi_frame else context.sources[slices[0]]
    if _has_place(source, first):
        return derivation_sources(context, slices)
    place = place_of_projection(source, first)
    if place is None or len(slices) > 1:
        return []
    replaced = (element.keyword for element in place)
    placed = _copy_without(source, "NumberOfFrames", *_FUNCTIONAL_GROUPS, *replaced)
    placed.update(place)
    if context.is_multi_frame:
        return [header_of_frames(placed, [1])]
    return [placed]


def refer_to_analysed(dataset: Dataset, context: ResultContext, slices: Sequence[int]) -> None:
    """Put the frame numbers of the source where those of `derivation_sources` stand."""
    if not context.is_multi_frame:
        return
    frames = [context.frames[i] for i in slices]
    refer_to_frames(dataset, frames)
    if len(frames) < int(context.reference.get("NumberOfFrames") or 1):
        # Without frames, a reference means all of them (type 1C, DICOM PS3.3 10.3).
        for reference in dataset.get("SourceImageSequence", ()):
            reference.ReferencedFrameNumber = frames


def header_of_frames(source: Dataset, frames: Sequence[int]) -> Dataset:
    """Return the header of an image that has only `frames`, counted from 1, in their order."""
    header = _copy_without(source, "NumberOfFrames", *_FUNCTIONAL_GROUPS)
    header.NumberOfFrames = len(frames)
    header.SharedFunctionalGroupsSequence = [_shared(source, frames[0] - 1)]
    if not _has_place(source, frames[0] - 1):
        return _without_place(header)
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
                shown = int(reference.get("ReferencedFrameNumber", 1))
                reference.ReferencedFrameNumber = frames[shown - 1]


def _located(source: Dataset) -> Dataset:
    return source if _has_place(source, 0) else _without_place(_copy_without(source))


def _copy_without(source: Dataset, *keywords: str) -> Dataset:
    # Elements are shared with the copy: what is to differ must be a new one, not be set.
    header = Dataset()
    header.update(source)
    header.file_meta = source.file_meta
    for keyword in keywords:
        if keyword in header:
            del header[keyword]
    return header


def _has_place(source: Dataset, index: int) -> bool:
    return all(frame_value(source, index, keyword) for keyword in _PLACE)


def _without_place(header: Dataset) -> Dataset:
    for keyword in ("FrameOfReferenceUID", "ImagePositionPatient"):
        if keyword in header:
            del header[keyword]
    return header


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
    shared.PixelMeasuresSequence = [measures] if measures else []
    return shared


def _placed(source: Dataset, index: int) -> Dataset:
    position, placed = Dataset(), Dataset()
    position.ImagePositionPatient = frame_value(source, index, "ImagePositionPatient")
    placed.PlanePositionSequence = [position]
    return placed
