"""A heat map that a model left as a picture, read back from the colours of the picture.

A model may leave no parametric map, for that needs a place in the patient which radiographs often
do not state. Its heat-map object shows where it looked all the same: words above the image, and in
the image the strength as colour (`triage.results.heat_map`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from triage.decoding.heat_pictures import heat_of, picture_size, says_heat
from triage.web.parametric_maps import MapFrame
from triage.web.pixels import PixelError, why
from triage.web.placing import Position, SourceFrame

HEAT_MAP_ROLE = "heat-map"
SECONDARY_CAPTURE_SOP_CLASS_UIDS = frozenset({"1.2.840.10008.5.1.4.1.1.7"})


@dataclass(frozen=True, slots=True)
class HeatPicture:
    """A picture of a heat map: of which image, of what, and how large with the words above it."""

    path: Path
    source: SourceFrame
    label: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class PicturedMap:
    """The heat map in a picture, which covers the whole of its source, whatever size that has."""

    picture: HeatPicture
    rows: int
    columns: int
    low: float = 0.0
    high: float = 1.0

    @property
    def label(self) -> str:
        """What its values are."""
        return self.picture.label

    @property
    def covers_image(self) -> bool:
        """It is stretched over the image."""
        return True

    def frames_by_source(self, _: Mapping[str, Position]) -> dict[SourceFrame, MapFrame]:
        """Return the only frame, on the image of which it is a picture."""
        return {self.picture.source: MapFrame(0, (self.picture.source,), None)}

    def strengths(self, _: MapFrame) -> NDArray[np.uint8]:
        """Return the values, of shape (rows, columns), 0 for none and 255 for the strongest.

        Raises:
            PixelError: the pixels cannot be decoded.
        """
        try:
            pixels = np.asarray(pixel_array(self.picture.path), np.uint8)
        except Exception as error:
            raise PixelError(f"the heat map cannot be decoded: {why(error)}") from error
        return heat_of(pixels[-self.rows :])


@lru_cache(maxsize=32)
def read_picture(path: Path) -> HeatPicture | None:
    """Return what the picture at `path` says of itself, None where it shows no heat map.

    Raises:
        PixelError: the file cannot be read.
    """
    try:
        header = dcmread(path, stop_before_pixels=True)
        if not says_heat(header):
            return None
        reference = header.SourceImageSequence[0]
        number = int(reference.get("ReferencedFrameNumber") or 1)
        found, _, _ = str(header.get("DerivationDescription", "")).rpartition(", ")
        return HeatPicture(
            path=path,
            source=SourceFrame(str(reference.ReferencedSOPInstanceUID), number),
            label=f"Saliency: {found}" if found else "Heat map",
            rows=int(header.Rows),
            columns=int(header.Columns),
        )
    except Exception as error:
        raise PixelError(f"the heat map cannot be read: {why(error)}") from error


@lru_cache(maxsize=32)
def laid_on(picture: HeatPicture, source: Path) -> PicturedMap | None:
    """Return the heat map in `picture` for the image at `source`; None where colours hide it.

    Raises:
        PixelError: the image cannot be read, or is of other proportions than the picture.
    """
    try:
        header = dcmread(source, stop_before_pixels=True)
        if not _is_grey(header):
            return None  # its own colours cannot be told from those of the heat
        columns, rows = picture_size(header, picture.source.number - 1)
    except Exception as error:
        raise PixelError(f"the image of the heat map cannot be read: {why(error)}") from error
    if columns != picture.columns or rows > picture.rows:
        raise PixelError("the heat map is not of the size of its image")
    return PicturedMap(picture, rows, columns)


def _is_grey(header: Dataset) -> bool:
    return str(header.get("PhotometricInterpretation")).startswith("MONOCHROME")
