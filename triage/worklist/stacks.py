"""The images of a series in the order in which one scrolls through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydicom.uid import UID

from triage.core.directions import Directions, directions_of, stated_directions
from triage.core.runs import RunState
from triage.core.studies import FRAME_POSITIONS
from triage.store.tables import AnalysisRunRow, InstanceRow, SeriesRow

SEGMENTATION_SOP_CLASS_UIDS = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation Storage
        "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation Storage
    }
)
Normal = tuple[float, float, float]

_directions_in_space = lru_cache(maxsize=256)(directions_of)  # a stack has one, said by each slice
_PARALLEL = 0.999  # cosine: 2.5 degrees
_SECONDARY_CAPTURE_ROOT = "1.2.840.10008.5.1.4.1.1.7"


class ImageView(BaseModel):
    """An image, or a multi-frame image with all its frames."""

    model_config = ConfigDict(frozen=True)

    sop_instance_uid: str
    number: int | None
    frames: int
    pixel_spacing_mm: tuple[float, float] | None
    is_spacing_at_detector: bool = False
    """Whether the spacing is that at the detector of a projection (Imager Pixel Spacing)."""
    depths_mm: tuple[float, ...] = ()
    """Where each frame lies along the series' normal, empty where that is not known."""
    directions: Directions | None = None
    """To which side of the patient the right and the lower edge point, such as L and P."""


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
    frame_of_reference_uid: str = ""
    normal: tuple[float, float, float] | None = None
    """Along which the slices follow one another, in patient coordinates (LPS)."""
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
    normal = _common_normal(images)
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
        frame_of_reference_uid=_common_frame_of_reference(images),
        normal=normal,
        images=tuple(_image(instance, normal) for instance in in_spatial_order(images)),
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
    position, normal = _floats(headers.get("ImagePositionPatient"), 3), _normal(headers)
    return None if position is None or normal is None else _along(position, normal)


def _normal(headers: Mapping[str, Any]) -> Normal | None:
    orientation = _floats(headers.get("ImageOrientationPatient"), 6)
    if orientation is None:
        return None
    rx, ry, rz, cx, cy, cz = orientation
    return ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx


def _along(position: Sequence[float], normal: Normal) -> float:
    return sum(p * n for p, n in zip(position, normal, strict=True))


def _common_normal(images: Sequence[InstanceRow]) -> Normal | None:
    """Return the normal that all images share, None where they lie differently."""
    normals = [_normal(image.headers) for image in images]
    first = normals[0] if normals else None
    if first is None or not any(first):
        return None
    for normal in normals:
        if normal is None or _along(normal, first) < _PARALLEL:
            return None
    return first


def _common_frame_of_reference(images: Sequence[InstanceRow]) -> str:
    uids = {str(image.headers.get("FrameOfReferenceUID") or "") for image in images}
    return uids.pop() if len(uids) == 1 else ""


def _image(instance: InstanceRow, normal: Normal | None) -> ImageView:
    in_patient = _floats(instance.headers.get("PixelSpacing"), 2)
    spacing = in_patient or _floats(instance.headers.get("ImagerPixelSpacing"), 2)
    frames = _count(instance.headers.get("NumberOfFrames"))
    return ImageView(
        sop_instance_uid=instance.sop_instance_uid,
        number=instance.number,
        frames=frames,
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing and min(spacing) > 0 else None,
        is_spacing_at_detector=in_patient is None and spacing is not None,
        depths_mm=_depths(instance.headers, frames, normal),
        directions=_directions(instance.headers),
    )


def _directions(headers: Mapping[str, Any]) -> Directions | None:
    orientation = _floats(headers.get("ImageOrientationPatient"), 6)
    in_space = _directions_in_space(orientation) if orientation is not None else None
    return in_space or stated_directions(headers.get("PatientOrientation"))


def _depths(headers: Mapping[str, Any], frames: int, normal: Normal | None) -> tuple[float, ...]:
    if normal is None:
        return ()
    stated = headers.get(FRAME_POSITIONS) or [headers.get("ImagePositionPatient")]
    positions = [_floats(position, 3) for position in stated]
    known = [round(_along(one, normal), 3) for one in positions if one is not None]
    return tuple(known) if len(known) == frames else ()


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
