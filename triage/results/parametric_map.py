"""Parametric Maps: what a model gives for each pixel, as numbers (DICOM PS3.3 A.75)."""

from __future__ import annotations

import numpy as np
from highdicom import VOILUTFunctionValues, VOILUTTransformation
from highdicom.pm import ImageFlavorValues, RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from triage.core.codes import Code
from triage.decoding.heat_pictures import SALIENCY
from triage.results.context import MANUFACTURER, ResultContext, coded, side_of, stamp
from triage.results.derived import DerivedMap
from triage.results.maps import FindingMap, maps_of
from triage.results.multi_frame import placed_sources, refer_to_analysed

PROBABILITY = Code(value="122157", scheme="DCM", meaning="Probability")

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

    A map must state a place (A.75.3). A projection's is in a frame of reference of its own, and
    where an image states no directions in the patient, as ultrasound does not, no map is made.
    """
    shown = [(each, placed_sources(context, each.slices)) for each in maps_of(context)]
    placed = [(each, sources) for each, sources in shown if sources]
    return [_build(context, *each, number) for number, each in enumerate(placed, start=1)]


def _build(
    context: ResultContext, shown: FindingMap, sources: list[Dataset], number: int
) -> Dataset:
    dataset = DerivedMap(
        source_images=sources,
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
    dataset.ContentCreatorName = None  # type 2, and no person made it
    dataset.ImageComments = context.notice
    refer_to_analysed(dataset, context, shown.slices)
    _say_where(dataset, context, shown.finding.site)
    _order_along_normal(dataset)
    context.derive_dimension_uid("parametric-map", dataset)
    stamp(dataset, context.local_time)
    return dataset


def _order_along_normal(dataset: Dataset) -> None:
    """Put the frames in the order in which they follow one another along their normal.

    Any order is allowed, and each frame says where it lies. But dcmqi 1.5.7, and with it 3D Slicer,
    takes them in this order without looking; highdicom writes them the other way round, and the
    map would be shown upside down.
    """
    frames = dataset.PerFrameFunctionalGroupsSequence
    [orientation] = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    directions = np.array(orientation.ImageOrientationPatient, np.float64)
    normal = np.cross(directions[:3], directions[3:])
    depths = [
        float(np.dot(frame.PlanePositionSequence[0].ImagePositionPatient, normal))
        for frame in frames
    ]
    order = np.argsort(depths, kind="stable")
    values = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(len(frames), -1)
    dataset.FloatPixelData = values[order].tobytes()
    dataset.PerFrameFunctionalGroupsSequence = [frames[index] for index in order]


def _say_where(dataset: Dataset, context: ResultContext, site: Code | None) -> None:
    """State the Frame Anatomy (C.7.6.16.2.8), and the side within it or, without, by itself.

    Laterality is for images without Frame Laterality only (C.7.3.1). dcmqi 1.5.7 crashes on a map
    without Frame Anatomy, so a manifest does well to name the site.
    """
    side = side_of(context.reference)
    if site is None:
        dataset.Laterality = side
        return
    anatomy = Dataset()
    anatomy.FrameLaterality = side or "U"
    anatomy.AnatomicRegionSequence = [coded(site)]
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]


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
