"""Who is at the browser, as far as Triage knows."""

from __future__ import annotations

from fastapi import HTTPException, Request

from triage.web.context import web_context

_LONGEST = 128


def person_at(request: Request) -> str:
    """Return the name that the proxy in front gives the person, "" where it gives none.

    Triage has no log-in of its own. Without `web.user_header` a person is the computer they sit at.
    """
    header = web_context(request).settings.web.user_header
    if header:
        name = "".join(c for c in request.headers.get(header, "") if c.isprintable())
        return name.strip()[:_LONGEST]
    return f"reader at {request.client.host if request.client else 'an unknown computer'}"


def known_person_at(request: Request) -> str:
    """Return the same, or refuse the request.

    Raises:
        HTTPException: 401, the proxy was to name the person and did not.
    """
    person = person_at(request)
    if not person:
        raise HTTPException(401, "Log in first: the proxy in front of Triage named nobody.")
    return person
