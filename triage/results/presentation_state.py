"""Presentation states: outlines and labels that a viewer draws over the key images themselves.

Grayscale Softcopy Presentation State (DICOM PS3.3 A.33.1) for grayscale images, Color Softcopy
Presentation State (A.33.2) for color ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cache
from typing import Any

from highdicom import (
    ModalityLUTTransformation,
    PresentationLUTShapeValues,
    PresentationLUTTransformation,
    ReferencedImageSequence,
)
from highdicom.color import CIELabColor
from highdicom.pr import (
    AnnotationUnitsValues,
    ColorSoftcopyPresentationState,
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GraphicTypeValues,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextJustificationValues,
    TextObject,
)
from PIL import ImageCms
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


_INPUT_PROFILES = (b"scnr", b"spac")  # what a presentation state may hold (C.11.15.1.1)


def build_presentation_state(context: ResultContext) -> Dataset | None:
    """Return the presentation state of the key images, or None where there is none to draw on.

    A presentation state is for grayscale or for color images and has one transformation for all of
    them (C.11.1, C.11.15), so that it takes those that share it with the most urgent one. The
    window is the image's own first one; colors are taken by the image's own profile, or as sRGB.
    """
    shown = _drawn_together(key_images(context))
    if not shown:
        return None
    layer = GraphicLayer(
        layer_name=_CONTENT_LABEL,
        order=1,
        description=context.short_notice,
        display_color=CIELabColor.from_rgb(255, 64, 64),
    )
    common = {
        "series_instance_uid": context.series_uid("presentation-state"),
        "series_number": context.series_number("presentation-state"),
        "sop_instance_uid": context.instance_uid("presentation-state"),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": context.manifest.name,
        "software_versions": context.software_versions,
        "device_serial_number": context.device_uid,
        "content_label": _CONTENT_LABEL,
        "content_description": context.short_notice,
        "graphic_layers": [layer],
        "graphic_annotations": [_annotation(context, image, layer) for image in shown],
        "transfer_syntax_uid": ExplicitVRLittleEndian,
        "series_description": context.series_description("presentation-state"),
    }
    make = _in_color if _is_color(shown[0].source) else _in_grayscale
    dataset = make(context, shown, common)
    _complete(dataset, shown)
    stamp(dataset, context.local_time)
    dataset.PresentationCreationDate = dataset.ContentDate
    dataset.PresentationCreationTime = dataset.ContentTime
    del dataset.ContentDate, dataset.ContentTime
    return dataset


def _in_grayscale(
    context: ResultContext, shown: Sequence[KeyImage], common: dict[str, Any]
) -> Dataset:
    return GrayscaleSoftcopyPresentationState(
        referenced_images=_images(shown),
        modality_lut_transformation=_modality_lut(shown[0]),
        voi_lut_transformations=_windows(context, shown),
        presentation_lut_transformation=_polarity(shown[0].source),
        **common,
    )


def _in_color(_: ResultContext, shown: Sequence[KeyImage], common: dict[str, Any]) -> Dataset:
    profile = _own_profile(shown[0].source)
    dataset = ColorSoftcopyPresentationState(
        referenced_images=[_after_palette(source) for source in _images(shown)],
        icc_profile=profile or _srgb(),
        **common,
    )
    if not profile:
        dataset.ColorSpace = "SRGB"
    return dataset


def _images(shown: Sequence[KeyImage]) -> list[Dataset]:
    return list({image.source.SOPInstanceUID: image.source for image in shown}.values())


def _after_palette(source: Dataset) -> Dataset:
    # The profile is for what the image's own palette gives, of which highdicom knows nothing: it
    # takes images of three samples only.
    image = copy(source)
    image.SamplesPerPixel = 3
    return image


def _own_profile(source: Dataset) -> bytes:
    profile = bytes(source.get("ICCProfile") or b"")
    # Class of device and color space stand at fixed places in the header of a profile.
    return profile if profile[12:16] in _INPUT_PROFILES and profile[16:20] == b"RGB " else b""


@cache
def _srgb() -> bytes:
    """Return a profile of sRGB as an input device, the same bytes whenever it is asked."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[12:16] = _INPUT_PROFILES[0]
    profile[24:36] = bytes((7, 234, 0, 1, 0, 1)) + bytes(6)  # made 2026-01-01, not just now
    return bytes(profile)


def _drawn_together(shown: Sequence[KeyImage]) -> list[KeyImage]:
    drawable = [
        image
        for image in shown
        if _is_color(image.source) or image.source.get("PhotometricInterpretation") in _GRAYSCALE
    ]
    return [image for image in drawable if _transformation(image) == _transformation(drawable[0])]


def _is_color(source: Dataset) -> bool:
    is_palette = source.get("PhotometricInterpretation") == "PALETTE COLOR"
    return is_palette or bool(source.get("SamplesPerPixel") == 3)


def _transformation(image: KeyImage) -> tuple[object, ...]:
    """Return what is said once for all images of a presentation state."""
    source = image.source
    size = (source.Rows, source.Columns)
    if _is_color(source):
        return (*size, _own_profile(source))
    luts = [str(item.get("LUTData")) for item in source.get("ModalityLUTSequence", ())]
    return (*size, *_rescale(image), luts, source.PhotometricInterpretation)


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
    if source.get("ModalityLUTSequence") and "RescaleSlope" in dataset:
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
