"""Who is at the browser, as far as Triage knows."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Request

from triage.web.callers import address_of, caller_of
from triage.web.context import web_context
from triage.web.refusals import RefusedRequestError


def person_at(request: Request) -> str:
    """Return the name of the person who is logged in, "" where nobody is.

    Where nobody logs in, a person is whom the proxy in front names (`web.user_header`), or the
    computer they sit at.
    """
    caller = caller_of(request)
    return caller.name if caller else ""


def known_person_at(request: Request) -> str:
    """Return the same, or refuse the request.

    Raises:
        HTTPException: 401, the proxy was to name the person and did not, or nobody is logged in.
    """
    person = person_at(request)
    if not person:
        raise HTTPException(401, "Log in first: the proxy in front of Triage named nobody.")
    return person


Person = Annotated[str, Depends(known_person_at)]
"""The name of who asks, for a route that nobody unknown may use."""


def is_named(request: Request) -> bool:
    """Return whether it is known who somebody is, so that nobody has to be asked."""
    return web_context(request).settings.names_people


def asking_person(request: Request, said: str) -> str:
    """Return who asks for something: who is logged in, or else who they say they are.

    Where neither is known it is the computer. What somebody says of themselves has its address.

    Raises:
        HTTPException: 401, the proxy was to name the person and did not.
    """
    if is_named(request) or not said.strip():
        return known_person_at(request)
    return f"{said.strip()} (from {address_of(request) or 'an unknown computer'})"


def deciding_person(request: Request, said: str) -> str:
    """Return the same of somebody who decides: then the computer alone is not enough.

    Raises:
        HTTPException: 401 as above, or 422 where nobody said who they are.
    """
    if not is_named(request) and not said.strip():
        raise RefusedRequestError(422, "who: say who decides this", "who")
    return asking_person(request, said)
