"""Which voxels a stored segmentation outlines on each source image (DICOM PS3.3 A.51, C.8.20)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels, pixel_array

from triage.web.pixels import PixelError, why
from triage.web.placing import (
    Position,
    SourceFrame,
    first_item,
    position_of,
    source_of,
    sources_named,
)

_COLOURS = ((255, 82, 82), (64, 196, 255), (255, 202, 40), (102, 187, 106), (186, 104, 200))


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment: its number, what it is, and the colour that it recommends."""

    number: int
    label: str
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class SegmentFrame:
    """A frame of the segmentation: where it belongs, and the segments that it outlines.

    `segment` is the one that it is about, None in a label map. A frame may outline nothing at all.
    """

    index: int
    segment: int | None
    outlines: tuple[int, ...]
    sources: tuple[SourceFrame, ...]
    position: Position | None


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A segmentation without its pixels."""

    path: Path
    type: str
    rows: int
    columns: int
    fraction: int
    segments: tuple[Segment, ...]
    frames: tuple[SegmentFrame, ...]

    def frames_by_source(
        self, positions: Mapping[str, Position]
    ) -> dict[SourceFrame, list[SegmentFrame]]:
        """Return the frames that lie on each source image.

        A frame says so by its Derivation Image Sequence; one that does not is placed by its Image
        Position (Patient) among `positions`, those of the study's images by SOP Instance UID.
        """
        found: dict[SourceFrame, list[SegmentFrame]] = {}
        for frame in self.frames:
            if not frame.outlines:
                continue
            source = source_of(frame.sources, frame.position, positions)
            if source is not None:
                found.setdefault(source, []).append(frame)
        return found


@lru_cache(maxsize=32)
def read_segmentation(path: Path) -> Segmentation:
    """Return the segmentation at `path`. Stored files never change, so it is kept.

    Raises:
        PixelError: the file is not a segmentation that can be read.
    """
    try:
        header = dcmread(path, stop_before_pixels=True)
        return Segmentation(
            path=path,
            type=str(header.get("SegmentationType", "BINARY")),
            rows=int(header.Rows),
            columns=int(header.Columns),
            fraction=int(header.get("MaximumFractionalValue") or 255),
            segments=tuple(_segments(header)),
            frames=tuple(_frames(path, header)),
        )
    except Exception as error:
        raise PixelError(f"the segmentation cannot be read: {why(error)}") from error


def _segments(header: Dataset) -> Iterator[Segment]:
    for place, item in enumerate(header.SegmentSequence):
        number = int(item.SegmentNumber)
        if number == 0:  # the background of a label map
            continue
        lab = item.get("RecommendedDisplayCIELabValue")
        rgb = _rgb_of_cielab(lab) if lab is not None and len(lab) == 3 else None
        label = str(item.get("SegmentLabel", "") or f"segment {number}")
        yield Segment(number, label, rgb or _COLOURS[place % len(_COLOURS)])


def _frames(path: Path, header: Dataset) -> Iterator[SegmentFrame]:
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    for index, (own, pixels) in enumerate(zip(groups, iter_pixels(path), strict=False)):
        identification = first_item(own, shared, "SegmentIdentificationSequence")
        number = identification.get("ReferencedSegmentNumber") if identification else None
        yield SegmentFrame(
            index=index,
            segment=int(number) if number is not None else None,
            outlines=_outlines(pixels, number),
            sources=tuple(sources_named(own, shared)),
            position=position_of(own, shared),
        )


def _outlines(pixels: NDArray[Any], number: Any) -> tuple[int, ...]:
    if number is not None:
        return (int(number),) if pixels.any() else ()
    return tuple(int(value) for value in np.unique(pixels) if value)


def masks(
    segmentation: Segmentation, frames: Sequence[SegmentFrame]
) -> dict[int, NDArray[np.bool_]]:
    """Return for each segment that shows on these frames its voxels, of shape (rows, columns).

    Raises:
        PixelError: the pixels cannot be decoded.
    """
    found: dict[int, NDArray[np.bool_]] = {}
    for frame in frames:
        pixels = _pixels(segmentation.path, frame.index)
        if frame.segment is None or segmentation.type == "LABELMAP":
            layers = {s.number: pixels == s.number for s in segmentation.segments}
        elif segmentation.type == "FRACTIONAL":
            layers = {frame.segment: pixels >= segmentation.fraction / 2}
        else:
            layers = {frame.segment: pixels > 0}
        for number, mask in layers.items():
            if mask.any():
                found[number] = found[number] | mask if number in found else mask
    return dict(sorted(found.items()))


def _pixels(path: Path, index: int) -> NDArray[Any]:
    try:
        return np.asarray(pixel_array(path, index=index))
    except Exception as error:
        raise PixelError(f"the segmentation cannot be decoded: {why(error)}") from error


def _rgb_of_cielab(scaled: Sequence[int]) -> tuple[int, int, int]:
    """Return the sRGB colour of a CIELab value as DICOM encodes it (PS3.3 C.10.7.1.1).

    L* runs over 0 to 65535 for 0 to 100, a* and b* for -128 to 127, against the white D50; the
    matrix is the one of the ICC's sRGB profile, adapted to D50.
    """
    lightness, a, b = (float(v) / 65535 for v in scaled)
    fy = (lightness * 100 + 16) / 116
    fx, fz = fy + (a * 255 - 128) / 500, fy - (b * 255 - 128) / 200
    xyz = [
        white * (t**3 if t > 6 / 29 else (t - 4 / 29) * 3 * (6 / 29) ** 2)
        for white, t in zip((0.9642, 1.0, 0.8249), (fx, fy, fz), strict=True)
    ]
    matrix = (
        (3.1339, -1.6169, -0.4906),
        (-0.9788, 1.9161, 0.0335),
        (0.0719, -0.2290, 1.4052),
    )
    red, green, blue = (_gamma(sum(m * v for m, v in zip(row, xyz, strict=True))) for row in matrix)
    return red, green, blue


def _gamma(linear: float) -> int:
    clipped = min(1.0, max(0.0, linear))
    encoded = 12.92 * clipped if clipped <= 0.0031308 else 1.055 * clipped ** (1 / 2.4) - 0.055
    return round(255 * encoded)
