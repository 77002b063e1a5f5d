"""What `triage doctor` says of the archive that is asked for counts."""

from __future__ import annotations

from pathlib import Path

from tests.tools import find_free_port
from triage.doctor import Check, examine
from triage.settings import RemoteSettings, load_settings


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
