"""Who signs a study off when it is marked as read."""

from __future__ import annotations

from fastapi import Request

from triage.web.context import web_context
from triage.web.people import person_at


def signing_person(request: Request) -> str:
    """Return who signs off with "mark as read", "" where that is an act of its own.

    Where the proxy names nobody the study is read all the same, and its answers stay open.
    """
    is_one_act = web_context(request).settings.reading.sign_off_with_read
    return person_at(request) if is_one_act else ""
