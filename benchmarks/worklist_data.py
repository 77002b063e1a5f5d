"""A made-up hospital in bulk: studies to read, studies that were read, and their patients."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from triage.core.search_words import words_of_patient
from triage.store.base import Table
from triage.store.database import Database
from triage.store.model_tables import ModelRow
from triage.store.tables import (
    AnalysisRunRow,
    FindingRow,
    PatientRow,
    SeriesRow,
    StudyEventRow,
    StudyRow,
)
from triage.store.worklist_tables import PatientWordRow

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
_MODALITIES = ("CT", "CT", "CT", "MR", "MR", "DX", "DX", "DX", "US", "CT\\SR")
_BODY_PARTS = ("HEAD", "CHEST", "ABDOMEN", "KNEE", "", "SPINE")
_GIVEN = ("Ada", "Grace", "Marie", "Hans", "Jose", "Yuki", "Lena", "Omar")
_CLASSES = ("E", "I", "I", "O", "O", "")
_STUDIES_OF_A_PATIENT = 3
_BATCH = 20_000

Rows = Iterable[dict[str, Any]]


def fill(database: Database, to_read: int, were_read: int) -> None:
    """Write so many studies with patients, series, runs and history, as fast as a database can.

    Every fourth study to read waits for its analysis, every twentieth was refused, and every tenth
    has a finding. Series and runs are written for those to read: nothing looks at the others'.
    """
    total = to_read + were_read
    _model(database)
    _write(database, PatientRow, _patients(total))
    _write(database, PatientWordRow, _words(total))
    _write(database, StudyRow, (_study(n, n <= to_read) for n in range(1, total + 1)))
    _write(database, SeriesRow, (_series(n) for n in range(1, to_read + 1)))
    _write(database, AnalysisRunRow, (_run(n) for n in range(1, to_read + 1)))
    _write(database, FindingRow, (_finding(n) for n in range(10, to_read + 1, 10)))
    _write(database, StudyEventRow, (_event(n) for n in range(1, total + 1)))
    _settle(database)


def _model(database: Database) -> None:
    with database.transaction() as session:
        session.add(
            ModelRow(
                name="made-up",
                version="1.0.0",
                manifest={"notice": "made up"},
                package_path="nowhere",
                package_sha256="0" * 64,
                registered_at=NOW,
            )
        )


def _name(number: int) -> str:
    return f"Surname{number % 40_000:06d}^{_GIVEN[number % len(_GIVEN)]}"


def _patients(studies: int) -> Rows:
    for n in range(1, studies // _STUDIES_OF_A_PATIENT + 2):
        yield {
            "id": n,
            "patient_id": f"P{n:07d}",
            "issuer": "",
            "name": _name(n),
            "birth_date": "19500101",
            "sex": "F",
        }


def _words(studies: int) -> Rows:
    for n in range(1, studies // _STUDIES_OF_A_PATIENT + 2):
        for word in words_of_patient(_name(n), f"P{n:07d}"):
            yield {"patient_id": n, "word": word}


def _study(n: int, is_open: bool) -> dict[str, Any]:
    at = NOW - timedelta(minutes=n)
    order = (1, 1, 1, 1, 1, 1, 1, 2, 2, 3)[n % 10] if n % 7 else 0
    ai = 3 if is_open and n % 100 == 10 else None
    return {
        "id": n,
        "study_instance_uid": f"1.2.826.0.1.3680043.8.498.{n:012d}",
        "patient_id": n // _STUDIES_OF_A_PATIENT + 1,
        "accession_number": f"ACC{n:08d}",
        "description": "A study of some part",
        "study_date": "20261101",
        "study_time": "120000",
        "modalities": _MODALITIES[n % len(_MODALITIES)],
        "body_parts": _BODY_PARTS[n % len(_BODY_PARTS)],
        "calling_ae_title": "CT1",
        "state": "complete",
        "generation": 1,
        "completion_reason": "association released",
        "order_priority": order,
        "ai_priority": ai,
        "ai_reason": "Hemorrhage, 12 mL, confidence 0.97, made-up 1.0.0" if ai else "",
        "priority": max(order, ai or 0),
        "first_instance_at": at,
        "ranked_at": at,
        "last_instance_at": at,
        "receiving_since": at,
        "completed_at": at,
        "read_at": None if is_open else at + timedelta(seconds=30),
        "purged_at": None,
        "purge_reason": "",
        "forgotten_at": None,
        "is_prior": False,
        "order_id": None,
        "location": f"W{n % 40}-{n % 12}",
        "patient_class": _CLASSES[n % len(_CLASSES)],
    }


def _series(n: int) -> dict[str, Any]:
    return {
        "id": n,
        "study_id": n,
        "series_instance_uid": f"1.2.826.0.1.3680043.8.499.{n:012d}",
        "modality": _MODALITIES[n % len(_MODALITIES)][:2],
        "number": 1,
        "description": "A series",
        "body_part": _BODY_PARTS[n % len(_BODY_PARTS)],
        "is_result": False,
        "considered_images": 0,
    }


def _run(n: int) -> dict[str, Any]:
    state = "pending" if n % 4 == 1 else "refused" if n % 20 == 3 else "completed"
    return {
        "id": n,
        "study_id": n,
        "model_id": 1,
        "series_id": n,
        "generation": 1,
        "state": state,
        "reason": "too thick" if state == "refused" else "",
        "priority": 1,
        "attempts": 1,
        "claim": 1,
        "claimed_by": "",
        "available_at": NOW,
        "created_at": NOW,
        "ranked_at": NOW,
        "input_sha256": "",
        "instances_sha256": "",
        "flow_run_id": "",
        "timings_s": {},
        "stage": "production",
        "input_characteristics": {},
    }


def _finding(n: int) -> dict[str, Any]:
    content = {
        "key": "hemorrhage",
        "code": {"value": "50960005", "scheme": "SCT", "meaning": "Hemorrhage"},
        "present": True,
        "confidence": 0.97,
        "key_image_uids": [f"1.2.826.0.1.3680043.8.500.{n:012d}"],
        "priority": 3,
    }
    return {
        "id": n,
        "run_id": n,
        "key": "hemorrhage",
        "present": True,
        "confidence": 0.97,
        "content": content,
    }


def _event(n: int) -> dict[str, Any]:
    text = "first image from CT1"
    return {"id": n, "study_id": n, "run_id": None, "at": NOW, "kind": "received", "text": text}


def _write(database: Database, table: type[Table], rows: Rows) -> None:
    copy = _into_sqlite if database.is_sqlite else _into_postgresql
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            copy(database, table.__tablename__, batch)
            batch = []
    if batch:
        copy(database, table.__tablename__, batch)


def _into_sqlite(database: Database, table: str, rows: Sequence[dict[str, Any]]) -> None:
    marks = ", ".join("?" * len(rows[0]))
    with database.cursor(is_durable=False) as cursor:
        cursor.executemany(
            f"INSERT INTO {table} ({', '.join(rows[0])}) VALUES ({marks})",
            _plain(rows, lambda at: at.strftime("%Y-%m-%d %H:%M:%S.%f")),
        )


def _into_postgresql(database: Database, table: str, rows: Sequence[dict[str, Any]]) -> None:
    with database.cursor(is_durable=True) as cursor:
        statement = f"COPY {table} ({', '.join(rows[0])}) FROM STDIN"
        with cursor.copy(statement) as copy:
            for row in _plain(rows, datetime.isoformat):
                copy.write_row(row)


def _plain(rows: Rows, moment: Any) -> Iterator[list[Any]]:
    for row in rows:
        yield [
            moment(value)
            if isinstance(value, datetime)
            else json.dumps(value)
            if isinstance(value, dict)
            else value
            for value in row.values()
        ]


def _settle(database: Database) -> None:
    """Let the database learn what its tables hold, and count on from the rows that are there."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if database.is_sqlite:
            return
        connection.execute(text("VACUUM ANALYZE"))
        for table in ("patients", "studies", "series", "analysis_runs", "findings", "study_events"):
            newest = f"(SELECT max(id) FROM {table})"
            sequence = f"pg_get_serial_sequence('{table}', 'id')"
            connection.execute(text(f"SELECT setval({sequence}, {newest})"))
