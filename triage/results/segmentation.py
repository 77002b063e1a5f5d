"""Segmentation objects: what a model outlined, voxel for voxel (DICOM PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from triage.results.context import (
    ARTIFICIAL_INTELLIGENCE,
    MANUFACTURER,
    OutlinedFinding,
    ResultContext,
    coded,
    stamp,
)
from triage.results.multi_frame import header_of_frames, refer_to_frames


def build_segmentation(context: ResultContext) -> Dataset | None:
    """Return the SEG with one segment for each present finding, or None if none has voxels.

    BINARY is one bit a voxel and uncompressed (highdicom compresses none of it); LABELMAP is one
    byte a voxel, compressed by RLE. Frames without any voxel are left out.

    Where nothing was outlined and `results.empty_segmentations` is set, the SEG has the segments
    that were looked for and one frame without a voxel, on the middle image: the archive then
    shows that the study was segmented, and an absence is not mistaken for a failure.
    """
    outlined = context.outlined_findings
    sources, mask = _segmented(context), _numbered(context, outlined)
    if not outlined:
        outlined = context.examined_segments
        if not context.settings.empty_segmentations or not outlined:
            return None
        sources, mask = _one_empty_frame(context)
    kind = SegmentationTypeValues(context.settings.segmentation_type)
    is_binary = kind is SegmentationTypeValues.BINARY
    dataset = Segmentation(
        source_images=sources,
        pixel_array=mask,
        omit_empty_frames=bool(context.outlined_findings),
        segmentation_type=kind,
        segment_descriptions=[_describe(context, each) for each in outlined],
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
        transfer_syntax_uid=ExplicitVRLittleEndian if is_binary else RLELossless,
        series_description=context.description,
    )
    dataset.ImageComments = context.notice
    if context.is_multi_frame:
        refer_to_frames(dataset, context.frames)
    _derive_dimension_uid(dataset, context)
    stamp(dataset, context.local_time)
    return dataset


def _segmented(context: ResultContext) -> Sequence[Dataset]:
    if context.is_multi_frame:
        return [header_of_frames(context.reference, context.frames)]
    return context.sources


def _numbered(context: ResultContext, outlined: tuple[OutlinedFinding, ...]) -> NDArray[np.uint8]:
    numbered = np.zeros(context.expected_shape, dtype=np.uint8)
    for each in outlined:
        numbered[context.mask_of(each)] = each.segment_number
    return numbered


def _one_empty_frame(
    context: ResultContext,
) -> tuple[Sequence[Dataset], NDArray[np.uint8]]:
    slices, rows, columns = context.expected_shape
    if context.is_multi_frame:  # its frames cannot be referred to one by one as images
        return _segmented(context), np.zeros((slices, rows, columns), dtype=np.uint8)
    return [context.sources[slices // 2]], np.zeros((1, rows, columns), dtype=np.uint8)


def _describe(context: ResultContext, outlined: OutlinedFinding) -> SegmentDescription:
    """Return the item of Segment Sequence (DICOM PS3.3 C.8.20.4) for one finding."""
    segment = outlined.spec.segment
    assert segment is not None
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


def _derive_dimension_uid(dataset: Dataset, context: ResultContext) -> None:
    # highdicom draws a random one; then the same result would not be the same bytes.
    uid = context.uid("seg", "dimensions")
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for index in dataset.get("DimensionIndexSequence", ()):
        index.DimensionOrganizationUID = uid
