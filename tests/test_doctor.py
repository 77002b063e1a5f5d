"""What `triage doctor` says of the archive that is asked for counts."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tests.tools import PROJECT, find_free_port
from triage.doctor import Check, examine
from triage.models.packages import load_package
from triage.models.registry import register_package
from triage.settings import RemoteSettings, load_settings
from triage.store.database import Database


def count_check(tmp_path: Path, sqlite_url: str, *remotes: RemoteSettings) -> Check:
    """Return the check of `receiver.count_at = "pacs"`; nothing else runs."""
    settings = load_settings(
        data_directory=tmp_path,
        database={"url": sqlite_url},
        receiver={"port": find_free_port(), "count_at": "pacs"},
        web={"port": find_free_port()},
        prefect={"port": find_free_port()},
        remotes=[remote.model_dump() for remote in remotes],
    )
    return next(check for check in examine(settings) if check.name == "count_at")


def test_count_at_that_names_no_remote_is_said(tmp_path: Path, sqlite_url: str) -> None:
    check = count_check(tmp_path, sqlite_url)
    assert not check.is_ok
    assert check.text == "receiver.count_at names 'pacs', which is not among the [[remotes]]"


def test_archive_that_cannot_be_asked_is_said(tmp_path: Path, sqlite_url: str) -> None:
    port = find_free_port()
    away = RemoteSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, timeout_s=2)
    check = count_check(tmp_path, sqlite_url, away)
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
