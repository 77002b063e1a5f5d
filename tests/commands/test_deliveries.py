"""`triage results`, as an administrator calls it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.results.outgoing import Outgoing, outgoing
from tests.results.web_server import Reply, web_server
from tests.tools import ManualClock
from triage.cli import main
from triage.settings import StowDestination
from triage.store.database import Database

CONFIG = """
[database]
url = "{url}"

[[destinations]]
name = "archive"
kind = "stow"
url = "http://127.0.0.1:9/dicom-web"
"""


@pytest.fixture
def out(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Outgoing:
    """An installation with two dead letters at "archive"."""
    config = tmp_path / "triage.toml"
    config.write_text(CONFIG.format(url=sqlite_database.url))
    monkeypatch.setenv("TRIAGE_CONFIG", str(config))
    monkeypatch.setenv("TRIAGE_DATA_DIRECTORY", str(tmp_path / "data"))
    with web_server() as server:
        server.usual = lambda _: Reply(413)
        archive = StowDestination(name="archive", kind="stow", url=server.url)
        out = outgoing(sqlite_database, tmp_path, clock, archive)
        out.deliver_all()
    assert out.states() == ["dead", "dead"]
    return out


def triage(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["results", *arguments])


def said(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return re.sub(r"[│┃━─╇┡┩┏┓└┘┴┬┳\s]+", " ", result.output)


def test_destinations_and_deliveries_are_listed(out: Outgoing) -> None:
    assert "archive stow sending 0 2 0" in said(triage("destinations"))
    listed = said(triage("deliveries"))
    assert "SR archive dead 1 archive answered HTTP 413: it is too long" in listed
    assert "Mend what is said here and send this again, or give it up." in listed
    assert "dead" not in said(triage("deliveries", "--destination", "other"))


def test_pause_and_resume(out: Outgoing) -> None:
    assert triage("pause", "archive").exit_code != 0  # no reason
    said(triage("pause", "archive", "--who", "A. Grey", "--reason", "an [update]"))
    assert "paused by A. Grey: an [update]" in said(triage("destinations"))
    said(triage("resume", "archive"))
    again = triage("resume", "archive")
    assert (again.exit_code, "archive is not paused" in again.output) == (1, True)
    unknown = triage("pause", "pacs", "--reason", "x")
    assert "there is no destination 'pacs' (known: archive)" in unknown.output


def test_resend_and_give_up(out: Outgoing) -> None:
    first, second = (str(row.id) for row in out.rows())
    assert "1 sent again" in said(triage("resend", first))
    assert "1 given up" in said(triage("give-up", second, "--reason", "a phantom"))
    assert out.states() == ["waiting", "given-up"]
    assert "0 sent again" in said(triage("resend", "--destination", "archive"))
    assert "0 given up" in said(triage("give-up", "--destination", "archive", "--reason", "x"))
    assert triage("resend").exit_code == 2
    assert triage("resend", first, "--destination", "archive").exit_code == 2
    assert f"delivery {second} is given-up" in triage("give-up", second, "--reason", "x").output
