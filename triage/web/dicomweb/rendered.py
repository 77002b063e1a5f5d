"""WADO-RS: pictures of images, and thumbnails (DICOM PS3.18 10.4.1.1.3, 10.4.1.1.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, HTTPException, Request, Response

from triage.core.errors import TriageError
from triage.store.holdings import Holding
from triage.web.context import Context, FrameNumber, Uid, WebContext
from triage.web.dicomweb.accept import accepted
from triage.web.dicomweb.access import held, in_decoders, root_of
from triage.web.dicomweb.answers import IMMUTABLE, REVALIDATED, not_modified, tag_of
from triage.web.dicomweb.presentation import (
    Presentation,
    PresentationError,
    picture,
    read_presentation,
)
from triage.web.pixels import PixelError, read_frame

router = APIRouter(include_in_schema=False)

THUMBNAIL_SIDE = 128
"""Pixels of a thumbnail's longer side, where no viewport is named."""

_PICTURES = ("image/jpeg", "image/png")
_NO_PIXELS = (
    "1.2.840.10008.5.1.4.1.1.88.",  # structured reports, key object selections
    "1.2.840.10008.5.1.4.1.1.11.",  # presentation states
    "1.2.840.10008.5.1.4.1.1.104.",  # encapsulated documents
    "1.2.840.10008.5.1.4.1.1.9.",  # waveforms
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A picture that is asked for: how, as what, and what it may be kept as."""

    how: Presentation
    media_type: str
    caching: str


@router.get("/studies/{study}/series/{series}/instances/{instance}/rendered")
async def rendered_instance(
    request: Request, context: Context, study: Uid, series: Uid, instance: Uid
) -> Response:
    """Give an image as a picture; of a multi-frame image its first frame."""
    return await _rendered(request, context, (study, series, instance), 1)


@router.get("/studies/{study}/series/{series}/instances/{instance}/frames/{number}/rendered")
async def rendered_frame(
    *,
    request: Request,
    context: Context,
    study: Uid,
    series: Uid,
    instance: Uid,
    number: FrameNumber,
) -> Response:
    """Give a frame as a picture."""
    return await _rendered(request, context, (study, series, instance), number)


async def _rendered(
    request: Request, context: WebContext, address: tuple[str, str, str], number: int
) -> Response:
    asked = _Asked(_presentation(request), _picture_type(request), IMMUTABLE)
    [found] = await held(context, *address)
    answer = await _picture(request, context, found, number, asked)
    unsupported = [one for one in ("annotation", "iccprofile") if one in request.query_params]
    if unsupported:
        text = f"Not supported, and ignored: {', '.join(unsupported)}."
        answer.headers["Warning"] = f'299 {root_of(request)} "{text}"'
    return answer


@router.get("/studies/{study}/thumbnail")
async def thumbnail_of_study(request: Request, context: Context, study: Uid) -> Response:
    """Give a small picture of the middle image of the study."""
    return await _thumbnail(request, context, await held(context, study), REVALIDATED)


@router.get("/studies/{study}/series/{series}/thumbnail")
async def thumbnail_of_series(
    request: Request, context: Context, study: Uid, series: Uid
) -> Response:
    """Give a small picture of the middle image of the series."""
    return await _thumbnail(request, context, await held(context, study, series), REVALIDATED)


@router.get("/studies/{study}/series/{series}/instances/{instance}/thumbnail")
async def thumbnail_of_instance(
    request: Request, context: Context, study: Uid, series: Uid, instance: Uid
) -> Response:
    """Give a small picture of an image."""
    found = await held(context, study, series, instance)
    return await _thumbnail(request, context, found, IMMUTABLE)


@router.get("/studies/{study}/series/{series}/instances/{instance}/frames/{number}/thumbnail")
async def thumbnail_of_frame(
    *,
    request: Request,
    context: Context,
    study: Uid,
    series: Uid,
    instance: Uid,
    number: FrameNumber,
) -> Response:
    """Give a small picture of a frame."""
    found = await held(context, study, series, instance)
    return await _thumbnail(request, context, found, IMMUTABLE, number)


async def _thumbnail(
    request: Request,
    context: WebContext,
    found: Sequence[Holding],
    caching: str,
    number: int = 1,
) -> Response:
    how = _presentation(request).within(THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    asked = _Asked(how, _picture_type(request), caching)
    return await _picture(request, context, _representative(found), number, asked)


def _representative(found: Sequence[Holding]) -> Holding:
    """Return the image in the middle of the first series of images.

    Raises:
        HTTPException: 404, there is none.
    """
    images = [
        one
        for one in sorted(found, key=lambda one: one.is_result)
        if not one.is_purged and not one.sop_class_uid.startswith(_NO_PIXELS)
    ]
    if not images:
        raise HTTPException(404, "there is no image to show")
    series = [one for one in images if one.series_instance_uid == images[0].series_instance_uid]
    return series[len(series) // 2]


async def _picture(
    request: Request, context: WebContext, found: Holding, number: int, asked: _Asked
) -> Response:
    tag = tag_of(found.sha256, number, asked.how, asked.media_type)
    answer = not_modified(request, tag, asked.caching)
    if answer is not None:
        return answer
    path = context.files.absolute(found.path)
    if not path.is_file():
        raise HTTPException(410, "its file is gone")

    def render() -> bytes:
        return picture(read_frame(path, number), asked.how, asked.media_type)

    try:
        content = await in_decoders(context, render)
    except PresentationError as error:
        raise HTTPException(400, str(error)) from error
    except PixelError as error:
        raise HTTPException(406, f"no picture can be made of it: {error}") from error
    headers = {"ETag": tag, "Cache-Control": asked.caching, "Vary": "Accept"}
    return Response(content, headers=headers, media_type=asked.media_type)


def _presentation(request: Request) -> Presentation:
    try:
        return read_presentation(request.query_params)
    except TriageError as error:
        raise HTTPException(400, str(error)) from error


def _picture_type(request: Request) -> str:
    for one in accepted(request):
        if one.name in _PICTURES:
            return one.name
        if one.name in ("*/*", "image/*"):
            return _PICTURES[0]
    raise HTTPException(406, f"pictures are given as {' or '.join(_PICTURES)}")
