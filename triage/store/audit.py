"""The audit trail: written once, read by the auditor, told to the Audit Record Repository."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Text, cast, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.sql import Select

from triage.core.audit import AuditEvent, AuditKind, Outcome
from triage.store.audit_tables import AuditEventRow, AuditOutboxRow
from triage.store.tables import (
    STAND_IN_PREFIX,
    AnalysisRunRow,
    FindingRow,
    PatientRow,
    StudyRow,
)

_PIECE = 500


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events are asked for; what is empty is not a condition."""

    who: str = ""
    study_instance_uid: str = ""
    patient_id: str = ""
    kind: AuditKind | None = None
    only_failed: bool = False
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An event as it stands in the trail, with the Patient ID (0010,0020) of its study."""

    id: int
    event: AuditEvent
    patient_id: str


def write_events(session: Session, events: Sequence[AuditEvent], *, tell: bool) -> int:
    """Write those events that are not in the trail yet, and return how many those are.

    With `tell` the Audit Record Repository is to be told of them.
    """
    patients = _patients(session, {e.study_instance_uid for e in events if e.study_instance_uid})
    dialect = session.get_bind().dialect.name
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    written = 0
    for event in events:
        values = _values(event.shortened(), patients.get(event.study_instance_uid, ""))
        statement = insert(AuditEventRow).values(values).on_conflict_do_nothing()
        event_id = session.scalar(statement.returning(AuditEventRow.id))
        if event_id is None:
            continue
        written += 1
        if tell:
            session.add(AuditOutboxRow(event_id=event_id))
    session.flush()
    return written


def _patients(session: Session, studies: set[str]) -> dict[str, str]:
    found = session.execute(
        select(StudyRow.study_instance_uid, PatientRow.patient_id)
        .join(PatientRow, StudyRow.patient_id == PatientRow.id)
        .where(StudyRow.study_instance_uid.in_(studies))
    )
    return {uid: patient for uid, patient in found if not patient.startswith(STAND_IN_PREFIX)}


def _values(event: AuditEvent, patient_id: str) -> dict[str, object]:
    return {
        "uid": event.uid,
        "at": event.at,
        "kind": event.kind,
        "type": event.type,
        "action": event.action,
        "outcome": event.outcome,
        "who": event.who,
        "way": event.way,
        "address": event.address,
        "study_instance_uid": event.study_instance_uid,
        "patient_id": patient_id,
        "studies": list(event.studies),
        "detail": event.detail,
    }


def audit_entries(
    session: Session, wanted: AuditFilter, *, before: int | None = None, limit: int = 100
) -> list[AuditEntry]:
    """Return the entries that fit, the newest first; with `before`, those older than that one."""
    found = _select(wanted)
    if before is not None:
        found = found.where(AuditEventRow.id < before)
    return [
        as_entry(row)
        for row in session.scalars(found.order_by(AuditEventRow.id.desc()).limit(limit))
    ]


def all_entries(session: Session, wanted: AuditFilter) -> Iterator[AuditEntry]:
    """Yield all entries that fit, the newest first, a piece at a time."""
    before: int | None = None
    while piece := audit_entries(session, wanted, before=before, limit=_PIECE):
        yield from piece
        before = piece[-1].id
        session.expunge_all()


def _select(wanted: AuditFilter) -> Select[AuditEventRow]:
    row = AuditEventRow
    found = select(row)
    for column, value in ((row.who, wanted.who), (row.patient_id, wanted.patient_id)):
        if value:
            found = found.where(column == value)
    if wanted.study_instance_uid:
        # The list of what a page showed is JSON; its text is searched, for both databases alike.
        quoted = f'%"{wanted.study_instance_uid}"%'
        is_on_list = cast(row.studies, Text).like(quoted)
        found = found.where((row.study_instance_uid == wanted.study_instance_uid) | is_on_list)
    if wanted.kind is not None:
        found = found.where(row.kind == wanted.kind)
    if wanted.only_failed:
        found = found.where(row.outcome != Outcome.SUCCESS)
    if wanted.since is not None:
        found = found.where(row.at >= wanted.since)
    if wanted.until is not None:
        found = found.where(row.at < wanted.until)
    return found


def as_entry(row: AuditEventRow) -> AuditEntry:
    """Return the entry of a row."""
    event = AuditEvent(
        row.uid,
        row.at,
        row.kind,
        row.type,
        row.action,
        Outcome(row.outcome),
        row.who,
        row.way,
        row.address,
        row.study_instance_uid,
        tuple(row.studies),
        row.detail,
    )
    return AuditEntry(row.id, event, row.patient_id)


def study_of_run(session: Session, run_id: int) -> str:
    """Return the Study Instance UID of an analysis run, "" where there is none."""
    found = select(StudyRow.study_instance_uid).join(
        AnalysisRunRow, AnalysisRunRow.study_id == StudyRow.id
    )
    return session.scalar(found.where(AnalysisRunRow.id == run_id)) or ""


def study_of_finding(session: Session, finding_id: int) -> str:
    """Return the Study Instance UID of a finding, "" where there is none."""
    run_id = session.scalar(select(FindingRow.run_id).where(FindingRow.id == finding_id))
    return study_of_run(session, run_id) if run_id is not None else ""


def waiting_entries(session: Session, *, limit: int) -> list[AuditEntry]:
    """Return the oldest entries that the repository has not been told of."""
    rows = session.scalars(
        select(AuditOutboxRow).order_by(AuditOutboxRow.event_id).limit(limit)
    ).all()
    return [as_entry(row.event) for row in rows]


def count_waiting(session: Session) -> int:
    """Return of how many entries the repository has not been told."""
    return session.scalars(select(func.count()).select_from(AuditOutboxRow)).one()


def mark_sent(session: Session, event_ids: Sequence[int]) -> None:
    """Note that the repository was told of these."""
    session.execute(delete(AuditOutboxRow).where(AuditOutboxRow.event_id.in_(event_ids)))
