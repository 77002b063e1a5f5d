"""Segmentation objects: what a model outlined, voxel for voxel (DICOM PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    SegmentationFractionalTypeValues,
    SegmentationTypeValues,
    SegmentDescription,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from triage.core.manifest import SegmentSpec
from triage.results.context import (
    ARTIFICIAL_INTELLIGENCE,
    MANUFACTURER,
    OutlinedFinding,
    ResultContext,
    coded,
    stamp,
)
from triage.results.derived import DerivedSegmentation
from triage.results.maps import FAINTEST, FindingMap, maps_of
from triage.results.multi_frame import derivation_sources, refer_to_analysed

_GREATEST_FRACTION = 255


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """What the SEG is to hold.

    Attributes:
        segments: numbered from 1.
        slices: the places of the slices among the source images or analysed frames.
        pixels: (slices, rows, columns) of segment numbers, or (…, segments) of fractions.
        is_empty: whether nothing was outlined.
        is_probability: of fractions, whether they are probabilities, or show how much of a voxel
            is taken, where the model gave labels alone.
    """

    segments: Sequence[OutlinedFinding]
    slices: Sequence[int]
    pixels: NDArray[np.uint8] | NDArray[np.float32]
    is_empty: bool = False
    is_probability: bool = True


def build_segmentation(context: ResultContext) -> Dataset | None:
    """Return the SEG with one segment for each present finding, or None if none has voxels.

    BINARY is one bit a voxel; LABELMAP is one byte a voxel; FRACTIONAL is a byte of probability for
    each segment: of its voxels, or of a heat map where a model outlines nothing. Frames without any
    voxel are left out.

    Where nothing was outlined and `results.empty_segmentations` is set, the SEG has the segments
    that were looked for and one frame without a voxel, on the middle image: the archive then
    shows that the study was segmented, and an absence is not mistaken for a failure.
    """
    drawn = _drawn(context)
    if drawn is None:
        return None
    kind = SegmentationTypeValues(context.form.type)
    more: dict[str, Any] = {}
    if kind is SegmentationTypeValues.FRACTIONAL:
        types = SegmentationFractionalTypeValues
        more["fractional_type"] = types.PROBABILITY if drawn.is_probability else types.OCCUPANCY
        more["max_fractional_value"] = _GREATEST_FRACTION
    dataset = DerivedSegmentation(
        source_images=derivation_sources(context, drawn.slices),
        pixel_array=drawn.pixels,
        omit_empty_frames=not drawn.is_empty,
        segmentation_type=kind,
        segment_descriptions=[_describe(context, each) for each in drawn.segments],
        series_instance_uid=context.series_uid("seg"),
        series_number=context.series_number("seg"),
        sop_instance_uid=context.instance_uid("seg"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=context.manifest.name,
        software_versions=context.software_versions,  # type: ignore[arg-type]  # any number
        device_serial_number=context.device_uid,
        content_label="AI_SEGMENTATION",
        content_description=context.short_notice,
        transfer_syntax_uid=_encoding(context),
        series_description=context.series_description("seg"),
        **more,
    )
    dataset.ContentCreatorName = None  # type 2, and no person made it
    dataset.ImageComments = context.notice
    if "FrameOfReferenceUID" not in dataset:
        dataset.PatientOrientation = context.reference.get("PatientOrientation")
    refer_to_analysed(dataset, context, drawn.slices)
    if context.form.compressed and kind is SegmentationTypeValues.BINARY:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    context.derive_dimension_uid("seg", dataset)
    stamp(dataset, context.local_time)
    return dataset


def _encoding(context: ResultContext) -> str:
    # What is deflated is deflated when it is written, and built as what it is inflated.
    is_packed = context.form.type == "BINARY"
    return RLELossless if context.form.compressed and not is_packed else ExplicitVRLittleEndian


def _drawn(context: ResultContext) -> _Drawn | None:
    outlined = context.outlined_findings
    is_fractional = context.form.type == "FRACTIONAL"
    if is_fractional and (fractions := _fractions(context, outlined)) is not None:
        return fractions
    if outlined:
        return _Drawn(outlined, range(context.expected_shape[0]), _numbered(context, outlined))
    if not context.settings.empty_segmentations or not context.examined_segments:
        return None
    return _empty(context)


def _numbered(context: ResultContext, outlined: Sequence[OutlinedFinding]) -> NDArray[np.uint8]:
    numbered = np.zeros(context.expected_shape, dtype=np.uint8)
    for each in outlined:
        numbered[context.mask_of(each)] = each.segment_number
    return numbered


def _fractions(context: ResultContext, outlined: Sequence[OutlinedFinding]) -> _Drawn | None:
    """Return the probabilities of what is outlined, or of heat maps where nothing can be."""
    maps = {each.finding.key: each for each in maps_of(context)}
    segments = outlined
    if not context.examined_segments:
        segments = [
            OutlinedFinding(each.finding, context.spec_of(each.finding), number, number)
            for number, each in enumerate(maps.values(), start=1)
        ]
    if not segments:
        return None
    planes = [_fraction(context, each, maps.get(each.finding.key)) for each in segments]
    first = min(start for start, _ in planes)
    last = max(start + len(values) for start, values in planes)
    pixels = np.zeros((last - first, *context.expected_shape[1:], len(planes)), np.float32)
    for number, (start, values) in enumerate(planes):
        pixels[start - first : start - first + len(values), ..., number] = values
    is_probability = all(each.finding.key in maps for each in segments)
    return _Drawn(segments, range(first, last), pixels, is_probability=is_probability)


def _fraction(
    context: ResultContext, segment: OutlinedFinding, found: FindingMap | None
) -> tuple[int, NDArray[np.float32]]:
    """Return the place of the first slice that shows a segment, and its fractions from there on."""
    if found is not None:
        return found.first, np.where(found.values >= FAINTEST, found.values, np.float32(0))
    mask = context.mask_of(segment)
    shown = np.flatnonzero(mask.any(axis=(1, 2)))
    return int(shown[0]), mask[shown[0] : shown[-1] + 1].astype(np.float32)


def _empty(context: ResultContext) -> _Drawn:
    slices, rows, columns = context.expected_shape
    middle = slices // 2
    return _Drawn(
        context.examined_segments,
        range(middle, middle + 1),
        np.zeros((1, rows, columns), np.uint8),
        is_empty=True,
        is_probability=context.form.type == "FRACTIONAL",
    )


def _describe(context: ResultContext, outlined: OutlinedFinding) -> SegmentDescription:
    """Return the item of Segment Sequence (DICOM PS3.3 C.8.20.4) for one finding."""
    # A heat map has no segment in the manifest: what it shows is what was found.
    segment = outlined.spec.segment or SegmentSpec(label=1, type=outlined.finding.code)
    site = outlined.finding.site
    description = SegmentDescription(
        segment_number=outlined.segment_number,
        segment_label=outlined.finding.code.meaning,
        segmented_property_category=coded(segment.category),
        segmented_property_type=coded(segment.type),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=context.manifest.name,
            family=coded(ARTIFICIAL_INTELLIGENCE),
            version=context.manifest.version,
        ),
        tracking_uid=context.tracking_uid(outlined.finding),
        tracking_id=context.tracking_identifier(outlined.finding),
        anatomic_regions=[coded(site)] if site is not None else None,
        display_color=CIELabColor.from_rgb(*segment.recommended_display_rgb),
    )
    if segment.description:
        description.SegmentDescription = segment.description
    return description
