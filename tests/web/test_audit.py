"""The audit trail: what it keeps, who reads it, and what the repository is told."""

from __future__ import annotations

import base64
import csv
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, select, update
from sqlalchemy.exc import DatabaseError

from tests.certificates import Authority
from tests.tools import ManualClock
from tests.web.access import HTML, OURS, add_account, log_in, log_in_auditor, pages, trail
from tests.web.hospital import Hospital, hemorrhage
from tests.web.repository import checked, tls_repository
from triage.core.audit import AuditEvent, AuditKind, Outcome
from triage.core.permissions import Role
from triage.settings import AuditSettings, LoginSettings
from triage.store.audit import AuditFilter, audit_entries, write_events
from triage.store.audit_spool import AuditSpool
from triage.store.audit_tables import AuditEventRow
from triage.store.database import Database
from triage.store.tables import FindingRow
from triage.web.audit_sender import AuditSender
from triage.web.trail import Trail, new_uid


def an_event(clock: ManualClock, kind: AuditKind = AuditKind.QUERY, **values: object) -> AuditEvent:
    return AuditEvent(uid=new_uid(), at=clock(), kind=kind, type="GET /", who="ada", **values)  # type: ignore[arg-type]


@pytest.fixture
def reading_room(hospital: Hospital) -> Iterator[TestClient]:
    """A browser in which a radiologist is logged in."""
    add_account(hospital, "ada", Role.RADIOLOGIST)
    with pages(hospital) as client:
        log_in(client, "ada")
        yield client


def test_views_and_changes_are_kept_with_study_and_patient(
    reading_room: TestClient, hospital: Hospital
) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1, PatientID="PID-7"))
    reading_room.get("/", headers=HTML)
    reading_room.get(f"/studies/{uid}", headers=HTML)
    reading_room.post(f"/studies/{uid}/read", headers=OURS)
    newest_first = trail(reading_room)
    said = [
        (e.event.kind, e.event.action, e.event.type, e.event.study_instance_uid, e.patient_id)
        for e in reversed(newest_first)
    ][1:]
    page = "/studies/{study_instance_uid}"
    assert said == [
        (AuditKind.QUERY, "R", "GET /", uid, "PID-7"),
        (AuditKind.INSTANCES_ACCESSED, "R", f"GET {page}", uid, "PID-7"),
        (AuditKind.INSTANCES_ACCESSED, "C", f"POST {page}/read", uid, "PID-7"),
    ]
    assert {e.event.who for e in newest_first} == {"ada"}
    assert {e.event.address for e in newest_first} == {"testclient"}


def test_open_list_is_a_query_and_tells_each_study_once(
    reading_room: TestClient, hospital: Hospital
) -> None:
    first, second = (hospital.receive(*hospital.head_ct(slices=1)) for _ in range(2))
    before = len(trail(reading_room))
    for _ in range(3):
        assert reading_room.post("/worklist/rows", json={}, headers=OURS).status_code == 200
    third = hospital.receive(*hospital.head_ct(slices=1))
    hospital.clock.advance(1)
    reading_room.post("/worklist/rows", json={}, headers=OURS)
    newest_first = trail(reading_room)
    said = [(e.event.kind, e.event.action, e.event.studies) for e in newest_first]
    assert said[: len(said) - before] == [
        (AuditKind.QUERY, "R", (third,)),
        (AuditKind.QUERY, "R", (first, second)),
    ]


def test_what_is_said_of_a_finding_is_kept_with_its_study(
    reading_room: TestClient, hospital: Hospital
) -> None:
    hospital.register_model()
    uid = hospital.receive(*hospital.head_ct(slices=1))
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage())
    with hospital.database.reading() as session:
        finding = session.scalars(select(FindingRow.id)).first()
    path = f"/api/v1/findings/{finding}/feedback"
    answer = reading_room.post(path, json={"verdict": "agree"}, headers=OURS)
    assert answer.status_code == 200, answer.text
    assert answer.json()["who"] == "ada"
    newest = trail(reading_room)[0].event
    assert (newest.action, newest.study_instance_uid) == ("C", uid)


def test_images_of_a_study_are_one_access_for_a_while(
    reading_room: TestClient, hospital: Hospital
) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=3))
    for _ in range(2):
        for path in ("/metadata", ""):
            reading_room.get(f"/dicom-web/studies/{uid}{path}")
    assert len(trail(reading_room, AuditFilter(study_instance_uid=uid))) == 1
    hospital.clock.advance(301)
    reading_room.get(f"/dicom-web/studies/{uid}")
    found = trail(reading_room, AuditFilter(study_instance_uid=uid))
    assert [entry.event.kind for entry in found] == [AuditKind.TRANSFERRED] * 2


def test_queries_are_kept_as_they_were_asked(reading_room: TestClient) -> None:
    reading_room.get("/dicom-web/studies?PatientID=PID-1")
    newest = trail(reading_room)[0].event
    assert (newest.kind, newest.detail) == (AuditKind.QUERY, "PatientID=PID-1")


def test_refusals_are_alerts(reading_room: TestClient) -> None:
    reading_room.get("/users", headers=HTML)
    newest = trail(reading_room)[0].event
    assert newest.kind is AuditKind.SECURITY_ALERT
    assert newest.outcome is Outcome.MINOR_FAILURE
    assert "may not manage-users" in newest.detail


def test_nothing_is_kept_of_what_says_nothing_of_patients(reading_room: TestClient) -> None:
    before = len(trail(reading_room))
    for path in ("/models", "/account", "/healthz", "/static/triage.css"):
        assert reading_room.get(path).status_code == 200
    assert len(trail(reading_room)) == before


def test_the_database_refuses_to_change_or_delete(database: Database, clock: ManualClock) -> None:
    with database.transaction() as session:
        assert write_events(session, [an_event(clock)], tell=False) == 1
    for change in (update(AuditEventRow).values(who="eve"), delete(AuditEventRow)):
        with (
            pytest.raises(DatabaseError, match="append-only"),
            database.transaction() as session,
        ):
            session.execute(change)
    with database.reading() as session:
        assert [entry.event.who for entry in audit_entries(session, AuditFilter())] == ["ada"]


def test_an_event_that_is_written_twice_is_there_once(
    database: Database, clock: ManualClock
) -> None:
    event = an_event(clock)
    for written in (1, 0):
        with database.transaction() as session:
            assert write_events(session, [event], tell=True) == written


def test_what_a_killed_process_left_is_written_by_the_next(
    sqlite_database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    dead = AuditSpool(tmp_path)
    dead.append(an_event(clock, study_instance_uid="1.2.3"))
    file = next(tmp_path.glob("*.ndjson"))
    left = file.read_bytes()
    dead.done()
    dead.close()
    (tmp_path / "left.ndjson").write_bytes(left + b'{"uid": "half of a li')
    next_one = Trail(sqlite_database, tmp_path, AuditSettings(), clock)
    next_one.start()
    next_one.record(an_event(clock))
    next_one.close()
    with sqlite_database.reading() as session:
        found = audit_entries(session, AuditFilter())
    assert {entry.event.study_instance_uid for entry in found} == {"", "1.2.3"}
    assert not (tmp_path / "left.ndjson").exists()


def test_begin_and_end_of_the_pages_are_kept(
    sqlite_database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    pages_trail = Trail(sqlite_database, tmp_path, AuditSettings(), clock)
    pages_trail.announce()
    pages_trail.close()
    with sqlite_database.reading() as session:
        found = audit_entries(session, AuditFilter(kind=AuditKind.APPLICATION))
    assert [entry.event.type for entry in found] == ["application-stop", "application-start"]
    assert list(tmp_path.glob("*.ndjson")) == []


def test_pages_answer_while_the_disk_refuses_the_trail(
    reading_room: TestClient, hospital: Hospital
) -> None:
    folder = hospital.files.root.parent / "audit"
    trail(reading_room)
    context = reading_room.app.state.context  # type: ignore[attr-defined]
    context.trail._spool.close()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.write_text("no folder", "utf-8")
    assert reading_room.get("/", headers=HTML).status_code == 200
    folder.unlink()
    assert reading_room.get("/read", headers=HTML).status_code == 200
    types = [entry.event.type for entry in trail(reading_room)]
    assert types[:2] == ["GET /read", "audit-recording-stopped"]


@pytest.fixture
def auditor(hospital: Hospital) -> Iterator[TestClient]:
    """A browser in which an auditor is logged in; somebody did something before."""
    uid = hospital.receive(*hospital.head_ct(slices=1, PatientID="PID-7"))
    with pages(hospital) as client:
        log_in_auditor(client, hospital, uid)
        trail(client)
        yield client


def test_auditor_filters_by_person_study_event_and_failure(auditor: TestClient) -> None:
    def types(query: str) -> list[str]:
        entries = auditor.get(f"/api/v1/audit?{query}").json()["entries"]
        return [entry["type"] for entry in entries]

    assert types("who=ada") == [
        "log-out",
        "GET /status",
        "GET /studies/{study_instance_uid}",
        "log-in",
    ]
    assert types("kind=authentication&who=audrey") == ["log-in"]
    assert types("only_failed=true") == ["GET /status"]
    assert types("since=2999-01-01") == []
    as_sent_by_the_form = "/audit?who=ada&study=&kind=&since=&until="
    page = auditor.get(as_sent_by_the_form, headers=HTML).text
    assert "Patient ID PID-7" in page
    assert "log-in" in page
    uid = page.partition("Patient ID")[0].rpartition("<td>")[2].partition("<br>")[0]
    assert types(f"study={uid}") == ["GET /studies/{study_instance_uid}"]


def test_trail_is_exported_and_that_is_in_the_trail(auditor: TestClient) -> None:
    lines = auditor.get("/api/v1/audit/export?format=ndjson&who=ada").text.splitlines()
    assert [json.loads(line)["who"] for line in lines] == ["ada"] * 4
    exported = auditor.get("/api/v1/audit/export?format=csv&kind=accessed")
    assert exported.headers["content-disposition"].endswith('.csv"')
    rows = list(csv.DictReader(io.StringIO(exported.text)))
    assert [row["patient_id"] for row in rows] == ["PID-7"]
    used = trail(auditor, AuditFilter(kind=AuditKind.AUDIT_LOG_USED))
    assert [entry.event.who for entry in used] == ["audrey", "audrey"]


def test_cells_of_the_export_are_no_formulas(hospital: Hospital) -> None:
    login = LoginSettings(mode="off")
    with pages(hospital, login, user_header="X-User") as client:
        client.get("/", headers={"X-User": '=HYPERLINK("http://evil")'})
        trail(client)
        rows = list(csv.DictReader(io.StringIO(client.get("/api/v1/audit/export").text)))
        assert rows[0]["who"].startswith("'=")


EVENTS: list[tuple[AuditKind, str, str]] = [
    (AuditKind.APPLICATION, "application-start", "110100"),
    (AuditKind.AUTHENTICATION, "log-in", "110114"),
    (AuditKind.INSTANCES_ACCESSED, "GET /studies/{study}", "110103"),
    (AuditKind.TRANSFERRED, "GET /dicom-web/studies/{study}", "110104"),
    (AuditKind.QUERY, "GET /dicom-web/studies", "110112"),
    (AuditKind.AUDIT_LOG_USED, "GET /audit", "110101"),
    (AuditKind.SECURITY_ALERT, "POST /users", "110113"),
    (AuditKind.EXPORT, "export", "110106"),
]


def test_repository_is_told_over_tls_what_the_trail_holds(
    sqlite_database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    events = [
        AuditEvent(
            uid=new_uid(),
            at=clock(),
            kind=kind,
            type=name,
            who="Dr. Ä <&> \x00",
            address="10.0.0.7",
            study_instance_uid="1.2.3" if kind is AuditKind.INSTANCES_ACCESSED else "",
            studies=("1.2.4", "1.2.5") if kind is AuditKind.QUERY else (),
            detail='PatientName=O"Hara<',
        )
        for kind, name, _ in EVENTS
    ]
    with sqlite_database.transaction() as session:
        write_events(session, events, tell=True)
    with tls_repository(authority.sign()) as (port, repository):
        settings = AuditSettings(
            host="127.0.0.1",
            port=port,
            tls_authorities=authority.certificate,
            enterprise_site_id="site",
        )
        assert AuditSender(sqlite_database, settings, clock).send_waiting() == len(events)
        assert AuditSender(sqlite_database, settings, clock).send_waiting() == 0
    documents = repository.documents()
    codes = [document.find("EventIdentification/EventID").get("csd-code") for document in documents]
    assert codes == [code for _, _, code in EVENTS]
    accessed, query = documents[2], documents[4]
    assert accessed.find("ActiveParticipant").get("UserID") == "Dr. Ä <&> \N{REPLACEMENT CHARACTER}"
    ids = [o.get("ParticipantObjectID") for o in accessed.iter("ParticipantObjectIdentification")]
    assert ids == ["1.2.3"]
    asked = query.findtext("ParticipantObjectIdentification/ParticipantObjectQuery")
    assert base64.b64decode(asked or "").decode() == 'PatientName=O"Hara<'


def test_repository_that_was_away_is_told_later(
    sqlite_database: Database, clock: ManualClock, tmp_path: Path, free_port: int
) -> None:
    authority = Authority(tmp_path)
    settings = AuditSettings(
        host="127.0.0.1", port=free_port, tls_authorities=authority.certificate
    )
    with sqlite_database.transaction() as session:
        write_events(session, [an_event(clock)], tell=True)
    sender = AuditSender(sqlite_database, settings, clock)
    with pytest.raises(OSError, match="refused"):
        sender.send_waiting()
    with (
        tls_repository(Authority(tmp_path, "stranger").sign(file="stranger"), free_port),
        pytest.raises(OSError, match="certificate"),
    ):
        sender.send_waiting()
    with tls_repository(authority.sign(), free_port) as (_, repository):
        assert sender.send_waiting() == 1
    assert len(repository.documents()) == 1


def test_repository_is_told_over_udp_where_that_is_asked_for(
    sqlite_database: Database, clock: ManualClock
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as repository:
        repository.bind(("127.0.0.1", 0))
        repository.settimeout(30)
        settings = AuditSettings(host="127.0.0.1", port=repository.getsockname()[1], tls=False)
        with sqlite_database.transaction() as session:
            write_events(session, [an_event(clock)], tell=True)
        AuditSender(sqlite_database, settings, clock).send_waiting()
        assert checked(repository.recv(65535)).tag == "AuditMessage"
