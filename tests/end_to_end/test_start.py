"""Starting: what stands in the way is said in words, with what to do about it."""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from structlog.testing import capture_logs

from tests.tools import find_free_port
from triage.cli import main
from triage.demo.hospital import PATIENTS, Kind
from triage.demo.play import DemoError, Outcome, _hemorrhages_are_first, run_demo
from triage.settings import (
    PrefectSettings,
    ReceiverSettings,
    Settings,
    ViewerSettings,
    WebSettings,
)
from triage.supervisor import StartError, check_can_start


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose ports nobody uses."""
    return Settings(
        data_directory=tmp_path / "data",
        receiver=ReceiverSettings(port=find_free_port()),
        web=WebSettings(port=find_free_port()),
        prefect=PrefectSettings(port=find_free_port()),
    )


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_viewers_port_in_use_is_named_and_keeps_nothing_from_starting(
    settings: Settings, taken_port: int, tmp_path: Path
) -> None:
    (tmp_path / "index.html").touch()
    viewer = ViewerSettings(port=taken_port, path=tmp_path)
    with capture_logs() as logs:
        check_can_start(settings.model_copy(update={"viewer": viewer}))
    assert [entry["event"] for entry in logs] == ["no viewer"]
    assert f"port {taken_port} on 127.0.0.1, which the viewer needs" in logs[0]["reason"]
    assert f"TRIAGE_VIEWER__PORT={taken_port + 1}" in logs[0]["reason"]


def test_port_in_use_is_named_with_the_part_and_the_way_out(
    settings: Settings, taken_port: int
) -> None:
    blocked = settings.model_copy(update={"web": WebSettings(port=taken_port)})
    with pytest.raises(StartError) as raised:
        check_can_start(blocked)
    assert f"port {taken_port} on 127.0.0.1, which the web needs, is in use" in str(raised.value)
    assert f"TRIAGE_WEB__PORT={taken_port + 1}" in str(raised.value)


def test_second_start_on_the_same_folder_names_the_first(settings: Settings) -> None:
    settings.data_directory.mkdir()
    with (settings.data_directory / "triage.pid").open("w") as first:
        first.write("4711")
        first.flush()
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(StartError, match="stop it with: kill 4711"):
            check_can_start(settings)


def test_pid_file_of_a_run_that_was_killed_is_no_obstacle(settings: Settings) -> None:
    settings.data_directory.mkdir()
    (settings.data_directory / "triage.pid").write_text("4711")
    check_can_start(settings)


def test_demo_never_removes_a_folder_that_is_not_its_own(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.data_directory.mkdir()
    precious = settings.data_directory / "triage.sqlite"
    precious.write_text("patients")
    monkeypatch.setenv("TRIAGE_DATA_DIRECTORY", str(settings.data_directory))
    monkeypatch.setenv("TRIAGE_RECEIVER__PORT", str(settings.receiver.port))
    monkeypatch.setenv("TRIAGE_WEB__PORT", str(settings.web.port))
    monkeypatch.setenv("TRIAGE_PREFECT__PORT", str(settings.prefect.port))
    with pytest.raises(DemoError, match="holds data that is not a demo's"):
        run_demo(exit_when_done=True, console=Console(quiet=True))
    assert precious.read_text() == "patients"


def test_command_says_what_is_wrong_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIAGE_RECEIVER__PORT", "99999")
    ran = CliRunner().invoke(main, ["up"])
    assert ran.exit_code == 1
    assert "triage: receiver.port: " in ran.output
    assert "Traceback" not in ran.output


@pytest.mark.parametrize(("normal_place", "expected"), [(4, True), (2, False)])
def test_demo_succeeds_only_if_every_hemorrhage_is_above_every_normal_study(
    normal_place: int, expected: bool
) -> None:
    hemorrhages = [p for p in PATIENTS if p.kind is Kind.HEMORRHAGE]
    normal = next(p for p in PATIENTS if p.kind is Kind.NORMAL)
    places = [n for n in (1, 2, 3, 4) if n != normal_place]
    outcomes = [
        Outcome(patient, "", "", 1, place, None, "")
        for patient, place in zip([*hemorrhages, normal], [*places, normal_place], strict=True)
    ]
    assert _hemorrhages_are_first(outcomes) is expected
