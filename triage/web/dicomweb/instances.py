"""WADO-RS: whole instances (DICOM PS3.18 10.4.1.1.1), streamed from their files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import structlog
from fastapi import APIRouter, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool

from triage.decoding.pixel_data import pieces
from triage.receiver.query.payload import PayloadError, converted_file
from triage.store.holdings import Holding
from triage.web.context import Context, Uid, WebContext
from triage.web.dicomweb.accept import DICOM, Wanted, wanted_instances
from triage.web.dicomweb.access import held, in_decoders, root_of
from triage.web.dicomweb.answers import (
    IMMUTABLE,
    REVALIDATED,
    AnswerPart,
    byte_range,
    bytes_of,
    multipart,
    not_modified,
    tag_of,
)

log = structlog.get_logger(__name__)

router = APIRouter(include_in_schema=False)

LARGEST_CONVERTED_BYTES = 1024 * 1024 * 1024
"""A larger file goes out as it is stored only: to convert it, all of it must be in memory."""


@router.get("/studies/{study}")
async def retrieve_study(request: Request, context: Context, study: Uid) -> Response:
    """Give all instances of a study."""
    return await _several(request, context, await held(context, study))


@router.get("/studies/{study}/series/{series}")
async def retrieve_series(request: Request, context: Context, study: Uid, series: Uid) -> Response:
    """Give all instances of a series."""
    return await _several(request, context, await held(context, study, series))


@router.get("/studies/{study}/series/{series}/instances/{instance}")
async def retrieve_instance(
    request: Request, context: Context, study: Uid, series: Uid, instance: Uid
) -> Response:
    """Give one instance, as a part or by itself."""
    [found] = await held(context, study, series, instance)
    wanted = wanted_instances(request, may_be_single=True)
    syntax = wanted.syntax_of(found.transfer_syntax_uid)
    if syntax is None:
        raise HTTPException(406, f"it is stored in {found.transfer_syntax_uid}: ask for that or *")
    tag = tag_of(found.sha256, syntax)
    answer = not_modified(request, tag, IMMUTABLE)
    if answer is not None:
        return answer
    headers = {"ETag": tag, "Cache-Control": IMMUTABLE, "Vary": "Accept"}
    path = context.files.absolute(found.path)
    if syntax != found.transfer_syntax_uid:
        content = await in_decoders(context, lambda: _converted_or_refused(found, path, syntax))
        size, chunks = len(content), [content]
    else:
        size = await run_in_threadpool(lambda: _size_of(path))
        chunks = []
    kind = f"{DICOM}; transfer-syntax={syntax}"
    if wanted.is_multipart:
        whole = chunks or pieces(path, 0, size)
        part = AnswerPart(kind, _address(request, found), whole)
        return multipart([part], DICOM, 200, headers)
    cut = byte_range(request, size, tag)
    start, length = cut or (0, size)
    body = [chunks[0][start : start + length]] if chunks else pieces(path, start, length)
    return bytes_of(body, media_type=kind, size=size, part=cut, headers=headers)


async def _several(request: Request, context: WebContext, found: Sequence[Holding]) -> Response:
    wanted = wanted_instances(request, may_be_single=False)
    given = [
        one for one in found if not one.is_purged and wanted.syntax_of(one.transfer_syntax_uid)
    ]
    if not given:
        raise HTTPException(406, "none of it can be given in such a transfer syntax: ask for *")
    tag = tag_of(*(one.sha256 for one in given), *sorted(wanted.transfer_syntaxes))
    answer = not_modified(request, tag, REVALIDATED)
    if answer is not None:
        return answer
    headers = {"ETag": tag, "Cache-Control": REVALIDATED, "Vary": "Accept"}
    status = 200 if len(given) == len(found) else 206  # some, not all (table 10.4.4-1)
    return multipart(_parts(request, context, given, wanted), DICOM, status, headers)


def _parts(
    request: Request, context: WebContext, given: Sequence[Holding], wanted: Wanted
) -> Iterator[AnswerPart]:
    for one in given:
        path = context.files.absolute(one.path)
        syntax = wanted.syntax_of(one.transfer_syntax_uid) or one.transfer_syntax_uid
        try:
            if syntax == one.transfer_syntax_uid:
                content: Iterator[bytes] | list[bytes] = pieces(path, 0, path.stat().st_size)
            else:
                content = [_converted(one, path, syntax)]
        except (PayloadError, OSError) as error:
            log.warning(
                "instance left out of a retrieval",
                sop_instance_uid=one.sop_instance_uid,
                reason=type(error).__name__,
            )
            continue
        kind = f"{DICOM}; transfer-syntax={syntax}"
        yield AnswerPart(kind, _address(request, one), content)


def _converted(held_one: Holding, path: Path, syntax: str) -> bytes:
    """Return the file in another transfer syntax.

    Raises:
        PayloadError: it cannot be converted, or it is too large for that.
    """
    if held_one.size_bytes > LARGEST_CONVERTED_BYTES:
        raise PayloadError("it is too large to be converted")
    content = BytesIO()
    converted_file(path, held_one.transfer_syntax_uid, syntax, content)
    return content.getvalue()


def _converted_or_refused(held_one: Holding, path: Path, syntax: str) -> bytes:
    try:
        return _converted(held_one, path, syntax)
    except PayloadError as error:
        raise HTTPException(406, f"{error}: ask for transfer-syntax=*") from error


def _size_of(path: Path) -> int:
    """Return the length of a file that is about to be sent.

    Raises:
        HTTPException: 410, it is gone since it was looked up.
    """
    try:
        return path.stat().st_size
    except OSError as error:
        raise HTTPException(410, "its file is gone") from error


def _address(request: Request, one: Holding) -> str:
    return address_of(root_of(request), one)


def address_of(root: str, one: Holding) -> str:
    """Return where an instance is retrieved."""
    return (
        f"{root}/studies/{one.study_instance_uid}/series/{one.series_instance_uid}"
        f"/instances/{one.sop_instance_uid}"
    )
