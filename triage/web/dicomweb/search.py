"""QIDO-RS: searches over what Triage holds (DICOM PS3.18 10.6), by the query engine of C-FIND."""

from __future__ import annotations

from itertools import islice

import structlog
from fastapi import APIRouter, HTTPException, Request, Response
from pydicom.dataset import Dataset

from triage.core.query import Level, QueryError
from triage.receiver.query.identifier import match_identifier
from triage.store.query import find
from triage.web.context import Context, Uid, WebContext
from triage.web.dicomweb.accept import DICOM_JSON, require_json
from triage.web.dicomweb.access import root_of
from triage.web.dicomweb.json_model import as_text, elements_as_json
from triage.web.dicomweb.parameters import Search, read_search

log = structlog.get_logger(__name__)

router = APIRouter(include_in_schema=False)


@router.get("/studies")
def search_studies(request: Request, context: Context) -> Response:
    """Search for studies, the newest first."""
    return _search(request, context, Level.STUDY, {})


@router.get("/series")
def search_all_series(request: Request, context: Context) -> Response:
    """Search for series of all studies."""
    return _search(request, context, Level.SERIES, {})


@router.get("/studies/{study}/series")
def search_series(request: Request, context: Context, study: Uid) -> Response:
    """Search for series of a study."""
    return _search(request, context, Level.SERIES, {"StudyInstanceUID": study})


@router.get("/instances")
def search_all_instances(request: Request, context: Context) -> Response:
    """Search for instances of all studies."""
    return _search(request, context, Level.IMAGE, {})


@router.get("/studies/{study}/instances")
def search_instances_of_study(request: Request, context: Context, study: Uid) -> Response:
    """Search for instances of a study."""
    return _search(request, context, Level.IMAGE, {"StudyInstanceUID": study})


@router.get("/studies/{study}/series/{series}/instances")
def search_instances(request: Request, context: Context, study: Uid, series: Uid) -> Response:
    """Search for instances of a series."""
    above = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
    return _search(request, context, Level.IMAGE, above)


def _search(request: Request, context: WebContext, level: Level, above: dict[str, str]) -> Response:
    require_json(request)
    try:
        search = read_search(level, request.query_params.multi_items(), above)
        matches = find(
            context.database,
            search.query,
            skipped=search.offset,
            newest_first=level is Level.STUDY,
        )
        found = [_result(search, one, request, context) for one in islice(matches, search.limit)]
        has_more = next(matches, None) is not None
    except QueryError as error:
        raise HTTPException(400, str(error)) from error
    log.info("QIDO-RS", query_level=str(level), results=len(found))
    answer = Response(as_text(found), media_type=DICOM_JSON)
    for text in _warnings(search, has_more):
        answer.headers.append("Warning", f'299 {root_of(request)} "{text}"')
    return answer


def _result(
    search: Search, match: dict[str, object], request: Request, context: WebContext
) -> dict[str, object]:
    title = context.settings.receiver.ae_title
    result = match_identifier(search.query, match, ae_title=title, asked_in="")
    del result.QueryRetrieveLevel
    result.RetrieveURL = _retrieve_url(root_of(request), result, search.query.level)
    if search.query.level is Level.STUDY:
        result.ReferringPhysicianName = ""  # required, and not in the index
    return elements_as_json(result)


def _retrieve_url(root: str, result: Dataset, level: Level) -> str:
    url = f"{root}/studies/{result.StudyInstanceUID}"
    if level is Level.STUDY:
        return url
    url += f"/series/{result.SeriesInstanceUID}"
    return url if level is Level.SERIES else f"{url}/instances/{result.SOPInstanceUID}"


def _warnings(search: Search, has_more: bool) -> list[str]:
    said = []
    if has_more:
        said.append(
            "There are more results that can be requested: ask again with "
            f"offset={search.offset + search.limit}."
        )
    if search.is_fuzzy:
        said.append(
            "The fuzzymatching parameter is not supported. "
            "Only literal matching has been performed."
        )
    if search.unsupported:
        names = ", ".join(search.unsupported)
        said.append(f"Not supported for matching at this level, and ignored: {names}.")
    return said
