"""The audit trail in plain words: complete, and no word of what was refused as if it was done."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from tests.web.access import HTML, log_in_auditor, pages
from tests.web.hospital import Hospital
from triage.commands.users import users
from triage.core.audit import Action, AuditEvent, AuditKind, Outcome
from triage.web.access import May
from triage.web.audit_words import known_types, words_of
from triage.web.viewer import create_viewer

# What is recorded beside the routes: log-ins, the pages themselves, and the trail's own failure.
WITHOUT_ROUTE = {
    "log-in",
    "log-out",
    "locked-out",
    "application-start",
    "application-stop",
    "audit-recording-stopped",
}


def an_event(
    event_type: str,
    outcome: Outcome = Outcome.SUCCESS,
    kind: AuditKind = AuditKind.INSTANCES_ACCESSED,
    action: Action = "C",
) -> AuditEvent:
    at = datetime(2026, 7, 1, tzinfo=UTC)
    return AuditEvent("1", at, kind, event_type, action, outcome)


def declares_permission(dependant: Dependant) -> bool:
    return isinstance(dependant.call, May) or any(map(declares_permission, dependant.dependencies))


def types_of(*apps: FastAPI) -> set[str]:
    """Return the types that events of all routes have which somebody may or may not use."""
    return {
        f"{method} {route.path.replace(':path}', '}')}"
        for app in apps
        for route in iter_route_contexts(app.routes)
        if (dependant := getattr(route, "dependant", None)) is not None
        and declares_permission(dependant)
        for method in getattr(route, "methods", None) or ["GET"]
    }


def test_there_are_words_for_each_route_and_command_and_for_nothing_else(
    app: FastAPI, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("<html></html>", "utf-8")
    routes = types_of(app, create_viewer(app.state.context, tmp_path))
    commands = {f"triage users {name}" for name in users.commands if name != "list"}
    assert len(routes) > 200
    assert known_types() == routes | commands | WITHOUT_ROUTE
    assert max(map(len, known_types())) <= 128  # the trail keeps no more


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (an_event("POST /runs/{run_id}/withdraw"), "withdrew a result"),
        (an_event("PUT /api/v1/studies/{study_instance_uid}/claim"), "claimed the study"),
        (an_event("GET /studies/{study_instance_uid}"), "opened the study"),
        (
            an_event("POST /runs/{run_id}/withdraw", Outcome.MINOR_FAILURE),
            "could not withdraw a result",
        ),
        (
            an_event("GET /users", Outcome.MINOR_FAILURE, AuditKind.SECURITY_ALERT, "E"),
            "was not allowed to see the accounts",
        ),
        # Not refused: it was wrong in itself.
        (
            an_event("POST /users", Outcome.MINOR_FAILURE, AuditKind.SECURITY_ALERT),
            "could not make an account",
        ),
        (an_event("log-in", Outcome.MINOR_FAILURE, AuditKind.AUTHENTICATION), "could not log in"),
        (an_event("triage users token"), "made a token"),
        (
            an_event(
                "GET /dicom-web/studies/{study}/series/{series}/instances/{instance}"
                "/bulkdata/00091001/1/00091002"
            ),
            "retrieved what is said of the study's images",
        ),
        (an_event("GET /what/an/earlier/version/had"), ""),
    ],
)
def test_words_say_what_was_done_and_what_was_not(event: AuditEvent, words: str) -> None:
    assert words_of(event) == words


@pytest.fixture
def auditor(hospital: Hospital) -> TestClient:
    """A browser in which an auditor is logged in, after a radiologist had opened a study."""
    uid = hospital.receive(*hospital.head_ct(slices=1))
    with pages(hospital) as client:
        log_in_auditor(client, hospital, uid)
        return client


def test_auditor_reads_words_on_the_page_and_beside_the_route_in_files(auditor: TestClient) -> None:
    wanted = ["logged out", "was not allowed to see what comes in, waits and runs"]
    wanted += ["opened the study", "logged in"]
    auditor.app.state.context.trail.flush()  # type: ignore[attr-defined]
    page = auditor.get("/audit?who=ada", headers=HTML).text
    assert [words for words in wanted if f">{words}</span>" not in page] == []
    assert 'title="GET /studies/{study_instance_uid}"' in page
    exported = auditor.get("/api/v1/audit/export?who=ada").text
    rows = list(csv.DictReader(io.StringIO(exported)))
    assert [row["words"] for row in rows] == wanted
    assert rows[2]["type"] == "GET /studies/{study_instance_uid}"
