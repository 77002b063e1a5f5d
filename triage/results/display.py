"""A source image as a reader sees it first: through its window, upright, in true proportions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from triage.decoding.multi_frame import frame_value
from triage.results.context import ResultContext
from triage.results.sources import read_with_pixels

Plane = NDArray[np.float32]

_SMALLEST_SIDE, _LARGEST_SIDE = 512, 1024
_MOST_STRETCHED = 8.0


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
    base = _in_colour(dataset, frame, is_multi_frame=context.is_multi_frame)
    rows, columns = base.shape[:2]
    height, width = (rows * _proportion(dataset, frame), float(columns))
    factor = min(max(height, width, _SMALLEST_SIDE), _LARGEST_SIDE) / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    pixels = np.stack([_resized(base[..., c], size) for c in range(3)], axis=-1)
    return Display(pixels, (size[0] / columns, size[1] / rows))


def _resized(plane: Plane, size: tuple[int, int]) -> Plane:
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)


def _proportion(dataset: Dataset, frame: int) -> float:
    """Return how much higher than wide a pixel is (DICOM PS3.3 C.7.6.3.1.7, 10.7.1.3)."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        stated = frame_value(dataset, frame, keyword)
        if stated is not None and len(stated) == 2 and min(map(float, stated)) > 0:
            proportion = float(stated[0]) / float(stated[1])
            return min(max(proportion, 1 / _MOST_STRETCHED), _MOST_STRETCHED)
    return 1.0


def _in_colour(dataset: Dataset, frame: int, *, is_multi_frame: bool) -> Plane:
    """Return the image, float32 from 0 to 1, three channels."""
    stored = pixel_array(dataset, index=frame)
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.ndim == 3:
        return np.asarray(stored[..., :3], dtype=np.float32) / float(np.iinfo(stored.dtype).max)
    if is_multi_frame:
        _lift_luts(dataset, frame)
    gray = _windowed(stored, dataset)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        gray = 1 - gray
    return np.repeat(gray[..., np.newaxis], 3, axis=-1)


def _lift_luts(dataset: Dataset, frame: int) -> None:
    """Put the rescale and window of a frame where a single-frame image has them."""
    for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"):
        value = frame_value(dataset, frame, keyword)
        if value is not None:
            setattr(dataset, keyword, value)


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
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if center is not None and width is not None and width > 1:
        scaled = (values - (center - 0.5)) / (width - 1) + 0.5
    else:
        low, high = np.percentile(values, (1, 99))
        scaled = (values - low) / max(float(high - low), 1e-6)
    return np.asarray(np.clip(scaled, 0, 1), dtype=np.float32)


def _first(value: object) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, (str, float, int)):
        return float(value)
    values = list(value)  # type: ignore[call-overload]
    return float(values[0]) if values else None
