"""Who is at the browser, as far as Triage knows."""

from __future__ import annotations

from fastapi import HTTPException, Request

from triage.web.context import web_context
from triage.web.refusals import RefusedRequestError

_LONGEST = 128


def person_at(request: Request) -> str:
    """Return the name that the proxy in front gives the person, "" where it gives none.

    Triage has no log-in of its own. Without `web.user_header` a person is the computer they sit at.
    """
    header = web_context(request).settings.web.user_header
    if header:
        name = "".join(c for c in request.headers.get(header, "") if c.isprintable())
        return name.strip()[:_LONGEST]
    return f"reader at {_computer(request)}"


def known_person_at(request: Request) -> str:
    """Return the same, or refuse the request.

    Raises:
        HTTPException: 401, the proxy was to name the person and did not.
    """
    person = person_at(request)
    if not person:
        raise HTTPException(401, "Log in first: the proxy in front of Triage named nobody.")
    return person


def is_named(request: Request) -> bool:
    """Return whether a proxy says who somebody is, so that nobody has to be asked."""
    return bool(web_context(request).settings.web.user_header)


def asking_person(request: Request, said: str) -> str:
    """Return who asks for something: whom the proxy names, or else who they say they are.

    Where neither is known it is the computer. What somebody says of themselves has its address.

    Raises:
        HTTPException: 401, the proxy was to name the person and did not.
    """
    if is_named(request) or not said.strip():
        return known_person_at(request)
    return f"{said.strip()} (from {_computer(request)})"


def deciding_person(request: Request, said: str) -> str:
    """Return the same of somebody who decides: then the computer alone is not enough.

    Raises:
        HTTPException: 401 as above, or 422 where nobody said who they are.
    """
    if not is_named(request) and not said.strip():
        raise RefusedRequestError(422, "who: say who decides this", "who")
    return asking_person(request, said)


def _computer(request: Request) -> str:
    return request.client.host if request.client else "an unknown computer"
