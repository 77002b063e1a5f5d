"""WADO-RS: what instances say of themselves, without their pixels (DICOM PS3.18 10.4.1.1.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from triage.decoding.errors import DecodingError
from triage.decoding.pixel_data import PIXEL_DATA_TAGS, read_header
from triage.store.holdings import Holding
from triage.web.context import Context, Uid, WebContext
from triage.web.dicomweb.accept import DICOM_JSON, require_json
from triage.web.dicomweb.access import held, in_decoders, root_of
from triage.web.dicomweb.answers import IMMUTABLE, REVALIDATED, not_modified, tag_of
from triage.web.dicomweb.instances import address_of
from triage.web.dicomweb.json_model import as_text, elements_as_json

log = structlog.get_logger(__name__)

router = APIRouter(include_in_schema=False)


@router.get("/studies/{study}/metadata")
async def metadata_of_study(request: Request, context: Context, study: Uid) -> Response:
    """Give the metadata of all instances of a study."""
    return _several(request, context, await held(context, study))


@router.get("/studies/{study}/series/{series}/metadata")
async def metadata_of_series(
    request: Request, context: Context, study: Uid, series: Uid
) -> Response:
    """Give the metadata of all instances of a series."""
    return _several(request, context, await held(context, study, series))


@router.get("/studies/{study}/series/{series}/instances/{instance}/metadata")
async def metadata_of_instance(
    request: Request, context: Context, study: Uid, series: Uid, instance: Uid
) -> Response:
    """Give the metadata of one instance."""
    require_json(request)
    [found] = await held(context, study, series, instance)
    root = root_of(request)
    tag = tag_of(found.sha256, root)
    answer = not_modified(request, tag, IMMUTABLE)
    if answer is not None:
        return answer
    try:
        said = await in_decoders(context, lambda: _as_text(context, root, found))
    except DecodingError as error:
        raise HTTPException(500, f"the stored instance cannot be read: {error}") from error
    except OSError as error:
        raise HTTPException(410, "its file is gone") from error
    headers = {"ETag": tag, "Cache-Control": IMMUTABLE}
    return Response(f"[{said}]", headers=headers, media_type=DICOM_JSON)


def _several(request: Request, context: WebContext, found: Sequence[Holding]) -> Response:
    require_json(request)
    given = [one for one in found if not one.is_purged]
    root = root_of(request)
    tag = tag_of(root, *(one.sha256 for one in given))
    answer = not_modified(request, tag, REVALIDATED)
    if answer is not None:
        return answer
    status = 200 if len(given) == len(found) else 206  # some, not all (table 10.4.4-1)
    headers = {"ETag": tag, "Cache-Control": REVALIDATED}
    body = _array(context, root, given)
    return StreamingResponse(body, status, headers, media_type=DICOM_JSON)


def _array(context: WebContext, root: str, given: Sequence[Holding]) -> Iterator[str]:
    """Yield a JSON array, an instance at a time; what cannot be read is left out."""
    before = "["
    for one in given:
        try:
            yield before + _as_text(context, root, one)
            before = ","
        except (DecodingError, OSError) as error:
            log.warning(
                "instance left out of metadata",
                sop_instance_uid=one.sop_instance_uid,
                reason=type(error).__name__,
            )
    yield "[]" if before == "[" else "]"


def _as_text(context: WebContext, root: str, one: Holding) -> str:
    """Return the metadata of an instance as a JSON object.

    Raises:
        DecodingError: the file is damaged or hostile.
        OSError: the file is gone.
    """
    header = read_header(context.files.absolute(one.path))
    for tag in PIXEL_DATA_TAGS:
        header.dataset.pop(tag, None)
    bulk_data = f"{address_of(root, one)}/bulkdata"
    said = elements_as_json(header.dataset, lambda path: f"{bulk_data}/{path}")
    said["00083002"] = {"vr": "UI", "Value": [one.transfer_syntax_uid]}
    if header.pixels is not None:
        name = f"{header.pixels.tag:08X}"
        said[name] = {"vr": header.pixels.vr, "BulkDataURI": f"{bulk_data}/{name}"}
    return as_text(dict(sorted(said.items())))
