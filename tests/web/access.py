"""A hospital whose pages ask people to log in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi.testclient import TestClient

from tests.web.hospital import Hospital
from triage.core.permissions import Role
from triage.settings import LoginSettings, Settings, WebSettings
from triage.store.audit import AuditEntry, AuditFilter, audit_entries
from triage.store.users import User, add_user
from triage.web.app import create_app
from triage.web.context import WebContext

HTML = {"Accept": "text/html"}
OURS = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
PASSWORD = "correct horse battery"


def add_account(hospital: Hospital, name: str, *roles: Role, password: str = PASSWORD) -> User:
    """Add a local account that may log in at once."""
    with hospital.database.transaction() as session:
        return add_user(
            session,
            name,
            roles,
            password,
            minimum_length=12,
            must_change_password=False,
            now=hospital.clock(),
        )


@contextmanager
def pages(
    hospital: Hospital, login: LoginSettings | None = None, **web: Any
) -> Iterator[TestClient]:
    """Give a browser on the pages, where local accounts log in unless `login` says otherwise."""
    settings = Settings(
        data_directory=hospital.files.root.parent,
        web=WebSettings(login=login or LoginSettings(mode="local"), **web),
    )
    app = create_app(settings, hospital.database, hospital.files, hospital.clock)
    with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
        yield client


def log_in(client: TestClient, name: str, password: str = PASSWORD, **form: str) -> Any:
    """Send the form of the log-in page as a browser does."""
    data = {"name": name, "password": password, **form}
    return client.post("/login", data=data, headers=HTML | OURS)


def log_in_auditor(client: TestClient, hospital: Hospital, study_uid: str) -> None:
    """Log in an auditor, after a radiologist had opened a study and been refused a page."""
    add_account(hospital, "ada", Role.RADIOLOGIST)
    add_account(hospital, "audrey", Role.AUDITOR)
    log_in(client, "ada")
    client.get(f"/studies/{study_uid}", headers=HTML)
    client.get("/status", headers=HTML)
    client.post("/logout", headers=OURS)
    log_in(client, "audrey")


def trail(client: TestClient, wanted: AuditFilter = AuditFilter()) -> list[AuditEntry]:  # noqa: B008
    """Return what the audit trail holds, the newest first."""
    context: WebContext = client.app.state.context  # type: ignore[attr-defined]
    context.trail.flush()
    with context.database.reading() as session:
        return audit_entries(session, wanted)
