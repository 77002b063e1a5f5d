"""What `triage doctor` says of the archive that is asked for counts, and of watched models."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.results.mail_server import mail_server
from tests.results.web_server import web_server
from tests.store.lived import add_runs, add_watched_model, every
from tests.tools import PROJECT, ManualClock, find_free_port
from triage.doctor import Check, examine, log_in_checks
from triage.models.packages import load_package
from triage.models.registry import register_package
from triage.settings import (
    LoginSettings,
    RemoteSettings,
    Settings,
    WatchSettings,
    WebSettings,
    load_settings,
)
from triage.store.database import Database
from triage.store.delivery_decisions import Decision, pause
from triage.store.visits import RefusedCaller, record_refused_callers
from triage.store.watch_alerts import watch_round


def check_named(name: str, tmp_path: Path, sqlite_url: str, *remotes: RemoteSettings) -> Check:
    """Return one check of an installation with `receiver.count_at = "pacs"`; nothing else runs."""
    settings = load_settings(
        data_directory=tmp_path,
        database={"url": sqlite_url},
        receiver={"port": find_free_port(), "count_at": "pacs"},
        web={"port": find_free_port()},
        prefect={"port": find_free_port()},
        remotes=[remote.model_dump() for remote in remotes],
    )
    return next(check for check in examine(settings) if check.name == name)


def test_examining_needs_none_of_the_libraries_that_build_results_and_messages() -> None:
    code = "import sys, triage.doctor; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"highdicom", "fhir", "torch", "fastapi"} & set(said.stdout.split())


def test_count_at_that_names_no_remote_is_said(tmp_path: Path, sqlite_url: str) -> None:
    check = check_named("count_at", tmp_path, sqlite_url)
    assert not check.is_ok
    assert check.text == "receiver.count_at names 'pacs', which is not among the [[remotes]]"


def test_archive_that_cannot_be_asked_is_said(tmp_path: Path, sqlite_url: str) -> None:
    port = find_free_port()
    away = RemoteSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, timeout_s=2)
    check = check_named("count_at", tmp_path, sqlite_url, away)
    assert not check.is_ok
    assert "cannot be reached" in check.text
    assert "studies become complete without its counts" in check.text


def test_parked_model_is_said(tmp_path: Path, sqlite_database: Database) -> None:
    package = load_package(PROJECT / "model_registry" / "head-ct-hemorrhage" / "1.0.0")
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    with sqlite_database.transaction() as session:
        model = register_package(session, package, now=now)
        model.parked_until, model.parked_reason = now, "the device is full"
    settings = load_settings(
        data_directory=tmp_path,
        database={"url": sqlite_database.url},
        receiver={"port": find_free_port()},
        web={"port": find_free_port()},
        prefect={"port": find_free_port()},
    )
    check = next(check for check in examine(settings) if check.name == "models")
    assert not check.is_ok
    assert check.text == (
        "head-ct-hemorrhage 1.0.0 is parked and tried again after 2026-03-01 12:00:00 UTC, "
        "because the device is full"
    )


def test_a_model_that_breaks_a_rule_is_a_warning(
    tmp_path: Path, sqlite_url: str, clock: ManualClock
) -> None:
    assert check_named("model watch", tmp_path, sqlite_url).text == "no rule is broken"
    database = Database(sqlite_url)
    with database.transaction() as session:
        model = add_watched_model(session, clock() - timedelta(days=1))
        add_runs(session, model, every(clock(), 20, timedelta(hours=1)), whole_s=200)
    watch_round(database, WatchSettings(), clock, holder="tests")
    database.close()
    check = check_named("model watch", tmp_path, sqlite_url)
    assert (check.is_ok, check.is_warning) == (True, True)
    assert check.text.startswith("head-ct 1.0.0: slow: median ")


def destination_checks(
    tmp_path: Path, sqlite_url: str, *destinations: dict[str, object]
) -> dict[str, Check]:
    """Return the checks of an installation with these destinations, by name."""
    settings = load_settings(
        data_directory=tmp_path,
        database={"url": sqlite_url},
        receiver={"port": find_free_port()},
        web={"port": find_free_port()},
        prefect={"port": find_free_port()},
        destinations=destinations,
    )
    return {check.name: check for check in examine(settings)}


def test_every_kind_of_destination_is_asked(tmp_path: Path, sqlite_url: str) -> None:
    (tmp_path / "share").mkdir()
    with web_server() as server, mail_server() as mail:
        email = {
            "name": "team",
            "kind": "email",
            "host": "127.0.0.1",
            "port": mail.port,
            "security": "none",
            "sender": "a@hospital.example",
            "recipients": ["b@hospital.example"],
        }
        checks = destination_checks(
            tmp_path,
            sqlite_url,
            {"name": "web-archive", "kind": "stow", "url": f"{server.url}/dicom-web"},
            {"name": "share", "kind": "folder", "path": str(tmp_path / "share")},
            {"name": "no-share", "kind": "folder", "path": str(tmp_path / "nowhere")},
            {"name": "ris", "kind": "webhook", "url": server.url, "secret": "0123456789abcdef"},
            email,
        )
    assert checks["destination web-archive"].text == f"answers at {server.url}/dicom-web"
    assert checks["destination share"].text == f"{tmp_path / 'share'} can be written"
    assert not checks["destination no-share"].is_ok
    assert "make it, or mount the share" in checks["destination no-share"].text
    assert checks["destination ris"].text == f"127.0.0.1:{server.port} listens; it was not called"
    assert checks["destination team"].text == f"127.0.0.1:{mail.port} answers unencrypted"
    assert [request.method for request in server.requests] == ["GET"]
    assert mail.messages == []


def test_another_program_on_the_viewers_port_is_said(tmp_path: Path, sqlite_url: str) -> None:
    (tmp_path / "index.html").touch()
    with web_server() as other:
        settings = load_settings(
            data_directory=tmp_path,
            database={"url": sqlite_url},
            receiver={"port": find_free_port()},
            web={"port": find_free_port()},
            viewer={"port": other.port, "path": str(tmp_path)},
            prefect={"port": find_free_port()},
        )
        check = next(check for check in examine(settings) if check.name == "viewer")
    assert not check.is_ok
    assert f"another program answers on port {other.port}" in check.text
    assert "viewer.port" in check.text


def test_paused_destination_is_a_warning(tmp_path: Path, sqlite_url: str) -> None:
    database = Database(sqlite_url)
    with database.transaction() as session:
        now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
        pause(session, "pacs", Decision("A. Grey", now, "an update"))
    database.close()
    check = check_named("paused destinations", tmp_path, sqlite_url)
    assert (check.is_ok, check.is_warning) == (True, True)
    assert check.text == (
        "pacs by A. Grey since 2026-03-01 12:00 UTC: an update; `triage results resume NAME` lets "
        "go on what waits there"
    )


@pytest.mark.parametrize(
    ("web", "said"),
    [
        (WebSettings(), None),
        (WebSettings(host="0.0.0.0"), "NOBODY LOGS IN"),
        (WebSettings(allowed_hosts=("triage.example",)), "NOBODY LOGS IN"),
        (WebSettings(host="0.0.0.0", login=LoginSettings(mode="local")), None),
    ],
)
def test_pages_that_strangers_reach_without_log_in_are_told(
    web: WebSettings, said: str | None
) -> None:
    checks = list(log_in_checks(Settings(web=web)))
    assert [check.is_warning for check in checks] == [True] * (said is not None)
    assert all(check.text.startswith(said or "") for check in checks)


def test_refused_caller_is_a_warning_and_clocks_agree(tmp_path: Path, sqlite_url: str) -> None:
    database = Database(sqlite_url)
    with database.transaction() as session:
        now = datetime.now(UTC)
        record_refused_callers(
            session, [RefusedCaller("CT7", "192.0.2.7", "it is unknown", 3, now)]
        )
    database.close()
    check = check_named("senders", tmp_path, sqlite_url)
    assert check.is_warning
    assert "CT7 at 192.0.2.7 was refused 3 times, because it is unknown" in check.text
    assert check_named("clocks", tmp_path, sqlite_url).text == "agree with the database's"
