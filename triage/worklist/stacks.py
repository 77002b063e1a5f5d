"""The images of a series in the order in which one scrolls through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydicom.uid import UID

from triage.core.runs import RunState
from triage.store.tables import AnalysisRunRow, InstanceRow, SeriesRow

SEGMENTATION_SOP_CLASS_UIDS = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation Storage
        "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation Storage
    }
)
_SECONDARY_CAPTURE_ROOT = "1.2.840.10008.5.1.4.1.1.7"


class ImageView(BaseModel):
    """An image, or a multi-frame image with all its frames."""

    model_config = ConfigDict(frozen=True)

    sop_instance_uid: str
    number: int | None
    frames: int
    pixel_spacing_mm: tuple[float, float] | None


class SeriesView(BaseModel):
    """A series: what it is, who made it, and its images; `kind` is "image" or what it is else."""

    model_config = ConfigDict(frozen=True)

    series_instance_uid: str
    number: int | None
    modality: str
    description: str
    body_part: str
    kind: str
    is_result: bool
    is_superseded: bool
    is_withdrawn: bool = False
    model: str
    instances: int
    purged: int = 0
    images: tuple[ImageView, ...]


def series_view(
    row: SeriesRow, made_by: AnalysisRunRow | None, *, is_withdrawn: bool = False
) -> SeriesView:
    """Return the series; `made_by` is the run that left it, None for what was received.

    `is_withdrawn` says that a person took it back.
    """
    known = [instance for instance in row.instances if instance.conflicts_with is None]
    kept = [instance for instance in known if instance.purged_at is None]
    images = [instance for instance in kept if has_pixels(instance)]
    return SeriesView(
        series_instance_uid=row.series_instance_uid,
        number=row.number,
        modality=row.modality,
        description=row.description,
        body_part=row.body_part,
        kind="image" if images else _kind(kept or known),
        is_result=row.is_result,
        is_superseded=made_by is not None and made_by.state is RunState.SUPERSEDED,
        is_withdrawn=is_withdrawn,
        model=f"{made_by.model.name} {made_by.model.version}" if made_by is not None else "",
        instances=len(known),
        purged=len(known) - len(kept),
        images=tuple(_image(instance) for instance in in_spatial_order(images)),
    )


def has_pixels(instance: InstanceRow) -> bool:
    """Return whether the object is an image that a viewer can show by itself."""
    if instance.sop_class_uid in SEGMENTATION_SOP_CLASS_UIDS:
        return False
    if instance.sop_class_uid.startswith(_SECONDARY_CAPTURE_ROOT):
        return True
    return bool(instance.headers.get("Rows"))


def in_spatial_order(images: Sequence[InstanceRow]) -> list[InstanceRow]:
    """Return the images along their common slice normal, or else by Instance Number.

    Image Position and Orientation (Patient): DICOM PS3.3 C.7.6.2.1.1.
    """
    depths = [_depth(image.headers) for image in images]
    known = [depth for depth in depths if depth is not None]
    if len(known) == len(images) and len({round(depth, 3) for depth in known}) == len(images):
        return [image for _, image in sorted(zip(known, images, strict=True), key=lambda p: p[0])]
    return sorted(images, key=lambda i: (i.number is None, i.number or 0, i.id))


def _depth(headers: Mapping[str, Any]) -> float | None:
    position, orientation = (
        _floats(headers.get("ImagePositionPatient"), 3),
        _floats(headers.get("ImageOrientationPatient"), 6),
    )
    if position is None or orientation is None:
        return None
    rx, ry, rz, cx, cy, cz = orientation
    normal = (ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx)
    return sum(p * n for p, n in zip(position, normal, strict=True))


def _image(instance: InstanceRow) -> ImageView:
    spacing = _floats(instance.headers.get("PixelSpacing"), 2) or _floats(
        instance.headers.get("ImagerPixelSpacing"), 2
    )
    return ImageView(
        sop_instance_uid=instance.sop_instance_uid,
        number=instance.number,
        frames=_count(instance.headers.get("NumberOfFrames")),
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing and min(spacing) > 0 else None,
    )


def _count(value: Any) -> int:
    try:
        return max(1, int(value or 1))
    except (TypeError, ValueError):
        return 1


def _floats(value: Any, length: int) -> tuple[float, ...] | None:
    """Return the numbers of a header, or None: senders write what they like."""
    if not isinstance(value, (list, tuple)) or len(value) != length:
        return None
    try:
        return tuple(float(number) for number in value)
    except (TypeError, ValueError):
        return None


def _kind(instances: Sequence[InstanceRow]) -> str:
    if not instances:
        return "empty"
    name = UID(instances[0].sop_class_uid).name
    return name.removesuffix(" Storage") if not name[:1].isdigit() else "other object"
