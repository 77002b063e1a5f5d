"""Heat maps over the images: what a model gives for each pixel, for the viewer to colour."""

from __future__ import annotations

from fastapi import APIRouter, Depends, HTTPException, Response
from pydantic import BaseModel

from triage.core.permissions import Permission
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
    strengths,
)
from triage.web.pixels import PixelError
from triage.web.placing import Position, SourceFrame

router = APIRouter(tags=["images"], dependencies=[Depends(may(Permission.SEE_PATIENTS))])


class MapImage(BaseModel):
    """A source image that the map says something of."""

    sop_instance_uid: str
    frame: int


class MapView(BaseModel):
    """A parametric map as the viewer lays it over the source images.

    `low` and `high` are the values at the ends of the colour scale.
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
    images: tuple[MapImage, ...] = ()
    error: str = ""


@router.get("/studies/{study_instance_uid}/heat-maps")
async def heat_maps(study_instance_uid: Uid, context: Context) -> list[MapView]:
    """List the parametric maps of the study's images."""

    def look() -> list[MapView]:
        with context.database.reading() as session:
            stored = stored_overlays(session, study_instance_uid, PARAMETRIC_MAP_SOP_CLASS_UIDS)
            positions = image_positions(session, study_instance_uid) if stored else {}
        return [_map_view(context, one, positions) for one in stored]

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

    def look() -> tuple[StoredOverlay, ParametricMap, MapFrame] | None:
        with context.database.reading() as session:
            stored = stored_overlays(session, study_instance_uid, PARAMETRIC_MAP_SOP_CLASS_UIDS)
            positions = image_positions(session, study_instance_uid)
        for one in stored:
            if one.sop_instance_uid == map_uid:
                require_file(one.purged_at)
                found = read_map(context.files.absolute(one.path))
                by_source = found.frames_by_source(positions)
                frame = by_source.get(SourceFrame(sop_instance_uid, number))
                return (one, found, frame) if frame is not None else None
        return None

    found = await in_decoders(context, look)
    if found is None:
        raise HTTPException(404, "Triage holds no such heat map of this image")
    stored, parametric_map, frame = found
    tag = f'"{stored.sha256[:32]}-{frame.index}"'
    if if_none_match == tag:
        return Response(status_code=304, headers=caching(tag))
    values = await in_decoders(context, lambda: strengths(parametric_map, frame))
    return Response(
        values.tobytes(),
        media_type="application/octet-stream",
        headers={
            **caching(tag),
            "X-Image-Rows": str(parametric_map.rows),
            "X-Image-Columns": str(parametric_map.columns),
        },
    )


def _map_view(
    context: WebContext, stored: StoredOverlay, positions: dict[str, Position]
) -> MapView:
    about = {
        "map_uid": stored.sop_instance_uid,
        "series_instance_uid": stored.series_instance_uid,
        "model": stored.model,
        "notice": stored.notice,
    }
    if stored.purged_at is not None:
        return MapView(**about, error=deleted(stored.purged_at))
    try:
        found = read_map(context.files.absolute(stored.path))
    except PixelError as error:
        return MapView(**about, error=str(error))
    return MapView(
        **about,
        label=found.label,
        rows=found.rows,
        columns=found.columns,
        low=found.low,
        high=found.high,
        images=tuple(
            MapImage(sop_instance_uid=source.sop_instance_uid, frame=source.number)
            for source in found.frames_by_source(positions)
        ),
    )
