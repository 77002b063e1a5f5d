"""Pixels for the viewer: frames of images, and what segmentations outline on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, Header, HTTPException, Response
from pydantic import BaseModel
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from triage.core.permissions import Permission
from triage.core.runs import RunState
from triage.store.tables import AnalysisRunRow, InstanceRow, ResultObjectRow, SeriesRow, StudyRow
from triage.store.withdrawals import is_withdrawn_by_person
from triage.web.access import may
from triage.web.context import Context, FrameNumber, Uid, WebContext
from triage.web.pixels import PixelError, read_frame
from triage.web.segments import (
    Position,
    Segmentation,
    SegmentFrame,
    SourceFrame,
    masks,
    read_segmentation,
)
from triage.worklist.stacks import SEGMENTATION_SOP_CLASS_UIDS

router = APIRouter(tags=["images"], dependencies=[Depends(may(Permission.SEE_PATIENTS))])
T = TypeVar("T")

# An instance's file never changes, and its digest is the tag; private, because it is a patient's.
_CACHE_CONTROL = "private, max-age=3600, immutable"
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


@dataclass(frozen=True, slots=True)
class _StoredSegmentation:
    segmentation_uid: str
    series_instance_uid: str
    path: str
    sha256: str
    model: str
    notice: str
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

    def find() -> _StoredImage | None:
        with context.database.reading() as session:
            return _find_instance(
                session, study_instance_uid, series_instance_uid, sop_instance_uid
            )

    found = await _in_decoders(context, find)
    if found is None:
        raise HTTPException(404, "Triage holds no such image")
    path = found.path
    _require_file(found.purged_at)
    tag = f'"{found.sha256[:32]}-{number}"'
    if if_none_match == tag:
        return Response(status_code=304, headers=_caching(tag))
    decoded = await _in_decoders(context, lambda: read_frame(context.files.absolute(path), number))
    return Response(
        decoded.data,
        media_type="application/octet-stream",
        headers={
            **_caching(tag),
            "X-Image-Rows": str(decoded.rows),
            "X-Image-Columns": str(decoded.columns),
            "X-Image-Samples": str(decoded.samples),
            "X-Image-Kind": decoded.kind,
            "X-Image-Photometric": decoded.photometric,
            "X-Image-Window-Center": f"{decoded.window.center:g}",
            "X-Image-Window-Width": f"{decoded.window.width:g}",
        },
    )


@router.get("/studies/{study_instance_uid}/overlays")
async def overlays(study_instance_uid: Uid, context: Context) -> list[OverlayView]:
    """List what segmentations outline on the study's images."""

    def look() -> list[OverlayView]:
        with context.database.reading() as session:
            stored = _find_segmentations(session, study_instance_uid)
            positions = _positions(session, study_instance_uid) if stored else {}
        return [_overlay_view(context, one, positions) for one in stored]

    return await _in_decoders(context, look)


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

    def look() -> tuple[_StoredSegmentation, Segmentation, list[SegmentFrame]] | None:
        with context.database.reading() as session:
            stored = _find_segmentations(session, study_instance_uid)
            positions = _positions(session, study_instance_uid)
        for one in stored:
            if one.segmentation_uid == segmentation_uid:
                _require_file(one.purged_at)
                segmentation = read_segmentation(context.files.absolute(one.path))
                by_source = segmentation.frames_by_source(positions)
                return one, segmentation, by_source.get(SourceFrame(sop_instance_uid, number), [])
        return None

    found = await _in_decoders(context, look)
    if found is None:
        raise HTTPException(404, "Triage holds no such segmentation")
    stored, segmentation, frames = found
    tag = f'"{stored.sha256[:32]}-{sop_instance_uid}-{number}"'
    if if_none_match == tag:
        return Response(status_code=304, headers=_caching(tag))
    layers = await _in_decoders(context, lambda: masks(segmentation, frames))
    packed = b"".join(np.packbits(mask, bitorder="little").tobytes() for mask in layers.values())
    return Response(
        packed,
        media_type="application/octet-stream",
        headers={
            **_caching(tag),
            "X-Overlay-Segments": ",".join(map(str, layers)),
            "X-Image-Rows": str(segmentation.rows),
            "X-Image-Columns": str(segmentation.columns),
        },
    )


async def _in_decoders(context: WebContext, work: Callable[[], T]) -> T:
    """Do `work` in the few threads that are for images, so that pages never wait for them."""
    try:
        return await asyncio.get_running_loop().run_in_executor(context.decoders, work)
    except PixelError as error:
        raise HTTPException(422, str(error)) from error


def _require_file(purged_at: datetime | None) -> None:
    if purged_at is not None:
        raise HTTPException(410, _deleted(purged_at))


def _deleted(at: datetime) -> str:
    return f"it was deleted on {at:%Y-%m-%d} after the time for which images are kept"


def _caching(tag: str) -> dict[str, str]:
    return {"ETag": tag, "Cache-Control": _CACHE_CONTROL}


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


def _find_segmentations(session: Session, study_uid: str) -> list[_StoredSegmentation]:
    """Return the segmentations that production models left for the study's present images.

    What was superseded or withdrawn is none of them.
    """
    rows = session.execute(
        select(
            InstanceRow,
            SeriesRow.series_instance_uid,
            AnalysisRunRow,
            ResultObjectRow.remote_model,
        )
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .outerjoin(
            ResultObjectRow, ResultObjectRow.sop_instance_uid == InstanceRow.sop_instance_uid
        )
        .outerjoin(AnalysisRunRow, AnalysisRunRow.id == ResultObjectRow.run_id)
        .where(
            StudyRow.study_instance_uid == study_uid,
            SeriesRow.is_result.is_(True),
            InstanceRow.conflicts_with.is_(None),
            InstanceRow.sop_class_uid.in_(SEGMENTATION_SOP_CLASS_UIDS),
        )
        # Made again in another form for some destination, it would be the same overlay once more.
        .where(or_(ResultObjectRow.id.is_(None), ResultObjectRow.variant == ""))
        .where(or_(AnalysisRunRow.id.is_(None), ~is_withdrawn_by_person(AnalysisRunRow.id)))
        .order_by(InstanceRow.id)
    )
    found = []
    for instance, series_uid, run, remote_model in rows:
        if run is not None and (run.state is RunState.SUPERSEDED or not run.stage.counts):
            continue
        found.append(
            _StoredSegmentation(
                segmentation_uid=instance.sop_instance_uid,
                series_instance_uid=series_uid,
                path=instance.path,
                sha256=instance.sha256,
                model=f"{run.model.name} {run.model.version}" if run else remote_model or "",
                notice=str(run.model.manifest.get("notice", "")) if run is not None else "",
                purged_at=instance.purged_at,
            )
        )
    return found


def _positions(session: Session, study_uid: str) -> dict[str, Position]:
    rows = session.execute(
        select(InstanceRow.sop_instance_uid, InstanceRow.headers)
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .where(StudyRow.study_instance_uid == study_uid, SeriesRow.is_result.is_(False))
        .order_by(InstanceRow.id)
    )
    found: dict[str, Position] = {}
    for uid, headers in rows:
        value = headers.get("ImagePositionPatient")
        if isinstance(value, list) and len(value) == 3:
            x, y, z = map(float, value)
            found[uid] = (x, y, z)
    return found


def _overlay_view(
    context: WebContext, stored: _StoredSegmentation, positions: dict[str, Position]
) -> OverlayView:
    about = {
        "segmentation_uid": stored.segmentation_uid,
        "series_instance_uid": stored.series_instance_uid,
        "model": stored.model,
        "notice": stored.notice,
    }
    if stored.purged_at is not None:
        return OverlayView(**about, error=_deleted(stored.purged_at))
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
