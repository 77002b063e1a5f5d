"""Who may read, and what is read: the ways into every route of DICOMweb."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Depends, HTTPException, Request

from triage.core.permissions import Permission
from triage.core.withdrawals import BARRED_REASONS
from triage.store.holdings import Holding, holdings
from triage.web.access import may
from triage.web.callers import Way, caller_of
from triage.web.context import Context, WebContext

T = TypeVar("T")


def require_enabled(context: Context) -> None:
    """Refuse everything where DICOMweb is switched off.

    Raises:
        HTTPException: 404.
    """
    if not context.settings.dicomweb.enabled:
        raise HTTPException(404, "QIDO-RS and WADO-RS are switched off (dicomweb.enabled)")


def require_authorization(request: Request, context: Context) -> None:
    """Refuse a client without the configured Authorization header.

    Raises:
        HTTPException: 401.
    """
    check_authorization(request, context.settings.dicomweb_authorization)


def check_authorization(request: Request, wanted: str) -> None:
    """Refuse a request whose Authorization header is not `wanted`, unless that is empty.

    Raises:
        HTTPException: 401.
    """
    caller = caller_of(request)
    if caller is not None and caller.way is not Way.OPEN:
        return  # who is logged in, or brings a token, was let in by the route's permission
    given = request.headers.get("authorization", "")
    if wanted and not hmac.compare_digest(given.encode(), wanted.encode()):
        scheme = wanted.split(" ", 1)[0]
        raise HTTPException(
            401, "this client is not authorised", headers={"WWW-Authenticate": scheme}
        )


READING: list[Any] = [
    Depends(may(Permission.SEE_PATIENTS, program="dicomweb")),
    Depends(require_enabled),
    Depends(require_authorization),
]
"""What a program needs to read from the address of the pages."""


def root_of(request: Request) -> str:
    """Return the address of our DICOMweb as this client reaches it, without a slash behind."""
    return f"{request.base_url}dicom-web"


async def held(
    context: WebContext, study: str, series: str | None = None, instance: str | None = None
) -> list[Holding]:
    """Return the instances below an address; of those that are purged, too.

    What was rejected is not among them (IHE RAD TF-3 4.66.4.1.3), unless it is named itself and was
    rejected for its quality only: a report names its predecessor.

    Raises:
        HTTPException: 404 where there is none, 410 where retention has deleted them all.
    """

    def look() -> list[Holding]:
        with context.database.reading() as session:
            return holdings(session, study, series, instance)

    found = await in_decoders(context, look)
    what = "instance" if instance else "series" if series else "study"
    if not found:
        raise HTTPException(404, f"Triage holds no such {what}")
    standing = [one for one in found if not _is_hidden(one, is_named=instance is not None)]
    if not standing:
        raise HTTPException(404, f"the {what} was withdrawn; its rejection note says why")
    if all(one.is_purged for one in standing):
        raise HTTPException(410, f"the {what} was deleted after the time for which it is kept")
    return standing


def _is_hidden(one: Holding, *, is_named: bool) -> bool:
    because = one.withdrawn_because
    return because is not None and (not is_named or because in BARRED_REASONS)


async def in_decoders(context: WebContext, work: Callable[[], T]) -> T:
    """Do `work` in the few threads that are for images, so that pages never wait for them."""
    return await asyncio.get_running_loop().run_in_executor(context.decoders, work)
