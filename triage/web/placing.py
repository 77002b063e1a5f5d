"""Which source image a frame of an overlay belongs to (DICOM PS3.3 C.7.6.16.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

_SAME_PLACE_MM = 0.05

Position = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """A frame of an image that something is drawn on; `number` is from 1 on."""

    sop_instance_uid: str
    number: int = 1


def source_of(
    sources: Sequence[SourceFrame],
    position: Position | None,
    positions: Mapping[str, Position],
) -> SourceFrame | None:
    """Return the source image of a frame that names these `sources` and lies at `position`.

    `positions` are those of the study's images by SOP Instance UID: they place a frame that names
    several sources or none.
    """
    if len(sources) == 1:
        return sources[0]
    named = {source.sop_instance_uid: source for source in sources}
    if position is not None:
        for uid, other in positions.items():
            is_candidate = not named or uid in named
            if is_candidate and _distance_mm(other, position) <= _SAME_PLACE_MM:
                return named.get(uid, SourceFrame(uid))
    return sources[0] if sources else None


def _distance_mm(a: Position, b: Position) -> float:
    return float(np.linalg.norm(np.subtract(a, b)))


def first_item(own: Dataset, shared: Dataset, keyword: str) -> Dataset | None:
    """Return the item of a functional group, the frame's own or else the shared one."""
    for group in (own, shared):
        for item in group.get(keyword) or ():
            assert isinstance(item, Dataset)
            return item
    return None


def sources_named(own: Dataset, shared: Dataset) -> Iterator[SourceFrame]:
    """Yield the images that a frame is derived from (Derivation Image, C.7.6.16.2.6)."""
    derivation = first_item(own, shared, "DerivationImageSequence")
    for item in (derivation.get("SourceImageSequence") or []) if derivation else []:
        number = item.get("ReferencedFrameNumber")
        first = number[0] if isinstance(number, Sequence) and number else number
        yield SourceFrame(str(item.ReferencedSOPInstanceUID), int(first or 1))


def position_of(own: Dataset, shared: Dataset) -> Position | None:
    """Return where a frame lies (Plane Position, C.7.6.16.2.3), None where it does not say."""
    plane = first_item(own, shared, "PlanePositionSequence")
    value = plane.get("ImagePositionPatient") if plane is not None else None
    if value is None or len(value) != 3:
        return None
    x, y, z = map(float, value)
    return x, y, z
