"""Pixels for the viewer: frames of images, and what segmentations outline on them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, Header, HTTPException, Response
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.permissions import Permission
from triage.store.tables import InstanceRow, SeriesRow, StudyRow
from triage.web.access import may
from triage.web.context import Context, FrameNumber, Uid, WebContext
from triage.web.first_picture import picture_of
from triage.web.overlaid import (
    StoredOverlay,
    caching,
    deleted,
    image_positions,
    in_decoders,
    require_file,
    stored_overlays,
)
from triage.web.pixels import PixelError, read_frame
from triage.web.placing import Position, SourceFrame
from triage.web.segments import Segmentation, SegmentFrame, masks, read_segmentation
from triage.worklist.stacks import SEGMENTATION_SOP_CLASS_UIDS

router = APIRouter(tags=["images"], dependencies=[Depends(may(Permission.SEE_PATIENTS))])
T = TypeVar("T")

IfNoneMatch = Annotated[str | None, Header()]


class SegmentView(BaseModel):
    """A segment of a segmentation, and the images that it shows on."""

    number: int
    label: str
    rgb: tuple[int, int, int]


class OverlayImage(BaseModel):
    """A source image with at least one frame of the segmentation on it."""

    sop_instance_uid: str
    frame: int
    segments: tuple[int, ...]


class OverlayView(BaseModel):
    """A segmentation as the viewer lays it over the source images."""

    segmentation_uid: str
    series_instance_uid: str
    model: str
    notice: str
    rows: int = 0
    columns: int = 0
    segments: tuple[SegmentView, ...] = ()
    images: tuple[OverlayImage, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class _StoredImage:
    path: str
    sha256: str
    purged_at: datetime | None


@router.get(
    "/studies/{study_instance_uid}/series/{series_instance_uid}/instances/{sop_instance_uid}"
    "/frames/{number}",
    response_class=Response,
)
async def frame(
    *,
    study_instance_uid: Uid,
    series_instance_uid: Uid,
    sop_instance_uid: Uid,
    number: FrameNumber,
    context: Context,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Give one frame's rescaled values, little endian; the headers say how they are read."""
    place = (study_instance_uid, series_instance_uid, sop_instance_uid)
    path, tag = await _file(context, *place, str(number))
    if if_none_match == tag:
        return Response(status_code=304, headers=caching(tag))
    decoded = await in_decoders(context, lambda: read_frame(context.files.absolute(path), number))
    return Response(
        decoded.data,
        media_type="application/octet-stream",
        headers={
            **caching(tag),
            "X-Image-Rows": str(decoded.rows),
            "X-Image-Columns": str(decoded.columns),
            "X-Image-Samples": str(decoded.samples),
            "X-Image-Kind": decoded.kind,
            "X-Image-Photometric": decoded.photometric,
            "X-Image-Window-Center": f"{decoded.window.center:g}",
            "X-Image-Window-Width": f"{decoded.window.width:g}",
            "X-Image-Frame-Rate": f"{decoded.frame_rate:g}",
        },
    )


@router.get(
    "/studies/{study_instance_uid}/series/{series_instance_uid}/instances/{sop_instance_uid}"
    "/frames/{number}/picture",
    response_class=Response,
)
async def picture(
    *,
    study_instance_uid: Uid,
    series_instance_uid: Uid,
    sop_instance_uid: Uid,
    number: FrameNumber,
    context: Context,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Give one frame through the window of the image, as a PNG that a browser shows by itself."""
    place = (study_instance_uid, series_instance_uid, sop_instance_uid)
    path, tag = await _file(context, *place, f"{number}-picture")
    if if_none_match == tag:
        return Response(status_code=304, headers=caching(tag))
    content = await in_decoders(
        context, lambda: picture_of(read_frame(context.files.absolute(path), number))
    )
    return Response(content, media_type="image/png", headers=caching(tag))


@router.get("/studies/{study_instance_uid}/overlays")
async def overlays(study_instance_uid: Uid, context: Context) -> list[OverlayView]:
    """List what segmentations outline on the study's images."""

    def look() -> list[OverlayView]:
        with context.database.reading() as session:
            stored = stored_overlays(session, study_instance_uid, SEGMENTATION_SOP_CLASS_UIDS)
            positions = image_positions(session, study_instance_uid) if stored else {}
        return [_overlay_view(context, one, positions) for one in stored]

    return await in_decoders(context, look)


@router.get(
    "/studies/{study_instance_uid}/overlays/{segmentation_uid}/images/{sop_instance_uid}"
    "/frames/{number}",
    response_class=Response,
)
async def overlay_masks(
    *,
    study_instance_uid: Uid,
    segmentation_uid: Uid,
    sop_instance_uid: Uid,
    number: FrameNumber,
    context: Context,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Give the voxels of each segment on one image, a bit each, first pixel in the lowest bit.

    The header X-Overlay-Segments names the segments in the order of their bitmaps, each of which
    begins on a whole byte.
    """

    def look() -> tuple[StoredOverlay, Segmentation, list[SegmentFrame]] | None:
        with context.database.reading() as session:
            stored = stored_overlays(session, study_instance_uid, SEGMENTATION_SOP_CLASS_UIDS)
            positions = image_positions(session, study_instance_uid)
        for one in stored:
            if one.sop_instance_uid == segmentation_uid:
                require_file(one.purged_at)
                segmentation = read_segmentation(context.files.absolute(one.path))
                by_source = segmentation.frames_by_source(positions)
                return one, segmentation, by_source.get(SourceFrame(sop_instance_uid, number), [])
        return None

    found = await in_decoders(context, look)
    if found is None:
        raise HTTPException(404, "Triage holds no such segmentation")
    stored, segmentation, frames = found
    tag = f'"{stored.sha256[:32]}-{sop_instance_uid}-{number}"'
    if if_none_match == tag:
        return Response(status_code=304, headers=caching(tag))
    layers = await in_decoders(context, lambda: masks(segmentation, frames))
    packed = b"".join(np.packbits(mask, bitorder="little").tobytes() for mask in layers.values())
    return Response(
        packed,
        media_type="application/octet-stream",
        headers={
            **caching(tag),
            "X-Overlay-Segments": ",".join(map(str, layers)),
            "X-Image-Rows": str(segmentation.rows),
            "X-Image-Columns": str(segmentation.columns),
        },
    )


async def _file(
    context: WebContext, study_uid: str, series_uid: str, sop_uid: str, part: str
) -> tuple[str, str]:
    """Return the path of an image's file and the tag of a part of it, or refuse.

    Raises:
        HTTPException: 404 or 410.
    """

    def find() -> _StoredImage | None:
        with context.database.reading() as session:
            return _find_instance(session, study_uid, series_uid, sop_uid)

    found = await in_decoders(context, find)
    if found is None:
        raise HTTPException(404, "Triage holds no such image")
    require_file(found.purged_at)
    return found.path, f'"{found.sha256[:32]}-{part}"'


def _find_instance(
    session: Session, study_uid: str, series_uid: str, sop_uid: str
) -> _StoredImage | None:
    row = session.execute(
        select(InstanceRow.path, InstanceRow.sha256, InstanceRow.purged_at)
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .where(
            InstanceRow.sop_instance_uid == sop_uid,
            InstanceRow.conflicts_with.is_(None),
            SeriesRow.series_instance_uid == series_uid,
            StudyRow.study_instance_uid == study_uid,
        )
    ).first()
    return _StoredImage(row.path, row.sha256, row.purged_at) if row is not None else None


def _overlay_view(
    context: WebContext, stored: StoredOverlay, positions: dict[str, Position]
) -> OverlayView:
    about = {
        "segmentation_uid": stored.sop_instance_uid,
        "series_instance_uid": stored.series_instance_uid,
        "model": stored.model,
        "notice": stored.notice,
    }
    if stored.purged_at is not None:
        return OverlayView(**about, error=deleted(stored.purged_at))
    try:
        segmentation = read_segmentation(context.files.absolute(stored.path))
    except PixelError as error:
        return OverlayView(**about, error=str(error))
    by_source = segmentation.frames_by_source(positions)
    return OverlayView(
        **about,
        rows=segmentation.rows,
        columns=segmentation.columns,
        segments=tuple(
            SegmentView(number=s.number, label=s.label, rgb=s.rgb) for s in segmentation.segments
        ),
        images=tuple(
            OverlayImage(
                sop_instance_uid=source.sop_instance_uid,
                frame=source.number,
                segments=tuple(sorted({number for f in frames for number in f.outlines})),
            )
            for source, frames in by_source.items()
        ),
    )
