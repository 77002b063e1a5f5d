"""What a stored parametric map says of each pixel of its source images (DICOM PS3.3 A.75)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from triage.web.pixels import PixelError, why
from triage.web.placing import (
    Position,
    SourceFrame,
    first_item,
    position_of,
    source_of,
    sources_named,
)

PARAMETRIC_MAP_SOP_CLASS_UIDS = frozenset({"1.2.840.10008.5.1.4.1.1.30"})


@dataclass(frozen=True, slots=True)
class MapFrame:
    """A frame of the map, from 0 on, and what it says of its place."""

    index: int
    sources: tuple[SourceFrame, ...]
    position: Position | None


@dataclass(frozen=True, slots=True)
class ParametricMap:
    """A map without its pixels.

    Attributes:
        label: what its values are, in the words of its Real World Value Mapping.
        low, high: the values at the ends of its colour scale.
    """

    path: Path
    label: str
    rows: int
    columns: int
    low: float
    high: float
    frames: tuple[MapFrame, ...]

    def frames_by_source(self, positions: Mapping[str, Position]) -> dict[SourceFrame, MapFrame]:
        """Return the frame that lies on each source image."""
        found: dict[SourceFrame, MapFrame] = {}
        for frame in self.frames:
            source = source_of(frame.sources, frame.position, positions)
            if source is not None:
                found.setdefault(source, frame)
        return found

    @property
    def covers_image(self) -> bool:
        """It is not stretched: its pixels are those of the image."""
        return False

    def strengths(self, frame: MapFrame) -> NDArray[np.uint8]:
        """Return the values of a frame, of shape (rows, columns), 0 for `low`, 255 for `high`.

        Raises:
            PixelError: the pixels cannot be decoded.
        """
        try:
            values = np.asarray(pixel_array(self.path, index=frame.index), np.float64)
        except Exception as error:
            raise PixelError(f"the heat map cannot be decoded: {why(error)}") from error
        share = (np.nan_to_num(values) - self.low) / (self.high - self.low)
        return np.asarray(np.rint(255 * np.clip(share, 0, 1)), np.uint8)


@lru_cache(maxsize=32)
def read_map(path: Path) -> ParametricMap:
    """Return the map at `path`. Stored files never change, so it is kept.

    Raises:
        PixelError: the file is not a parametric map that can be read.
    """
    try:
        header = dcmread(path, stop_before_pixels=True)
        shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
        groups = header.get("PerFrameFunctionalGroupsSequence") or []
        mapping = first_item(
            groups[0] if groups else Dataset(), shared, "RealWorldValueMappingSequence"
        )
        low, high = _range(mapping)
        return ParametricMap(
            path=path,
            label=str((mapping.get("LUTExplanation") if mapping else "") or "Parametric map"),
            rows=int(header.Rows),
            columns=int(header.Columns),
            low=low,
            high=high,
            frames=tuple(_frames(groups, shared)),
        )
    except Exception as error:
        raise PixelError(f"the heat map cannot be read: {why(error)}") from error


def _range(mapping: Dataset | None) -> tuple[float, float]:
    """Return the least and the greatest value that are mapped (C.7.6.16.2.11); 0 and 1 without."""
    if mapping is None:
        return 0.0, 1.0
    for ends in ("DoubleFloatRealWorldValue{}ValueMapped", "RealWorldValue{}ValueMapped"):
        first, last = mapping.get(ends.format("First")), mapping.get(ends.format("Last"))
        if first is not None and last is not None and float(last) > float(first):
            return float(first), float(last)
    return 0.0, 1.0


def _frames(groups: Any, shared: Dataset) -> Iterator[MapFrame]:
    for index, own in enumerate(groups):
        yield MapFrame(index, tuple(sources_named(own, shared)), position_of(own, shared))
