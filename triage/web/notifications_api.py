"""Notifications as JSON: listed, acknowledged, snoozed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from triage.core.permissions import Permission
from triage.store.notifications import (
    NotificationError,
    UnknownNotificationError,
    acknowledge,
    snooze,
)
from triage.web.access import may
from triage.web.callers import access_of, note_studies
from triage.web.context import MOST_OFFSET, Context, WebContext, web_context
from triage.web.people import Person, is_named, known_person_at
from triage.web.refusals import RefusedRequestError
from triage.web.security import require_same_origin
from triage.worklist.notification_preview import Preview, preview_notifications
from triage.worklist.notifications import (
    PAGE_SIZE,
    Bell,
    Figures,
    NotificationDetail,
    Notifications,
    NotificationView,
    Reader,
    Shown,
    bell_of,
    figures_of,
    find_notification,
    list_notifications,
)

router = APIRouter(
    prefix="/api/v1/notifications",
    tags=["notifications"],
    dependencies=[Depends(may(Permission.SEE_PATIENTS))],
)

Number = Annotated[int, Path(ge=1, le=2**63 - 1)]
Days = Annotated[int, Query(ge=1, le=366)]
SAME_ORIGIN = [Depends(require_same_origin)]
NOBODY_IN_PARTICULAR = Reader(None)
_NOT_FOUND: dict[int | str, dict[str, str]] = {404: {"description": "No such notification"}}
_REFUSED: dict[int | str, dict[str, str]] = {
    **_NOT_FOUND,
    409: {"description": "Taken back or never told; the detail says why"},
}


class AskedList(BaseModel):
    """Which notifications: those of the person at the browser, the open ones, or all."""

    show: Shown = "open"
    limit: Annotated[int, Field(ge=1, le=1000)] = PAGE_SIZE
    offset: Annotated[int, Field(ge=0, le=MOST_OFFSET)] = 0


class Acknowledgement(BaseModel):
    """Who acknowledges, through a program."""

    model_config = ConfigDict(extra="forbid")

    who: Annotated[str, Field(max_length=128)] = ""
    """Where somebody is logged in, that name counts instead."""


class Acknowledged(BaseModel):
    """Who acknowledged first, and when."""

    notification_id: int
    acknowledged_by: str
    acknowledged_at: datetime


class Snooze(BaseModel):
    """How long a person wants to be left in peace; 0 ends it."""

    model_config = ConfigDict(extra="forbid")

    minutes: Annotated[int, Field(ge=0, le=7 * 24 * 60)]
    recipient: Annotated[str, Field(max_length=64)] = ""
    """Whom it is about, where nobody is logged in: a name of `[[notifications.recipients]]`."""


class Snoozed(BaseModel):
    """Until when; STAT and what else `always_at_once` names are told all the same."""

    recipient: str
    until: datetime


@router.get("")
def notifications(
    request: Request, context: Context, asked: Annotated[AskedList, Query()]
) -> Notifications:
    """Give notifications: open ones first, then the newest."""
    with context.database.reading() as session:
        reader = reader_at(request)
        found = list_notifications(
            session, asked.show, reader, offset=asked.offset, limit=asked.limit
        )
    note_shown(request, found.entries)
    return found


@router.get("/bell")
def bell(request: Request, context: Context) -> Bell:
    """Give what waits for the acknowledgement of the person at the browser."""
    with context.database.reading() as session:
        found = bell_of(session, reader_at(request))
    # Every page asks at every change. The patients in the answer stand under the bar, so they are
    # told of like those of any list; an answer without any shows nobody.
    note_shown(request, found.entries)
    access_of(request).is_audited = bool(found.entries)
    return found


@router.get("/figures")
def figures(context: Context, days: Days = 30) -> Figures:
    """Give how long people took, and how many were escalated and suppressed."""
    with context.database.reading() as session:
        return figures_of(session, days=days, now=context.now())


@router.get("/preview")
def preview(context: Context, days: Days = 7) -> Preview:
    """Give what the rules would have told of the last days, for each person and hour."""
    with context.database.reading() as session:
        return preview_notifications(
            session, context.settings.notifications, days=days, now=context.now()
        )


@router.post("/snooze", dependencies=SAME_ORIGIN)
def post_snooze(request: Request, asked: Snooze, context: Context, person: Person) -> Snoozed:
    """Leave a person in peace for a while; what comes meanwhile is in a digest at the end."""
    return snooze_for(request, asked, context, person)


@router.get("/{number}", responses=_NOT_FOUND)
def notification(request: Request, number: Number, context: Context) -> NotificationDetail:
    """Give one with its messages and its time line."""
    return detail_of(request, context, number)


@router.post(
    "/{number}/acknowledge",
    dependencies=[Depends(may(Permission.ANSWER_FINDINGS)), *SAME_ORIGIN],
    responses=_REFUSED,
)
def post_acknowledgement(
    request: Request, number: Number, body: Acknowledgement, context: Context, person: Person
) -> Acknowledged:
    """Acknowledge; once is enough, and the first who does so is named to all who come later."""
    who = person if is_named(request) else body.who.strip() or person
    with changing(context) as session:
        row = acknowledge(session, number, who=who, via="api", now=context.now())
        return Acknowledged(
            notification_id=number,
            acknowledged_by=row.acknowledged_by,
            acknowledged_at=row.acknowledged_at or context.now(),
        )


def reader_at(request: Request) -> Reader:
    """Return who looks: whom the pages know, or, where nobody logs in, nobody in particular.

    A person who is no recipient is told nothing, and so has nothing of their own.
    """
    if not is_named(request):
        return NOBODY_IN_PARTICULAR
    person = known_person_at(request)
    known = web_context(request).settings.notifications.recipient_known_as(person)
    return Reader(known.name if known else "")


def snooze_for(request: Request, asked: Snooze, context: WebContext, person: str) -> Snoozed:
    """Leave the person in peace who asks, or whom a browser without a log-in names.

    Raises:
        RefusedRequestError: 422, that is nobody who is told, or it is too long.
    """
    settings = context.settings.notifications
    known = (
        settings.recipient_known_as(person)
        if is_named(request)
        else settings.recipient(asked.recipient)
    )
    if known is None:
        raise RefusedRequestError(
            422, "recipient: name one of [[notifications.recipients]]", "recipient"
        )
    if asked.minutes * 60 > settings.longest_snooze_s:
        longest = int(settings.longest_snooze_s // 60)
        raise RefusedRequestError(422, f"minutes: at most {longest}", "minutes")
    until = context.now() + timedelta(minutes=asked.minutes)
    with context.database.transaction() as session:
        snooze(session, known.name, until=until, who=person, now=context.now())
    return Snoozed(recipient=known.name, until=until)


def note_shown(request: Request, entries: Iterable[NotificationView]) -> None:
    """Say for the audit trail of which studies the notifications in the answer are."""
    note_studies(request, [entry.study_instance_uid for entry in entries])


def detail_of(request: Request, context: WebContext, number: int) -> NotificationDetail:
    """Return one notification, and note its study for the audit trail.

    Raises:
        HTTPException: 404, there is none of this number.
    """
    with context.database.reading() as session:
        found = find_notification(session, number)
    if found is None:
        raise HTTPException(404, f"There is no notification {number}.")
    note_shown(request, [found])
    return found


@contextmanager
def changing(context: WebContext) -> Iterator[Session]:
    """Give a session for a change; one that cannot be made is refused with 404 or 409."""
    try:
        with context.database.transaction() as session:
            yield session
    except UnknownNotificationError as error:
        raise HTTPException(404, f"{error}.".capitalize()) from None
    except NotificationError as error:
        raise HTTPException(409, f"Nothing was changed: {error}.") from None
