"""Source images as a reader sees them first, and what a model saw laid over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from triage.core.findings import Finding
from triage.decoding.multi_frame import frame_value
from triage.results.context import ResultContext
from triage.results.key_images import KeyImage
from triage.results.outlines import outlines_of
from triage.results.sources import read_with_pixels

_SMALLEST_SIDE, _LARGEST_SIDE = 512, 1024
_STRONGEST_TINT = 0.55
_OUTLINE_TINT = 0.4
_LINE_COLOR = (255, 64, 64)
_OF_FRAMES = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
_OF_IMAGES = ("ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction", "BitsStored")

_Image = NDArray[np.float32]


@dataclass(frozen=True)
class Overlay:
    """What is drawn over one image.

    Attributes:
        source: index of the source image, or of the analysed frame of a multi-frame source.
        strength: from 0 to 1 on the source pixels.
        color: of full strength; None for the scale from red to yellow.
    """

    finding: Finding
    source: int
    strength: _Image
    color: tuple[int, int, int] | None = None


def blend(context: ResultContext, overlay: Overlay) -> NDArray[np.uint8]:
    """Return the image with the overlay, uint8 of shape (rows, columns, 3), scaled for reading."""
    base = base_image(context, overlay.source)
    rows, columns = base.shape[:2]
    longest = max(rows, columns)
    factor = min(max(longest, _SMALLEST_SIDE), _LARGEST_SIDE) / longest
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    base = np.stack([_resized(base[..., c], size) for c in range(3)], axis=-1)
    strength = np.clip(_resized(overlay.strength.astype(np.float32), size), 0, 1)[..., np.newaxis]
    if overlay.color is None:
        color = np.concatenate([np.ones_like(strength), strength, np.zeros_like(strength)], axis=-1)
        tint = _STRONGEST_TINT * strength
    else:
        color = np.asarray(overlay.color, dtype=np.float32) / 255
        tint = _OUTLINE_TINT * strength
    blended = base * (1 - tint) + color * tint
    return np.asarray(np.round(255 * np.clip(blended, 0, 1)), dtype=np.uint8)


def _resized(plane: _Image, size: tuple[int, int]) -> _Image:
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)


def shown_window(context: ResultContext, index: int) -> tuple[float, float, str | None]:
    """Return center, width and VOI LUT Function of the window that the image at `index` opens in.

    The first that the image states, or, where it states none, that of the middle 98 % of its
    values. The function is None where the image does not state one, and means LINEAR.
    """
    source = context.reference if context.is_multi_frame else context.sources[index]
    frame = context.frames[index] - 1 if context.is_multi_frame else 0
    header = _of_frame(source, frame) if context.is_multi_frame else source
    stated = _stated_window(header)
    if stated is not None:
        return *stated, header.get("VOILUTFunction")
    dataset = read_with_pixels(
        context.analysis.source_files[0 if context.is_multi_frame else index]
    )
    stored = pixel_array(dataset, index=frame)
    header = _of_frame(dataset, frame) if context.is_multi_frame else dataset
    values = np.asarray(apply_modality_lut(stored, header), dtype=np.float32)
    return *_window_of_values(values), None


def base_image(context: ResultContext, index: int) -> _Image:
    """Return the source image as a reader sees it first, float32 from 0 to 1, three channels."""
    file = context.analysis.source_files[0 if context.is_multi_frame else index]
    dataset = read_with_pixels(file)
    frame = context.frames[index] - 1 if context.is_multi_frame else 0
    stored = pixel_array(dataset, index=frame)
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.ndim == 3:
        return np.asarray(stored[..., :3], dtype=np.float32) / float(np.iinfo(stored.dtype).max)
    gray = _windowed(stored, _of_frame(dataset, frame) if context.is_multi_frame else dataset)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        gray = 1 - gray
    return np.repeat(gray[..., np.newaxis], 3, axis=-1)


def _of_frame(dataset: Dataset, frame: int) -> Dataset:
    """Return the transformations of a frame, counted from 0, as a single-frame image has them."""
    header = Dataset()
    for keyword in (*_OF_FRAMES, *_OF_IMAGES):
        value = frame_value(dataset, frame, keyword)
        if value is not None:
            setattr(header, keyword, value)
    return header


def _windowed(stored: NDArray[np.generic], dataset: Dataset) -> _Image:
    """Return `stored` through the modality and the first VOI transformation, from 0 to 1.

    The linear function of DICOM PS3.3 C.11.2.1.2.1 is written out here, because pydicom's answers
    in the range of the stored bits. Without any window, the middle 98 % of the values are spread.
    """
    values = apply_modality_lut(stored, dataset)
    if dataset.get("VOILUTSequence"):
        looked_up = apply_voi_lut(values, dataset, prefer_lut=True).astype(np.float32)
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return np.asarray(np.clip(looked_up / (2**bits - 1), 0, 1), dtype=np.float32)
    values = np.asarray(values, dtype=np.float32)
    center, width = _stated_window(dataset) or _window_of_values(values)
    scaled = (values - (center - 0.5)) / (width - 1) + 0.5
    return np.asarray(np.clip(scaled, 0, 1), dtype=np.float32)


def _stated_window(dataset: Dataset) -> tuple[float, float] | None:
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    return (center, width) if center is not None and width is not None and width > 1 else None


def _window_of_values(values: _Image) -> tuple[float, float]:
    low, high = map(float, np.percentile(values, (1, 99)))
    return (low + high) / 2 + 0.5, max(high - low, 1e-6) + 1


def _first(value: object) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, (str, float, int)):
        return float(value)
    values = list(value)  # type: ignore[call-overload]
    return float(values[0]) if values else None


def drawn(context: ResultContext, image: KeyImage) -> NDArray[np.uint8]:
    """Return a key image with what its findings' outlines, boxes and heat maps say.

    uint8 of shape (rows, columns, 3), scaled for reading.
    """
    pixels = blend(context, _overlay_of(context, image))
    rows, columns = pixels.shape[:2]
    scale = np.array([columns / image.source.Columns, rows / image.source.Rows])
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for finding in image.findings:
        color = _color_of(context, finding) or _LINE_COLOR
        for line in outlines_of(context, finding, image.index):
            points = [(float(x), float(y)) for x, y in line * scale]
            draw.line(points, fill=color, width=max(2, columns // 256))
    return np.asarray(picture, dtype=np.uint8)


def _overlay_of(context: ResultContext, image: KeyImage) -> Overlay:
    """Return the heat map of the most urgent finding that has one on this image, or nothing."""
    for finding in image.findings:
        heat = context.analysis.heat_maps.get(finding.key)
        if heat is not None:
            return Overlay(finding, image.index, np.clip(np.nan_to_num(heat), 0, 1))
    shape = (int(image.source.Rows), int(image.source.Columns))
    return Overlay(image.findings[0], image.index, np.zeros(shape, dtype=np.float32))


def _color_of(context: ResultContext, finding: Finding) -> tuple[int, int, int] | None:
    specs = {spec.key: spec for spec in context.manifest.findings}
    segment = specs[finding.key].segment
    return segment.recommended_display_rgb if segment is not None else None
