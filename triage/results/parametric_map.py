"""Parametric Maps: what a model gives for each pixel, as numbers (DICOM PS3.3 A.75)."""

from __future__ import annotations

import numpy as np
from highdicom import VOILUTFunctionValues, VOILUTTransformation
from highdicom.pm import ImageFlavorValues, ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from triage.core.codes import Code
from triage.results.context import MANUFACTURER, ResultContext, coded, stamp
from triage.results.maps import FindingMap, maps_of
from triage.results.multi_frame import derivation_sources, refer_to_analysed

PROBABILITY = Code(value="122157", scheme="DCM", meaning="Probability")
SALIENCY = Code(value="130404", scheme="DCM", meaning="Saliency")
"""How much a pixel counted for the answer: what heat maps show."""

_NO_UNITS = Code(value="1", scheme="UCUM", meaning="no units")
_LONG_STRING = 64  # the VR LO, DICOM PS3.5 6.2
_WHOLE_RANGE = VOILUTTransformation(
    window_center=0.5,
    window_width=1.0,
    voi_lut_function=VOILUTFunctionValues.LINEAR_EXACT,  # LINEAR takes a width of 1 for a threshold
)


def build_parametric_maps(context: ResultContext) -> list[Dataset]:
    """Return a map of each present finding that has one, the most urgent first.

    32-bit floats from 0 to 1 in the geometry of the source, with a Real World Value Mapping
    (C.7.6.16.2.11) that says what they are: probabilities of voxels, or the saliency of a heat
    map. Each is an object of its own, because programs that read maps expect one quantity.
    """
    return [_build(context, each, n) for n, each in enumerate(maps_of(context), start=1)]


def _build(context: ResultContext, shown: FindingMap, number: int) -> Dataset:
    dataset = ParametricMap(
        source_images=derivation_sources(context, shown.slices),
        pixel_array=np.ascontiguousarray(shown.values),
        series_instance_uid=context.series_uid("parametric-map"),
        series_number=context.series_number("parametric-map"),
        sop_instance_uid=context.instance_uid("parametric-map", number),
        instance_number=number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=context.manifest.name,
        software_versions=context.software_versions,  # type: ignore[arg-type]  # any number
        device_serial_number=context.device_uid,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping(shown)],
        voi_lut_transformations=[_WHOLE_RANGE],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="AI_MAP",
        content_description=context.short_notice,
        image_flavor=ImageFlavorValues.VOLUME,
        series_description=context.series_description("parametric-map"),
    )
    dataset.ImageComments = context.notice
    refer_to_analysed(dataset, context, shown.slices)
    context.derive_dimension_uid("parametric-map", dataset)
    stamp(dataset, context.local_time)
    return dataset


def _mapping(shown: FindingMap) -> RealWorldValueMapping:
    quantity = PROBABILITY if shown.is_probability else SALIENCY
    explanation = f"{quantity.meaning}: {shown.finding.code.meaning}"
    return RealWorldValueMapping(
        lut_label=quantity.meaning.upper(),
        lut_explanation=explanation[:_LONG_STRING],
        unit=coded(_NO_UNITS),
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=coded(quantity),
    )
