"""The audit trail, for the auditor: on a page, as a file, and over the API."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, model_validator

from triage.core.audit import AuditKind, Outcome
from triage.core.days import Day
from triage.core.permissions import Permission
from triage.store.audit import AuditEntry, AuditFilter, all_entries, audit_entries
from triage.store.database import Database
from triage.web.access import may
from triage.web.audit_words import words_of
from triage.web.context import Context
from triage.web.rendering import templates

router = APIRouter(tags=["audit"], dependencies=[Depends(may(Permission.READ_AUDIT))])

_PAGE_SIZE = 100


class AuditView(BaseModel):
    """An entry of the trail: who saw or did what, to whose images, when and from where.

    `words` says in plain words what `type` and `outcome` say; empty for what only an earlier
    version could do.
    """

    id: int
    at: datetime
    kind: AuditKind
    type: str
    action: str
    outcome: Outcome
    who: str
    way: str
    address: str
    study_instance_uid: str
    patient_id: str
    studies: list[str]
    detail: str
    words: str


class AuditPage(BaseModel):
    """Entries, the newest first; `before` asks for those that follow, null where none do."""

    entries: list[AuditView]
    before: int | None


class Asked(BaseModel):
    """Which entries are wanted; all that is given must fit.

    A patient is asked for by a study: a Patient ID does not belong into an address, which proxies
    and browsers keep.
    """

    who: Annotated[str, Field(max_length=128)] = ""
    study: Annotated[str, Field(max_length=64, pattern=r"^[0-9.]*$")] = ""
    kind: AuditKind | None = None
    only_failed: bool = False
    since: Day | None = None
    until: Day | None = None

    def wanted(self) -> AuditFilter:
        """Return the same as the trail is asked; days are UTC, `until` is included."""
        return AuditFilter(
            who=self.who,
            study_instance_uid=self.study,
            kind=self.kind,
            only_failed=self.only_failed,
            since=_midnight(self.since),
            until=_midnight(self.until and self.until + timedelta(days=1)),
        )


def _midnight(day: date | None) -> datetime | None:
    return datetime.combine(day, time(), UTC) if day else None


class AskedPage(Asked):
    """The same, from an entry on."""

    before: Annotated[int | None, Field(ge=1, le=2**63 - 1)] = None


class AskedInForm(AskedPage):
    """The same as a browser sends the form: also the fields that were left empty."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if value != ""}


class Format(StrEnum):
    """How the trail is exported."""

    CSV = "csv"
    NDJSON = "ndjson"


_TYPES = {Format.CSV: "text/csv", Format.NDJSON: "application/x-ndjson"}
_FILE = {media_type: {"schema": {"type": "string"}} for media_type in _TYPES.values()}


class AskedFile(Asked):
    """The same as a file."""

    format: Format = Format.CSV


@router.get("/audit", include_in_schema=False)
def audit_page(
    request: Request, context: Context, asked: Annotated[AskedInForm, Query()]
) -> Response:
    """Show who saw and did what."""
    found = _page_of(context.database, asked)
    content = {
        "found": found,
        "asked": asked,
        "kinds": list(AuditKind),
        "again": _as_query(asked),
        "now": context.now(),
    }
    return templates.TemplateResponse(request, "audit.html", content)


def _as_query(asked: Asked) -> dict[str, str]:
    given = asked.model_dump(mode="json", exclude={"before"}, exclude_defaults=True)
    return {
        name: str(value).lower() if value is True else str(value) for name, value in given.items()
    }


@router.get("/api/v1/audit")
def audit(context: Context, asked: Annotated[AskedPage, Query()]) -> AuditPage:
    """Give entries of the audit trail, the newest first."""
    return _page_of(context.database, asked)


@router.get(
    "/api/v1/audit/export",
    response_class=StreamingResponse,
    responses={200: {"description": "The file.", "content": _FILE}},
)
def export(context: Context, asked: Annotated[AskedFile, Query()]) -> StreamingResponse:
    """Give all entries that fit as a file: CSV (RFC 4180) or a JSON object in each line."""
    entries = _entries(context.database, asked.wanted())
    name = f"triage-audit-{context.now():%Y%m%dT%H%M%SZ}.{asked.format}"
    as_lines = _as_csv if asked.format is Format.CSV else _as_ndjson
    return StreamingResponse(
        as_lines(entries),
        media_type=_TYPES[asked.format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _page_of(database: Database, asked: AskedPage) -> AuditPage:
    with database.reading() as session:
        found = audit_entries(session, asked.wanted(), before=asked.before, limit=_PAGE_SIZE + 1)
    shown = found[:_PAGE_SIZE]
    before = shown[-1].id if len(found) > _PAGE_SIZE else None
    return AuditPage(entries=[_view(entry) for entry in shown], before=before)


def _entries(database: Database, wanted: AuditFilter) -> Iterator[AuditView]:
    with database.reading() as session:
        for entry in all_entries(session, wanted):
            yield _view(entry)


def _view(entry: AuditEntry) -> AuditView:
    event = entry.event
    return AuditView(
        id=entry.id,
        at=event.at,
        kind=event.kind,
        type=event.type,
        action=event.action,
        outcome=event.outcome,
        who=event.who,
        way=event.way,
        address=event.address,
        study_instance_uid=event.study_instance_uid,
        patient_id=entry.patient_id,
        studies=list(event.studies),
        detail=event.detail,
        words=words_of(event),
    )


def _as_csv(entries: Iterable[AuditView]) -> Iterator[str]:
    line = io.StringIO()
    writer = csv.writer(line)
    writer.writerow(AuditView.model_fields)
    for entry in entries:
        values = entry.model_dump(mode="json") | {"studies": " ".join(entry.studies)}
        writer.writerow([_harmless(value) for value in values.values()])
        yield line.getvalue()
        line.seek(0)
        line.truncate()
    yield line.getvalue()


def _harmless(value: object) -> object:
    """Return a value that a spreadsheet does not take for a formula (OWASP, CSV injection)."""
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if is_formula else value


def _as_ndjson(entries: Iterable[AuditView]) -> Iterator[str]:
    for entry in entries:
        yield json.dumps(entry.model_dump(mode="json"), ensure_ascii=False) + "\n"
