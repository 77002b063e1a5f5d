"""UPS-RS: the reading worklist over HTTP (DICOM PS3.18 section 11)."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from starlette.requests import HTTPConnection

from triage.core.dicom_json import Attributes, text_of
from triage.core.permissions import Permission
from triage.core.query import QueryError
from triage.core.workitem_attributes import (
    INPUT_INFORMATION,
    RETURNED_BY_DEFAULT,
    SOP_INSTANCE_UID,
    STATE,
    TRANSACTION_UID,
)
from triage.core.workitems import (
    FILTERED_SUBSCRIPTION,
    MEANINGS,
    StepState,
    UpsStatus,
    WorkitemError,
)
from triage.receiver.headers import is_valid_uid
from triage.receiver.ups.datasets import from_json
from triage.store.study_workitems import new_uid
from triage.store.workitem_events import Subscriber
from triage.store.workitem_subscriptions import (
    WELL_KNOWN,
    subscribe,
    subscribe_globally,
    suspend,
    unsubscribe,
)
from triage.store.workitem_tables import Channel
from triage.store.workitem_views import Presentation
from triage.store.workitems import (
    change_state,
    create_workitem,
    find_workitems,
    read_workitem,
    request_cancel,
    update_workitem,
)
from triage.web.access import may
from triage.web.callers import Way, caller_of
from triage.web.context import Context, Uid, WebContext
from triage.web.security import refuse_other_sites
from triage.web.stow import DICOM_JSON, require_readable_answer
from triage.web.ups_query import keys_of, parse_filter, search_of

log = structlog.get_logger(__name__)

REQUESTER = "UPS-RS"
_LONGEST_BODY = 1024 * 1024
_HTTP_STATUSES = {
    UpsStatus.UNKNOWN_INSTANCE: 404,
    UpsStatus.DUPLICATE_INSTANCE: 409,
    UpsStatus.RESOURCE_LIMITATION: 413,
    UpsStatus.MAY_NO_LONGER_BE_UPDATED: 409,
    UpsStatus.WRONG_TRANSACTION_UID: 409,
    UpsStatus.ALREADY_IN_PROGRESS: 409,
    UpsStatus.FINAL_STATE_NOT_MET: 409,
    UpsStatus.NOT_IN_PROGRESS: 409,
    UpsStatus.IS_COMPLETED: 409,
    UpsStatus.PERFORMER_OUT_OF_REACH: 409,
}
"""What a failure is over HTTP (tables 11.4.3-1 to 11.12.3-1); every other is a bad request."""
_WARNINGS = {
    UpsStatus.CREATED_WITH_MODIFICATIONS: "The Workitem was created with modifications.",
    UpsStatus.COERCED: "The Workitem was updated with modifications.",
    UpsStatus.ALREADY_CANCELED: "The UPS is already in the requested state of CANCELED.",
    UpsStatus.ALREADY_COMPLETED: "The UPS is already in the requested state of COMPLETED.",
}


def require_enabled(request: Request, context: Context) -> None:
    """Refuse everything while UPS-RS is off, and a client without the Authorization header.

    Raises:
        HTTPException: 404, 401.
    """
    if not context.settings.ups.enabled:
        raise HTTPException(404, "UPS-RS is switched off (ups.enabled)")
    if not is_authorized(request, context):
        scheme = context.settings.ups.authorization.split(" ", 1)[0]
        raise HTTPException(
            401, "this client is not authorised", headers={"WWW-Authenticate": scheme}
        )


def is_authorized(connection: HTTPConnection, context: WebContext) -> bool:
    """Return whether somebody is logged in, or has the configured Authorization header."""
    caller = caller_of(connection)
    if caller is not None and caller.way is not Way.OPEN:
        return True
    wanted = context.settings.ups.authorization
    given = connection.headers.get("authorization", "")
    return not wanted or hmac.compare_digest(given.encode(), wanted.encode())


router = APIRouter(
    prefix="/dicom-web",
    include_in_schema=False,
    dependencies=[
        Depends(may(Permission.CHANGE_WORKLIST, program="ups")),
        Depends(refuse_other_sites),
        Depends(require_enabled),
    ],
)


async def attributes_in(request: Request) -> dict[str, Any]:
    """Return the data set of a request's body: a DICOM JSON object, alone or in an array.

    Raises:
        HTTPException: 400, 413, 415.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type not in (DICOM_JSON, "application/json"):
        raise HTTPException(415, f"the body must be {DICOM_JSON}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BODY:
            raise HTTPException(413, "the body is longer than 1 MiB")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if not isinstance(document, dict):
        raise HTTPException(400, "the body must hold one data set")
    with _over_http(request):
        return from_json(document)


async def attributes_if_any(request: Request) -> dict[str, Any]:
    """Return the same, or nothing where the request has no body."""
    return await attributes_in(request) if request.headers.get("content-type") else {}


class SubscriptionTerms(BaseModel):
    """The query parameters of a subscription (11.10.1.3)."""

    deletionlock: bool = False
    filter: list[str] = []


GivenIfAny = Annotated[dict[str, Any], Depends(attributes_if_any)]
Given = Annotated[dict[str, Any], Depends(attributes_in)]
AETitle = Annotated[
    str, Path(pattern=r"^[\x21-\x5b\x5d-\x7e]+( +[\x21-\x5b\x5d-\x7e]+)*$", max_length=16)
]


@router.post("/workitems")
def create(request: Request, context: Context, given: Given) -> Response:
    """Create a workitem (11.4); its UID comes in the address or the data set, or is ours."""
    named = request.query_params.get("workitem") or request.query_params.get(
        "AffectedSOPInstanceUID", text_of(given, SOP_INSTANCE_UID)
    )
    uid = named or new_uid()
    if not is_valid_uid(uid):
        raise HTTPException(400, "the SOP Instance UID of the workitem is not a valid UID")
    with _over_http(request), context.database.transaction() as session:
        status = create_workitem(session, uid, given, now=context.now())
    log.info("workitem created", sop_instance_uid=uid, calling_ae_title=REQUESTER)
    address = f"{_service(request)}/workitems/{uid}"
    headers = {"Location": address, "Content-Location": address, **_warned(request, status)}
    return Response(status_code=201, headers=headers)


@router.get("/workitems", dependencies=[Depends(require_readable_answer)])
def search(request: Request, context: Context) -> Response:
    """Search (11.9): most urgent first, then in the order of their creation."""
    with _over_http(request):
        wanted = search_of(request.query_params.multi_items())
        with context.database.reading() as session:
            matching = find_workitems(
                session,
                wanted.keys,
                Presentation.of(context.settings),
                with_inputs=wanted.includes(INPUT_INFORMATION),
            )
            found, has_more = wanted.page_of(matching)
    if not found:
        return Response(status_code=204)
    headers = {}
    if has_more:
        headers = _warning(request, "There are additional results that can be requested")
    shown = [_selected(attributes, wanted.included) for attributes in found]
    return _json(shown, headers)


@router.get("/workitems/{uid}", dependencies=[Depends(require_readable_answer)])
def retrieve(request: Request, context: Context, uid: Uid) -> Response:
    """Retrieve a workitem (11.5)."""
    presentation = Presentation.of(context.settings)
    with _over_http(request), context.database.reading() as session:
        attributes = read_workitem(session, uid, presentation, with_inputs=True)
    return _json([attributes])


@router.post("/workitems/{uid}")
def update(request: Request, context: Context, uid: Uid, given: Given) -> Response:
    """Set attributes (11.6); the Transaction UID comes in the address or the data set."""
    with _over_http(request), context.database.transaction() as session:
        status = update_workitem(
            session,
            uid,
            given,
            transaction_uid=_transaction_uid(request, given),
            now=context.now(),
        )
    return Response(status_code=200, headers=_warned(request, status))


@router.put("/workitems/{uid}/state")
def change(request: Request, context: Context, uid: Uid, given: Given) -> Response:
    """Claim, complete or cancel (11.7)."""
    try:
        wanted = StepState(text_of(given, STATE))
    except ValueError:
        raise HTTPException(400, "Procedure Step State (0074,1000) is no state") from None
    with _over_http(request), context.database.transaction() as session:
        status = change_state(
            session,
            uid,
            wanted,
            transaction_uid=_transaction_uid(request, given),
            requester=REQUESTER,
            now=context.now(),
        )
    log.info("workitem state", sop_instance_uid=uid, state=str(wanted), status=f"0x{status:04X}")
    return Response(status_code=200, headers=_warned(request, status))


@router.post("/workitems/{uid}/cancelrequest")
def cancel(request: Request, context: Context, uid: Uid, given: GivenIfAny) -> Response:
    """Ask that a workitem be cancelled (11.8); the body with the reason may be left out."""
    with _over_http(request), context.database.transaction() as session:
        status = request_cancel(
            session,
            uid,
            given,
            requester=REQUESTER,
            own_uid=new_uid(),
            now=context.now(),
        )
    return Response(status_code=202, headers=_warned(request, status))


@router.post("/workitems/{uid}/subscribers/{ae_title}")
def subscribe_client(
    request: Request,
    context: Context,
    uid: Uid,
    ae_title: AETitle,
    terms: Annotated[SubscriptionTerms, Query()],
) -> Response:
    """Subscribe to events (11.10), which come over the channel that the answer names."""
    subscriber = Subscriber(ae_title, Channel.WEBSOCKET)
    with _over_http(request), context.database.transaction() as session:
        if uid in WELL_KNOWN:
            is_filtered = uid == FILTERED_SUBSCRIPTION
            subscribe_globally(
                session,
                subscriber,
                deletion_lock=terms.deletionlock,
                filter_keys=keys_of(parse_filter(terms.filter)) if is_filtered else None,
                worklist_label=context.settings.ups.worklist_label,
                now=context.now(),
            )
        else:
            lock = terms.deletionlock
            subscribe(session, subscriber, uid, deletion_lock=lock, now=context.now())
    channel = f"{_service(request)}/subscribers/{ae_title}".replace("http", "ws", 1)
    return Response(status_code=201, headers={"Content-Location": channel})


@router.delete("/workitems/{uid}/subscribers/{ae_title}")
def unsubscribe_client(request: Request, context: Context, uid: Uid, ae_title: AETitle) -> Response:
    """End a subscription (11.11)."""
    with _over_http(request), context.database.transaction() as session:
        unsubscribe(session, ae_title, uid)
    return Response(status_code=200)


@router.post("/workitems/{uid}/subscribers/{ae_title}/suspend")
def suspend_client(request: Request, context: Context, uid: Uid, ae_title: AETitle) -> Response:
    """Subscribe to no further workitems (11.12)."""
    with _over_http(request), context.database.transaction() as session:
        suspend(session, ae_title, uid)
    return Response(status_code=200)


@contextmanager
def _over_http(request: Request) -> Iterator[None]:
    """Turn a refusal into the answer of HTTP."""
    try:
        yield
    except WorkitemError as refusal:
        code = _HTTP_STATUSES.get(refusal.status, 400)
        headers = _warning(request, str(refusal)) if code == 409 else {}
        raise HTTPException(code, str(refusal), headers=headers) from refusal
    except QueryError as error:
        raise HTTPException(400, str(error)) from error
    except IntegrityError as error:  # another request has just created it
        raise HTTPException(409, "there is a UPS of this UID already") from error


def _transaction_uid(request: Request, given: Attributes) -> str:
    for name in ("transaction-uid", "transaction"):
        if request.query_params.get(name):
            return request.query_params[name]
    return text_of(given, TRANSACTION_UID)


def _service(request: Request) -> str:
    return f"{str(request.base_url).rstrip('/')}/dicom-web"


def _warned(request: Request, status: UpsStatus) -> dict[str, str]:
    if status is UpsStatus.SUCCESS:
        return {}
    return _warning(request, _WARNINGS.get(status) or MEANINGS[status])


def _warning(request: Request, text: str) -> dict[str, str]:
    return {"Warning": f"299 {_service(request)}: {text}"}


def _selected(attributes: Attributes, included: frozenset[str] | None) -> dict[str, Any]:
    if included is None:
        return dict(attributes)
    returned = RETURNED_BY_DEFAULT | included
    return {tag: value for tag, value in attributes.items() if tag in returned}


def _json(content: list[Any], headers: dict[str, str] | None = None) -> Response:
    ordered = [dict(sorted(attributes.items())) for attributes in content]
    return Response(json.dumps(ordered, ensure_ascii=False), headers=headers, media_type=DICOM_JSON)
