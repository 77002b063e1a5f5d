"""WADO-RS: frames and other bulk data (DICOM PS3.18 10.4.1.1.5, 10.4.1.1.6)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from fastapi import APIRouter, HTTPException, Request, Response
from pydicom.pixels.utils import pixel_array

from triage.decoding.errors import DecodingError
from triage.decoding.files import check_frame
from triage.decoding.pixel_data import (
    StoredHeader,
    element_at,
    native_syntax,
    pieces,
    read_header,
    stored_frame,
)
from triage.store.holdings import Holding
from triage.web.context import Context, Uid, WebContext
from triage.web.dicomweb.accept import EXPLICIT, OCTETS, Wanted, accepted, wanted_frames
from triage.web.dicomweb.access import held, in_decoders, root_of
from triage.web.dicomweb.answers import (
    IMMUTABLE,
    AnswerPart,
    byte_range,
    bytes_of,
    multipart,
    not_modified,
    tag_of,
)
from triage.web.dicomweb.instances import address_of

router = APIRouter(
    prefix="/studies/{study}/series/{series}/instances/{instance}", include_in_schema=False
)
T = TypeVar("T")

_FRAMES = re.compile(r"[1-9][0-9]{0,6}(,[1-9][0-9]{0,6})*", re.ASCII)
_PATH = re.compile(r"[0-9A-Fa-f]{8}(/[1-9][0-9]{0,5}/[0-9A-Fa-f]{8}){0,16}", re.ASCII)
_MOST_FRAMES = 100_000


@dataclass(frozen=True, slots=True)
class _Value:
    """The value of an element: how long it is, and how to get so many bytes from a place on."""

    size: int
    content: Callable[[int, int], Iterable[bytes]]


@router.get("/frames/{frames}")
async def retrieve_frames(
    *, request: Request, context: Context, study: Uid, series: Uid, instance: Uid, frames: str
) -> Response:
    """Give frames of an image, each a part, or one by itself."""
    numbers = frame_numbers(frames)
    [found] = await held(context, study, series, instance)
    header = await header_of(context, found)
    if numbers[-1] > header.number_of_frames or max(numbers) > header.number_of_frames:
        raise HTTPException(404, f"the image has {header.number_of_frames} frames")
    stored = str(native_syntax(header))
    wanted = wanted_frames(request, stored, may_be_single=len(numbers) == 1)
    syntax = wanted.syntax_of(stored)
    assert syntax is not None
    tag = tag_of(found.sha256, frames, syntax, wanted.media_type)
    answer = not_modified(request, tag, IMMUTABLE)
    if answer is not None:
        return answer
    headers = {"ETag": tag, "Cache-Control": IMMUTABLE, "Vary": "Accept"}
    kind = f"{wanted.media_type}; transfer-syntax={syntax}"
    # The first is read before anything is said, so that what cannot be given gets its status.
    first = await _read(context, lambda: _frame(header, numbers[0] - 1, syntax))
    if not wanted.is_multipart:
        return Response(first, headers=headers, media_type=kind)
    address = f"{address_of(root_of(request), found)}/frames"

    def parts() -> Iterator[AnswerPart]:
        for position, number in enumerate(numbers):
            content = first if position == 0 else _frame(header, number - 1, syntax)
            yield AnswerPart(kind, f"{address}/{number}", [content])

    return multipart(parts(), wanted.media_type, 200, headers)


def frame_numbers(said: str) -> list[int]:
    """Return the frames of a list such as `1,2,5`, from 1 on.

    Raises:
        HTTPException: 400.
    """
    if not _FRAMES.fullmatch(said):
        raise HTTPException(400, "the list of frames is not numbers from 1 on with commas between")
    numbers = [int(one) for one in said.split(",")]
    if len(numbers) > _MOST_FRAMES:
        raise HTTPException(400, f"more than {_MOST_FRAMES} frames are asked for")
    return numbers


async def header_of(context: WebContext, one: Holding) -> StoredHeader:
    """Return the header of a stored image.

    Raises:
        HTTPException: 404 where it has no pixels, 410 where its file is gone, 500 where it is
            damaged.
    """
    path = context.files.absolute(one.path)
    header = await _read(context, lambda: read_header(path), otherwise=500)
    if not header.has_pixels:
        raise HTTPException(404, "the instance has no pixels, so it has no frames")
    return header


async def _read(context: WebContext, work: Callable[[], T], *, otherwise: int = 406) -> T:
    try:
        return await in_decoders(context, work)
    except DecodingError as error:
        raise HTTPException(otherwise, f"the stored instance cannot be read: {error}") from error
    except OSError as error:
        raise HTTPException(410, "its file is gone") from error


def _frame(header: StoredHeader, index: int, syntax: str) -> bytes:
    stored = native_syntax(header)
    if syntax == stored:
        return stored_frame(header, index)
    return _decoded_frame(header, index)


def _decoded_frame(header: StoredHeader, index: int) -> bytes:
    """Return a compressed frame as uncompressed pixels, colours as RGB by pixel.

    Raises:
        DecodingError: it cannot be decoded.
    """
    try:
        with header.path.open("rb") as file:
            file.seek(header.pixels.at if header.pixels else 0)
            check_frame(header.dataset, file, index)
        pixels = pixel_array(header.path, index=index)
    except DecodingError:
        raise
    except Exception as error:  # whatever a codec raises
        raise DecodingError(f"no decoder makes sense of it ({type(error).__name__})") from error
    return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()


@router.get("/bulkdata/{path:path}")
async def retrieve_bulk_data(
    *, request: Request, context: Context, study: Uid, series: Uid, instance: Uid, path: str
) -> Response:
    """Give the value of one element, or a range of its bytes."""
    if not _PATH.fullmatch(path):
        raise HTTPException(400, "the path is not of tags and item numbers")
    [found] = await held(context, study, series, instance)
    file = context.files.absolute(found.path)
    header = await _read(context, lambda: read_header(file), otherwise=500)
    tag = tag_of(found.sha256, path.upper())
    answer = not_modified(request, tag, IMMUTABLE)
    if answer is not None:
        return answer
    headers = {"ETag": tag, "Cache-Control": IMMUTABLE, "Vary": "Accept"}
    address = f"{address_of(root_of(request), found)}/bulkdata/{path}"
    pixels = header.pixels
    if pixels is None or path.upper() != f"{pixels.tag:08X}":
        value = _value_of(header, path)
        return _octets(
            request, _Value(len(value), lambda s, n: [value[s : s + n]]), address, headers
        )
    if pixels.length is None:
        return _all_frames(request, header, address, headers)
    at = pixels.at
    stored = _Value(pixels.length, lambda start, length: pieces(file, at + start, length))
    return _octets(request, stored, address, headers)


def _value_of(header: StoredHeader, path: str) -> bytes:
    try:
        element = element_at(header.dataset, _steps(path))
        value = element.value
    except Exception as error:  # a malformed value raises what it likes
        raise HTTPException(404, "the instance has no such element") from error
    if not isinstance(value, bytes):
        raise HTTPException(404, "the element is no bulk data: its value is in the metadata")
    return value


def _steps(path: str) -> list[int]:
    steps = path.split("/")
    return [int(one, 10 if position % 2 else 16) for position, one in enumerate(steps)]


def _octets(request: Request, value: _Value, address: str, headers: dict[str, str]) -> Response:
    wanted = wanted_frames(request, EXPLICIT, may_be_single=True)
    if _prefers_multipart(request, wanted):
        part = AnswerPart(OCTETS, address, value.content(0, value.size))
        return multipart([part], OCTETS, 200, headers)
    cut = byte_range(request, value.size, headers["ETag"])
    content = value.content(*(cut or (0, value.size)))
    return bytes_of(content, media_type=OCTETS, size=value.size, part=cut, headers=headers)


def _prefers_multipart(request: Request, wanted: Wanted) -> bool:
    # Who takes anything gets a single part, which has ranges and needs no parser.
    return wanted.is_multipart and all(one.name != "*/*" for one in accepted(request)[:1])


def _all_frames(
    request: Request, header: StoredHeader, address: str, headers: dict[str, str]
) -> Response:
    """Give compressed pixel data: a part for each frame, as it is stored (PS3.18 8.7.3.3)."""
    stored = str(native_syntax(header))
    wanted = wanted_frames(request, stored, may_be_single=False)
    syntax = wanted.syntax_of(stored) or stored
    kind = f"{wanted.media_type}; transfer-syntax={syntax}"
    parts = (
        AnswerPart(kind, address, [_frame(header, index, syntax)])
        for index in range(header.number_of_frames)
    )
    return multipart(parts, wanted.media_type, 200, headers)
