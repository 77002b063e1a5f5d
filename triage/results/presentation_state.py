"""Presentation states: outlines and labels that a viewer draws over the key images themselves.

Grayscale Softcopy Presentation State Storage (DICOM PS3.3 A.33.1) for grayscale images. Color
images have none: the picture with what was found burnt in is there for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from highdicom import (
    ModalityLUTTransformation,
    PresentationLUTShapeValues,
    PresentationLUTTransformation,
    ReferencedImageSequence,
)
from highdicom.color import CIELabColor
from highdicom.pr import (
    AnnotationUnitsValues,
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GraphicTypeValues,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextJustificationValues,
    TextObject,
)
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from triage.core.findings import Finding
from triage.decoding.multi_frame import frame_value
from triage.results.context import (
    MANUFACTURER,
    PRIMARY_USE_WARNING,
    ResultContext,
    side_of,
    stamp,
)
from triage.results.display import shown_window
from triage.results.key_images import KeyImage, key_images
from triage.results.outlines import Line, outlines_of

_CONTENT_LABEL = "AI_FINDINGS"
_TEXT_HEIGHT = 0.03  # of the displayed area
_LABEL_HEIGHT = 0.025  # of the image's rows
_GRAYSCALE = ("MONOCHROME1", "MONOCHROME2")


def build_presentation_state(context: ResultContext) -> Dataset | None:
    """Return the presentation state of the key images, or None where there is none to draw on.

    A presentation state has one modality transformation for all its images (C.11.1), so that it
    takes those that share it with the most urgent one; only PET images differ in it. The window is
    the image's own first one.
    """
    shown = _drawn_together(key_images(context))
    if not shown:
        return None
    images = list({image.source.SOPInstanceUID: image.source for image in shown}.values())
    layer = GraphicLayer(
        layer_name=_CONTENT_LABEL,
        order=1,
        description=context.short_notice,
        display_color=CIELabColor.from_rgb(255, 64, 64),
    )
    dataset = GrayscaleSoftcopyPresentationState(
        referenced_images=images,
        series_instance_uid=context.series_uid("presentation-state"),
        series_number=context.series_number("presentation-state"),
        sop_instance_uid=context.instance_uid("presentation-state"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=context.manifest.name,
        software_versions=context.software_versions,  # type: ignore[arg-type]  # any number
        device_serial_number=context.device_uid,
        content_label=_CONTENT_LABEL,
        content_description=context.short_notice,
        graphic_layers=[layer],
        graphic_annotations=[_annotation(context, image, layer) for image in shown],
        modality_lut_transformation=_modality_lut(shown[0]),
        voi_lut_transformations=_windows(context, shown),
        presentation_lut_transformation=_polarity(shown[0].source),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=context.series_description("presentation-state"),
    )
    _complete(dataset, shown)
    stamp(dataset, context.local_time)
    dataset.PresentationCreationDate = dataset.ContentDate
    dataset.PresentationCreationTime = dataset.ContentTime
    del dataset.ContentDate, dataset.ContentTime
    return dataset


def _drawn_together(shown: Sequence[KeyImage]) -> list[KeyImage]:
    gray = [
        image
        for image in shown
        if image.source.get("PhotometricInterpretation") in _GRAYSCALE
        and image.source.get("SamplesPerPixel") == 1
    ]
    return [image for image in gray if _geometry(image) == _geometry(gray[0])]


def _geometry(image: KeyImage) -> tuple[object, ...]:
    source = image.source
    luts = [str(item.get("LUTData")) for item in source.get("ModalityLUTSequence", ())]
    polarity = source.PhotometricInterpretation
    return (*_rescale(image), luts, polarity, source.Rows, source.Columns)


def _rescale(image: KeyImage) -> tuple[float, float, str]:
    def value(keyword: str) -> object:
        return frame_value(image.source, (image.frame or 1) - 1, keyword)

    intercept, slope = value("RescaleIntercept"), value("RescaleSlope")
    if intercept is None or slope is None:
        return 0.0, 1.0, "US"
    is_ct = image.source.get("Modality") == "CT"
    kind = str(image.source.get("RescaleType") or ("HU" if is_ct else "US"))
    return float(str(intercept)), float(str(slope)), kind


def _modality_lut(image: KeyImage) -> ModalityLUTTransformation:
    intercept, slope, kind = _rescale(image)
    return ModalityLUTTransformation(
        rescale_intercept=intercept, rescale_slope=slope, rescale_type=kind
    )


def _windows(
    context: ResultContext, shown: Sequence[KeyImage]
) -> list[SoftcopyVOILUTTransformation]:
    """Return a VOI transformation for each key image (C.11.8): its first window, or its own LUT."""
    windows = []
    for image in shown:
        center, width, function = shown_window(context, image.index)
        window = SoftcopyVOILUTTransformation(
            window_center=center,
            window_width=width,
            voi_lut_function=function,
            referenced_images=ReferencedImageSequence([image.source], image.frame),
        )
        if image.source.get("VOILUTSequence"):
            # Copied as it is: highdicom's own has 8 or 16 bits, and radiographs come with 10 or 12.
            window.VOILUTSequence = [image.source.VOILUTSequence[0]]
            del window.WindowCenter, window.WindowWidth
            window.pop("VOILUTFunction", None)
        windows.append(window)
    return windows


def _polarity(source: Dataset) -> PresentationLUTTransformation:
    # A presentation state ends in P-Values, and MONOCHROME1 images are shown inverted (C.11.6).
    is_inverted = source.PhotometricInterpretation == "MONOCHROME1"
    shape = (
        PresentationLUTShapeValues.INVERSE if is_inverted else PresentationLUTShapeValues.IDENTITY
    )
    return PresentationLUTTransformation(presentation_lut_shape=shape)


def _annotation(context: ResultContext, image: KeyImage, layer: GraphicLayer) -> GraphicAnnotation:
    graphics: list[GraphicObject] = []
    texts = [_line_of_display(f"{PRIMARY_USE_WARNING}: {context.manifest.identity}", 0)]
    for finding in image.findings:
        outlines = outlines_of(context, finding, image.index)
        graphics += [_polyline(context, finding, outline) for outline in outlines]
        texts.append(
            _label(finding, outlines[0], image.source)
            if outlines
            else _line_of_display(finding.in_words(), len(texts))
        )
    return GraphicAnnotation(
        referenced_images=[image.source],
        graphic_layer=layer,
        referenced_frame_number=image.frame,
        graphic_objects=graphics or None,
        text_objects=texts,
    )


def _polyline(context: ResultContext, finding: Finding, outline: Line) -> GraphicObject:
    return GraphicObject(
        graphic_type=GraphicTypeValues.POLYLINE,
        graphic_data=outline,
        units=AnnotationUnitsValues.PIXEL,
        tracking_id=context.tracking_identifier(finding),
        tracking_uid=context.tracking_uid(finding),
    )


def _label(finding: Finding, outline: Line, source: Dataset) -> TextObject:
    """Return the finding in words, beside its longest outline."""
    rows, columns = float(source.Rows), float(source.Columns)
    (left, top), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
    text = finding.in_words()
    height = max(1.0, _LABEL_HEIGHT * rows)
    width = min(columns, 0.5 * height * len(text))
    upper = top - 1.5 * height if top >= 2 * height else min(bottom + 0.5 * height, rows - height)
    start = min(max(0.0, left), columns - width)
    return TextObject(
        text_value=text,
        units=AnnotationUnitsValues.PIXEL,
        bounding_box=(start, upper, start + width, upper + height),
        anchor_point=(float((left + right) / 2), float(top if upper < top else bottom)),
        anchor_point_visible=True,
        text_justification=TextJustificationValues.LEFT,
    )


def _line_of_display(text: str, line: int) -> TextObject:
    top = min(0.01 + 1.2 * _TEXT_HEIGHT * line, 1.0 - _TEXT_HEIGHT)
    return TextObject(
        text_value=text,
        units=AnnotationUnitsValues.DISPLAY,
        bounding_box=(0.01, top, 0.99, top + _TEXT_HEIGHT),
        text_justification=TextJustificationValues.LEFT,
    )


def _complete(dataset: Dataset, shown: Sequence[KeyImage]) -> None:
    """Say what highdicom leaves out: the frames, the shape of pixels, a modality LUT."""
    source = shown[0].source
    dataset.Laterality = side_of(source)
    for image in dataset.ReferencedSeriesSequence[0].ReferencedImageSequence:
        if shown[0].frame is not None:
            image.ReferencedFrameNumber = sorted(i.frame for i in shown if i.frame is not None)
    if source.get("ModalityLUTSequence"):
        for keyword in ("RescaleIntercept", "RescaleSlope", "RescaleType"):
            del dataset[keyword]
        dataset.ModalityLUTSequence = source.ModalityLUTSequence
    (area,) = dataset.DisplayedAreaSelectionSequence
    area.pop("PixelOriginInterpretation", None)  # of tiled images only (C.10.4)
    spacing = frame_value(source, (shown[0].frame or 1) - 1, "PixelSpacing") or source.get(
        "ImagerPixelSpacing"
    )
    if spacing:
        area.pop("PresentationPixelAspectRatio", None)
        area.PresentationPixelSpacing = [float(v) for v in spacing]
    elif source.get("PixelAspectRatio"):
        area.PresentationPixelAspectRatio = [int(v) for v in source.PixelAspectRatio]
