"""What a route needs: `Depends(may(Permission.…))`, which every route declares.

A test walks all routes and fails where one declares nothing. What is declared also says what the
audit trail keeps of a request, so a new route is audited by the same line.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

from fastapi import HTTPException, WebSocketException
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from triage.core.audit import AuditKind
from triage.core.permissions import Permission, roles_with
from triage.settings import Settings
from triage.web.callers import (
    NOBODY,
    Access,
    Caller,
    access_of,
    as_program,
    caller_of,
    context_of,
    is_open,
)

Section = Literal["stow", "dicomweb", "ups"]
_HEADERS: dict[Section, Callable[[Settings], str]] = {
    "stow": lambda settings: settings.stow.authorization,
    "dicomweb": lambda settings: settings.dicomweb_authorization,
    "ups": lambda settings: settings.ups.authorization,
}
_POLICY_VIOLATION = 1008
BACKGROUND_HEADER = "X-Triage-Request"
"""With the value "background" it marks what an open page asks by itself."""
_STUDY_PARAMETERS = ("study_instance_uid", "study")


class LogInFirstError(HTTPException):
    """Nobody is logged in; a browser is sent to the log-in page."""

    def __init__(self, detail: str) -> None:
        super().__init__(401, detail, headers={"WWW-Authenticate": "Bearer"})


class ChangePasswordFirstError(HTTPException):
    """The person has a password that somebody else gave them; a browser is sent to /account."""

    def __init__(self) -> None:
        super().__init__(403, "Change the password that you were given first, at /account.")


class May:
    """A dependency that lets a request pass whose caller has a permission."""

    def __init__(
        self,
        permission: Permission,
        program: Section | None,
        kind: AuditKind | None,
        *,
        is_background: bool,
        is_audited: bool,
    ) -> None:
        self.permission = permission
        self._program: Section | None = program
        self._kind = kind
        self._is_background = is_background
        self._is_audited = is_audited

    async def __call__(self, connection: HTTPConnection) -> None:
        """Let the request pass.

        Raises:
            HTTPException: 401 where nobody is logged in, 403 where they may not.
            WebSocketException: the same for an event channel, which is not opened.
        """
        access = access_of(connection)
        _describe(connection, access, self.permission, self._kind)
        access.is_audited = self._is_audited
        access.is_background = self._is_background
        try:
            caller = await self._caller(connection)
            self._check(caller)
        except HTTPException as error:
            access.is_refused = True
            access.detail = str(error.detail)
            if connection.scope["type"] == "websocket":
                raise WebSocketException(_POLICY_VIOLATION) from error
            raise
        is_background = self._is_background or (
            connection.headers.get(BACKGROUND_HEADER) == "background"
        )
        if caller.session_id is not None and not is_background:
            context_of(connection).trail.note_session(caller.session_id)

    async def _caller(self, connection: HTTPConnection) -> Caller:
        settings = context_of(connection).settings
        access = access_of(connection)
        if is_open(settings) or access.is_identified:
            caller = caller_of(connection)
        else:
            wanted = _HEADERS[self._program](settings) if self._program else ""
            caller = as_program(connection, wanted, self.permission)
            if caller is None:
                caller = await run_in_threadpool(caller_of, connection)
            access.caller, access.is_identified = caller, True
        if caller is None:
            named = "the proxy in front of Triage named nobody"
            why = named if settings.web.login.mode == "proxy" else "nobody is logged in"
            raise LogInFirstError(f"Log in first: {why}.")
        return caller

    def _check(self, caller: Caller) -> None:
        if self.permission not in caller.permissions:
            raise HTTPException(403, _why_not(caller, self.permission))
        if not caller.may(self.permission):
            raise ChangePasswordFirstError


def require(connection: HTTPConnection, permission: Permission) -> None:
    """Refuse what only shows itself within a request to need one more permission.

    Raises:
        HTTPException: 403.
    """
    caller = caller_of(connection)
    if caller is not None and permission in caller.permissions:
        return
    access_of(connection).is_refused = True
    raise HTTPException(403, _why_not(caller or NOBODY, permission))


def _why_not(caller: Caller, permission: Permission) -> str:
    if caller.token_id is not None:
        return (
            f"{caller.name} may not {permission}: the token lacks that scope, or its owner that "
            "permission; make another token at /account"
        )
    roles = " or ".join(roles_with(permission))
    return (
        f"{caller.name} may not {permission}: that takes the role {roles}; ask an administrator "
        "for it, at /users"
    )


def _describe(
    connection: HTTPConnection, access: Access, permission: Permission, kind: AuditKind | None
) -> None:
    """Note for the audit trail what the request is about.

    Where a route needs several permissions, the last says it.
    """
    access.permission, access.kind = permission, kind
    access.type = f"{connection.scope.get('method', 'GET')} {_shape_of(connection)}"
    for name in _STUDY_PARAMETERS:
        access.study_instance_uid = str(connection.path_params.get(name, "")) or (
            access.study_instance_uid
        )


def _shape_of(connection: HTTPConnection) -> str:
    """Return the path with the names of its parameters in the place of their values."""
    names = {str(value): f"{{{name}}}" for name, value in connection.path_params.items()}
    return "/".join(names.get(part, part) for part in connection.url.path.split("/"))


@lru_cache
def may(
    permission: Permission,
    *,
    program: Section | None = None,
    kind: AuditKind | None = None,
    is_background: bool = False,
    is_audited: bool = True,
) -> Any:
    """Return the dependency of a route that only those may use who have `permission`.

    `program` is the section whose Authorization header lets programs in as well. `kind` is the
    audit event where it does not follow from permission and method. `is_background` marks what an
    open page asks by itself: it keeps no session alive, and only reads, whatever its method. What
    is not `is_audited` says nothing of a patient, whatever permission it takes; a refusal is in the
    trail all the same.
    """
    return May(permission, program, kind, is_background=is_background, is_audited=is_audited)
