"""Which requests the audit trail keeps, and what it says of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from triage.core.audit import Action, AuditEvent, AuditKind, Outcome
from triage.core.permissions import Permission
from triage.web.callers import Access, access_of, address_of
from triage.web.trail import Trail, new_uid

_ACTIONS: Mapping[str, Action] = {"POST": "C", "PUT": "U", "PATCH": "U", "DELETE": "D"}
_NAMES_PATIENTS = frozenset({Permission.SEE_PATIENTS, Permission.SEE_OPERATIONS})
_OF_PATIENTS = frozenset(
    {
        Permission.SEE_PATIENTS,
        Permission.CHANGE_WORKLIST,
        Permission.ANSWER_FINDINGS,
        Permission.OPERATE,
    }
)


class AuditedRequests:
    """Records each request that is about a patient, changes something, or was refused."""

    def __init__(self, app: ASGIApp, trail: Trail) -> None:
        self.app = app
        self._trail = trail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; its event is kept before the first byte of the answer leaves."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        access_of(connection)  # before the routes, which may copy the scope

        async def send_recorded(message: Message) -> None:
            status = _status_of(message)
            if status is not None:
                self._record(connection, status)
            await send(message)

        await self.app(scope, receive, send_recorded)

    def _record(self, connection: HTTPConnection, status: int) -> None:
        event = event_of(connection, status, self._trail.now())
        if event is None:
            return
        if event.action == "R" and event.outcome is Outcome.SUCCESS:
            self._trail.record_access(event)
        else:
            self._trail.record(event)


def _status_of(message: Message) -> int | None:
    if message["type"] == "http.response.start":
        return int(message["status"])
    if message["type"] == "websocket.accept":
        return 101
    return 403 if message["type"] == "websocket.close" else None


def event_of(connection: HTTPConnection, status: int, now: datetime) -> AuditEvent | None:
    """Return the event of a request, None for what no audit trail needs.

    Refusals of permission are `Security Alert` with the restricted function that was tried
    (DICOM PS3.15 A.5.3.11); who is not logged in and is sent to do so is nobody yet.
    """
    access = access_of(connection)
    is_nobody = access.is_refused and status in (303, 401)
    is_silent = not access.is_audited and not access.is_refused
    if access.permission is None or is_nobody or is_silent:
        return None
    kind = AuditKind.SECURITY_ALERT if access.is_refused else _kind_of(connection, access)
    if kind is None:
        return None
    caller = access.caller
    study = access.study_instance_uid
    studies = tuple(uid for uid in dict.fromkeys(access.studies) if uid != study)
    if not study and len(studies) == 1:
        study, studies = studies[0], ()
    detail = access.detail
    if kind in (AuditKind.QUERY, AuditKind.AUDIT_LOG_USED) and not detail:
        detail = connection.url.query
    return AuditEvent(
        uid=new_uid(),
        at=now,
        kind=kind,
        type=access.type,
        action=_action_of(connection, access),
        outcome=_outcome_of(status),
        who=caller.name if caller else "",
        way=caller.way if caller else "",
        address=address_of(connection),
        study_instance_uid=study,
        studies=studies,
        detail=detail,
    )


def _action_of(connection: HTTPConnection, access: Access) -> Action:
    if access.is_refused:
        return "E"
    return "R" if _only_reads(connection, access) else _ACTIONS.get(_method(connection), "R")


def _only_reads(connection: HTTPConnection, access: Access) -> bool:
    # An open list is followed by POST, because what is searched for belongs in no address.
    return access.is_background or _method(connection) in ("GET", "HEAD")


def _method(connection: HTTPConnection) -> str:
    return str(connection.scope.get("method", "GET"))


def _kind_of(connection: HTTPConnection, access: Access) -> AuditKind | None:
    if access.kind is not None:
        return access.kind
    if access.permission is Permission.READ_AUDIT:
        return AuditKind.AUDIT_LOG_USED
    if not _only_reads(connection, access):
        is_of_patients = access.permission in _OF_PATIENTS
        return AuditKind.INSTANCES_ACCESSED if is_of_patients else AuditKind.SECURITY_ALERT
    if access.permission not in _NAMES_PATIENTS:
        return None
    return AuditKind.INSTANCES_ACCESSED if access.study_instance_uid else AuditKind.QUERY


def _outcome_of(status: int) -> Outcome:
    if status < 400:
        return Outcome.SUCCESS
    return Outcome.MINOR_FAILURE if status < 500 else Outcome.SERIOUS_FAILURE
