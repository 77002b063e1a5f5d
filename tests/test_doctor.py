"""What `triage doctor` says of the archive that is asked for counts, and of watched models."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from tests.store.lived import add_runs, add_watched_model, every
from tests.tools import ManualClock, find_free_port
from triage.doctor import Check, examine
from triage.settings import RemoteSettings, WatchSettings, load_settings
from triage.store.database import Database
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
