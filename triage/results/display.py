"""A source image as a reader sees it first: through its window, upright, in true proportions."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from triage.decoding.heat_pictures import picture_size
from triage.decoding.multi_frame import frame_value
from triage.results.context import ResultContext
from triage.results.sources import read_with_pixels

Plane = NDArray[np.float32]

_OF_FRAMES = ("RescaleIntercept", "RescaleSlope", "WindowCenter", "WindowWidth")


@dataclass(frozen=True, slots=True, eq=False)
class Display:
    """An image on its way to a picture.

    Attributes:
        pixels: float32 (rows, columns, 3) from 0 to 1, scaled for reading.
        scale: columns and rows of the picture for each of the source.
    """

    pixels: Plane
    scale: tuple[float, float]

    def resized(self, plane: Plane) -> Plane:
        """Return values (rows, columns) of the source on the pixels of the picture."""
        rows, columns = self.pixels.shape[:2]
        return _resized(plane, (columns, rows))


def displayed(context: ResultContext, place: int) -> Display:
    """Return the source image or analysed frame at `place`, as it is to be drawn upon."""
    dataset = read_with_pixels(
        context.analysis.source_files[0 if context.is_multi_frame else place]
    )
    frame = context.frames[place] - 1 if context.is_multi_frame else 0
    base = _in_colour(dataset, frame)
    rows, columns = base.shape[:2]
    size = picture_size(dataset, frame)
    pixels = np.stack([_resized(base[..., c], size) for c in range(3)], axis=-1)
    return Display(pixels, (size[0] / columns, size[1] / rows))


def shown_window(context: ResultContext, place: int) -> tuple[float, float, str | None]:
    """Return center, width and VOI LUT Function of the window that the image at `place` opens in.

    The first that the image states, or, where it states none, that of the middle 98 % of its
    values. The function is None where the image does not state one, and means LINEAR.
    """
    source = context.reference if context.is_multi_frame else context.sources[place]
    frame = context.frames[place] - 1 if context.is_multi_frame else 0
    header = _of_frame(source, frame)
    stated = _stated_window(header)
    if stated is not None:
        return *stated, header.get("VOILUTFunction")
    dataset = read_with_pixels(
        context.analysis.source_files[0 if context.is_multi_frame else place]
    )
    values = apply_modality_lut(pixel_array(dataset, index=frame), _of_frame(dataset, frame))
    return *_window_of_values(np.asarray(values, dtype=np.float32)), None


def _resized(plane: Plane, size: tuple[int, int]) -> Plane:
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)


def _in_colour(dataset: Dataset, frame: int) -> Plane:
    """Return the image, float32 from 0 to 1, three channels."""
    stored = pixel_array(dataset, index=frame)
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.ndim == 3:
        return np.asarray(stored[..., :3], dtype=np.float32) / float(np.iinfo(stored.dtype).max)
    gray = _windowed(stored, _of_frame(dataset, frame))
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        gray = 1 - gray
    return np.repeat(gray[..., np.newaxis], 3, axis=-1)


def _of_frame(dataset: Dataset, frame: int) -> Dataset:
    """Return `dataset` with what a frame, counted from 0, states where single images state it."""
    header = copy(dataset)
    for keyword in _OF_FRAMES:
        value = frame_value(dataset, frame, keyword)
        if value is not None:
            setattr(header, keyword, value)
    return header


def _windowed(stored: NDArray[Any], dataset: Dataset) -> Plane:
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


def _window_of_values(values: Plane) -> tuple[float, float]:
    low, high = map(float, np.percentile(values, (1, 99)))
    return (low + high) / 2 + 0.5, max(high - low, 1e-6) + 1


def _first(value: object) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, (str, float, int)):
        return float(value)
    values = list(value)  # type: ignore[call-overload]
    return float(values[0]) if values else None
