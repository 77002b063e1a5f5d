"""The worklist as JSON: filtered, searched, claimed, and each person's views of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from triage.core.audit import AuditKind
from triage.core.permissions import Permission
from triage.store.claims import (
    Claim,
    ClaimError,
    claim_study,
    claims_on,
    release_study,
    renew_claim,
)
from triage.store.worklist_tables import WorklistViewRow
from triage.store.worklist_views import TooManyViewsError, delete_view, save_view, views_of
from triage.web.access import may
from triage.web.callers import note_studies
from triage.web.context import MOST_OFFSET, UID_PATTERN, Context, Uid, WebContext
from triage.web.people import Person, person_at
from triage.web.refusals import Refusal, RefusedRequestError
from triage.web.security import require_same_origin
from triage.worklist.filters import WorklistFilter, WorklistSearch
from triage.worklist.queue import (
    PAGE_SIZE,
    WorklistEntry,
    count_filtered,
    next_to_read,
    reading_list,
    recently_read,
)
from triage.worklist.reading import UnknownStudyError, locked_study
from triage.worklist.tally import WorklistChoices, WorklistCounts

router = APIRouter(
    prefix="/api/v1", tags=["worklist"], dependencies=[Depends(may(Permission.SEE_PATIENTS))]
)

_SEARCHING = [Depends(may(Permission.SEE_PATIENTS, kind=AuditKind.QUERY))]
SAME_ORIGIN = [Depends(require_same_origin)]
ViewName = Annotated[
    str, Path(min_length=1, max_length=64, pattern=r"^[^/\x00-\x1f]*[^/\s\x00-\x1f][^/\x00-\x1f]*$")
]
_NO_STUDY: dict[int | str, dict[str, Any]] = {
    404: {"model": Refusal, "description": "Triage holds no such study."}
}
_REFUSED_CLAIM: dict[int | str, dict[str, Any]] = {
    **_NO_STUDY,
    409: {"model": Refusal, "description": "Somebody else reads it, or it was read."},
}


class Worklist(BaseModel):
    """A part of the reading list, in reading order.

    `counts` are of the whole list; `matching` is how many studies the filter leaves, counted no
    further than 1000 where a search, a status or a person is asked for.
    """

    generated_at: datetime
    counts: WorklistCounts
    matching: int
    offset: int
    entries: list[WorklistEntry]


class Part(BaseModel):
    """Which part of a list is wanted."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1000)] = PAGE_SIZE
    offset: Annotated[int, Field(ge=0, le=MOST_OFFSET)] = 0


class FilteredPart(WorklistFilter, Part):
    """Which part of the filtered list is wanted, as query parameters: nothing of a patient."""

    def wanted(self) -> WorklistSearch:
        """Return the filter alone."""
        return WorklistSearch.model_validate(self.model_dump(exclude={"limit", "offset"}))


class SearchedPart(WorklistSearch, Part):
    """The same with a search for a patient, as the body of a request."""

    def wanted(self) -> WorklistSearch:
        """Return the filter and the search alone."""
        return WorklistSearch.model_validate(self.model_dump(exclude={"limit", "offset"}))


class SearchedRead(Part):
    """Which of the studies that were read are wanted."""

    text: Annotated[str, Field(max_length=200)] = ""


class ReadStudies(BaseModel):
    """A part of the studies that were read, the newest first."""

    generated_at: datetime
    offset: int
    entries: list[WorklistEntry]


class NextStudy(BaseModel):
    """The study to be read next; empty where none is left."""

    study_instance_uid: str


class ClaimRequest(BaseModel):
    """How a study is claimed.

    Attributes:
        take_over_because: a word on why, where somebody else reads it.
        only_renew: hold a claim that is there; make none.
    """

    model_config = ConfigDict(extra="forbid")

    take_over_because: Annotated[str, Field(max_length=200)] = ""
    only_renew: bool = False


class ClaimView(BaseModel):
    """Who reads a study; `who` is empty where nobody does.

    `until` is None for the performer of the study's workitem: that claim lasts as long as theirs.
    """

    who: str = ""
    is_mine: bool = False
    since: datetime | None = None
    until: datetime | None = None


class View(BaseModel):
    """A saved way of looking at the list; a search for a patient is never part of it."""

    name: str
    filter: WorklistFilter
    is_default: bool


class NewView(BaseModel):
    """The content of a view; `is_default` opens the list with it, instead of another."""

    model_config = ConfigDict(extra="forbid")

    filter: WorklistFilter
    is_default: bool = False


@router.get("/worklist")
def worklist(
    request: Request, context: Context, asked: Annotated[FilteredPart, Query()]
) -> Worklist:
    """Give the studies to be read, most urgent first."""
    return _worklist(request, context, asked.wanted(), asked)


@router.post("/worklist/search", dependencies=_SEARCHING)
def search_worklist(request: Request, context: Context, asked: SearchedPart) -> Worklist:
    """Give those that are searched for; a patient's name or ID comes in the body alone."""
    return _worklist(request, context, asked.wanted(), asked)


def _worklist(
    request: Request, context: WebContext, wanted: WorklistSearch, part: Part
) -> Worklist:
    now, who = context.now(), person_at(request)
    tally = context.board.tally()
    with context.database.reading() as session:
        found = Worklist(
            generated_at=now,
            counts=tally.counts(),
            matching=count_filtered(session, tally, wanted, now, who),
            offset=part.offset,
            entries=reading_list(
                session, now, wanted=wanted, who=who, limit=part.limit, offset=part.offset
            ),
        )
    note_studies(request, [entry.study_instance_uid for entry in found.entries])
    return found


@router.get("/worklist/choices")
def choices(context: Context) -> WorklistChoices:
    """Give what the list can be filtered by: what its studies have, and who reads."""
    return context.board.tally().choices()


@router.get("/worklist/next")
def next_study(
    request: Request,
    context: Context,
    after: Annotated[str, Query(pattern=rf"^$|{UID_PATTERN}", max_length=64)] = "",
) -> NextStudy:
    """Give the study to be read next that nobody else reads, `after` left out."""
    with context.database.reading() as session:
        uid = next_to_read(session, context.now(), who=person_at(request), after=after)
    return NextStudy(study_instance_uid=uid)


@router.post("/worklist/read/search", dependencies=_SEARCHING)
def search_read(request: Request, context: Context, asked: SearchedRead) -> ReadStudies:
    """Give the studies that were read, the newest first, and those that changed since on top."""
    now = context.now()
    with context.database.reading() as session:
        entries = recently_read(
            session,
            now,
            wanted=WorklistSearch(text=asked.text),
            limit=asked.limit,
            offset=asked.offset,
        )
    note_studies(request, [entry.study_instance_uid for entry in entries])
    return ReadStudies(generated_at=now, offset=asked.offset, entries=entries)


@router.get("/studies/{study_instance_uid}/claim", responses=_NO_STUDY)
def claim(request: Request, study_instance_uid: Uid, context: Context) -> ClaimView:
    """Say who reads a study."""
    with _about_claims(context, writes=False) as session:
        study = locked_study(session, study_instance_uid)
        held = claims_on(session, [study.id], context.now()).get(study.id)
    return _claim_view(held, person_at(request))


@router.put(
    "/studies/{study_instance_uid}/claim",
    dependencies=[Depends(may(Permission.CHANGE_WORKLIST)), *SAME_ORIGIN],
    responses=_REFUSED_CLAIM,
)
def put_claim(
    study_instance_uid: Uid, body: ClaimRequest, context: Context, person: Person
) -> ClaimView:
    """Say that one reads a study, renew that, or take it over from somebody else with a word."""
    lease = timedelta(seconds=context.settings.worklist.claim_expires_after_s)
    now = context.now()
    with _about_claims(context) as session:
        study = locked_study(session, study_instance_uid)
        if body.only_renew:
            held = renew_claim(session, study.id, person, now=now, lease=lease)
            if held is None:
                raise RefusedRequestError(409, "you do not read this study", "only_renew")
        else:
            held = claim_study(
                session,
                study,
                person,
                now=now,
                lease=lease,
                take_over_because=body.take_over_because,
            )
    return _claim_view(held, person)


@router.delete(
    "/studies/{study_instance_uid}/claim",
    status_code=204,
    dependencies=[Depends(may(Permission.CHANGE_WORKLIST)), *SAME_ORIGIN],
    responses=_REFUSED_CLAIM,
)
def delete_claim(study_instance_uid: Uid, context: Context, person: Person) -> Response:
    """Say that one does not read a study any more; nothing happens where one did not."""
    with _about_claims(context) as session:
        study = locked_study(session, study_instance_uid)
        release_study(session, study.id, person, context.now())
    return Response(status_code=204)


@router.get("/worklist/views")
def views(context: Context, person: Person) -> list[View]:
    """Give the views that the person has saved."""
    with context.database.reading() as session:
        return [_view(row) for row in views_of(session, person)]


@router.put(
    "/worklist/views/{name}",
    dependencies=SAME_ORIGIN,
    responses={409: {"model": Refusal, "description": "The person keeps too many views."}},
)
def put_view(name: ViewName, body: NewView, context: Context, person: Person) -> View:
    """Save a view under a name; one of the same name is replaced."""
    content = body.filter.model_dump(mode="json")
    try:
        with context.database.transaction() as session:
            row = save_view(session, person, name.strip(), content, is_default=body.is_default)
            return _view(row)
    except TooManyViewsError as error:
        raise RefusedRequestError(409, str(error), "name") from None


@router.delete(
    "/worklist/views/{name}",
    status_code=204,
    dependencies=SAME_ORIGIN,
    responses={404: {"model": Refusal, "description": "The person has no such view."}},
)
def remove_view(name: ViewName, context: Context, person: Person) -> Response:
    """Delete a view."""
    with context.database.transaction() as session:
        if not delete_view(session, person, name.strip()):
            raise RefusedRequestError(404, "you have no view of this name", "name")
    return Response(status_code=204)


@contextmanager
def _about_claims(context: WebContext, *, writes: bool = True) -> Iterator[Session]:
    """Give a session for a claim; what cannot be is refused.

    Raises:
        HTTPException: 404, there is no such study; 409, somebody else reads it, or it was read.
    """
    try:
        with context.database.transaction() if writes else context.database.reading() as session:
            yield session
    except UnknownStudyError:
        raise HTTPException(404, "Triage holds no such study.") from None
    except ClaimError as error:
        raise RefusedRequestError(409, str(error), "take_over_because") from None


def _claim_view(held: Claim | None, person: str) -> ClaimView:
    if held is None:
        return ClaimView()
    is_mine = bool(person) and held.who == person
    return ClaimView(who=held.who, is_mine=is_mine, since=held.since, until=held.until)


def _view(row: WorklistViewRow) -> View:
    kept = WorklistFilter.model_validate(row.content)
    return View(name=row.name, filter=kept, is_default=row.is_default)
