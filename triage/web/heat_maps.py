"""Heat maps over the images: what a model gives for each pixel, for the viewer to colour."""

from __future__ import annotations

from fastapi import APIRouter, Depends, HTTPException, Response
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.permissions import Permission
from triage.store.tables import InstanceRow, SeriesRow, StudyRow
from triage.web.access import may
from triage.web.context import Context, FrameNumber, Uid, WebContext
from triage.web.images import IfNoneMatch
from triage.web.overlaid import (
    StoredOverlay,
    caching,
    deleted,
    image_positions,
    in_decoders,
    require_file,
    stored_overlays,
)
from triage.web.parametric_maps import (
    PARAMETRIC_MAP_SOP_CLASS_UIDS,
    MapFrame,
    ParametricMap,
    read_map,
)
from triage.web.pictured_maps import (
    HEAT_MAP_ROLE,
    SECONDARY_CAPTURE_SOP_CLASS_UIDS,
    PicturedMap,
    laid_on,
    read_picture,
)
from triage.web.pixels import PixelError
from triage.web.placing import Position, SourceFrame

router = APIRouter(tags=["images"], dependencies=[Depends(may(Permission.SEE_PATIENTS))])

HeatMap = ParametricMap | PicturedMap


class MapImage(BaseModel):
    """A source image that the map says something of."""

    sop_instance_uid: str
    frame: int


class MapView(BaseModel):
    """A heat map as the viewer lays it over the source images.

    `low` and `high` are the values at the ends of the colour scale. It has the pixels of the image,
    or else `covers_image`: then it is stretched over all of it.
    """

    map_uid: str
    series_instance_uid: str
    model: str
    notice: str
    label: str = ""
    rows: int = 0
    columns: int = 0
    low: float = 0.0
    high: float = 1.0
    covers_image: bool = False
    images: tuple[MapImage, ...] = ()
    error: str = ""


@router.get("/studies/{study_instance_uid}/heat-maps")
async def heat_maps(study_instance_uid: Uid, context: Context) -> list[MapView]:
    """List the heat maps of the study's images: parametric maps, and what pictures show of one."""

    def look() -> list[MapView]:
        with context.database.reading() as session:
            stored = _stored_maps(session, study_instance_uid)
            positions = image_positions(session, study_instance_uid) if stored else {}
        views = [_map_view(context, study_instance_uid, one, positions) for one in stored]
        return [view for view in views if view is not None]

    return await in_decoders(context, look)


@router.get(
    "/studies/{study_instance_uid}/heat-maps/{map_uid}/images/{sop_instance_uid}/frames/{number}",
    response_class=Response,
)
async def heat_map_strengths(
    *,
    study_instance_uid: Uid,
    map_uid: Uid,
    sop_instance_uid: Uid,
    number: FrameNumber,
    context: Context,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Give the map on one image, a byte for each pixel: 0 for its low end, 255 for its high one."""

    def look() -> tuple[StoredOverlay, HeatMap, MapFrame] | None:
        with context.database.reading() as session:
            stored = _stored_maps(session, study_instance_uid)
            positions = image_positions(session, study_instance_uid)
        for one in stored:
            if one.sop_instance_uid == map_uid:
                require_file(one.purged_at)
                found = _read(context, study_instance_uid, one)
                if found is None:
                    return None
                by_source = found.frames_by_source(positions)
                frame = by_source.get(SourceFrame(sop_instance_uid, number))
                return (one, found, frame) if frame is not None else None
        return None

    found = await in_decoders(context, look)
    if found is None:
        raise HTTPException(404, "Triage holds no such heat map of this image")
    stored, heat_map, frame = found
    tag = f'"{stored.sha256[:32]}-{frame.index}"'
    if if_none_match == tag:
        return Response(status_code=304, headers=caching(tag))
    values = await in_decoders(context, lambda: heat_map.strengths(frame))
    return Response(
        values.tobytes(),
        media_type="application/octet-stream",
        headers={
            **caching(tag),
            "X-Image-Rows": str(heat_map.rows),
            "X-Image-Columns": str(heat_map.columns),
        },
    )


def _stored_maps(session: Session, study_uid: str) -> list[StoredOverlay]:
    """Return the parametric maps, and the pictures of those models that left none."""
    maps = stored_overlays(session, study_uid, PARAMETRIC_MAP_SOP_CLASS_UIDS)
    with_maps = {one.model for one in maps}
    pictures = stored_overlays(session, study_uid, SECONDARY_CAPTURE_SOP_CLASS_UIDS, HEAT_MAP_ROLE)
    # What is gone cannot be asked whether it was a heat map or an outline: it is left out.
    kept = [one for one in pictures if one.purged_at is None and one.model not in with_maps]
    return [*maps, *kept]


def _read(context: WebContext, study_uid: str, stored: StoredOverlay) -> HeatMap | None:
    """Return the heat map in a stored object, None where it is a picture that shows none.

    Raises:
        PixelError: it, or the image that it is a picture of, cannot be read.
    """
    path = context.files.absolute(stored.path)
    if stored.sop_class_uid in PARAMETRIC_MAP_SOP_CLASS_UIDS:
        return read_map(path)
    picture = read_picture(path)
    if picture is None:
        return None
    with context.database.reading() as session:
        source = session.scalar(
            select(InstanceRow.path)
            .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
            .join(StudyRow, StudyRow.id == SeriesRow.study_id)
            .where(
                StudyRow.study_instance_uid == study_uid,
                InstanceRow.sop_instance_uid == picture.source.sop_instance_uid,
                InstanceRow.conflicts_with.is_(None),
                InstanceRow.purged_at.is_(None),
            )
        )
    return laid_on(picture, context.files.absolute(source)) if source is not None else None


def _map_view(
    context: WebContext, study_uid: str, stored: StoredOverlay, positions: dict[str, Position]
) -> MapView | None:
    about = {
        "map_uid": stored.sop_instance_uid,
        "series_instance_uid": stored.series_instance_uid,
        "model": stored.model,
        "notice": stored.notice,
    }
    if stored.purged_at is not None:
        return MapView(**about, error=deleted(stored.purged_at))
    try:
        found = _read(context, study_uid, stored)
    except PixelError as error:
        return MapView(**about, error=str(error))
    if found is None:
        return None
    return MapView(
        **about,
        label=found.label,
        rows=found.rows,
        columns=found.columns,
        low=found.low,
        high=found.high,
        covers_image=found.covers_image,
        images=tuple(
            MapImage(sop_instance_uid=source.sop_instance_uid, frame=source.number)
            for source in found.frames_by_source(positions)
        ),
    )
