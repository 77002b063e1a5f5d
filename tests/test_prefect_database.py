"""The database that a new Prefect server finds: a copy of a template, or nothing at all."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest

from triage import prefect_database
from triage.prefect_database import TemplateError, provide_database
from triage.prefect_server import prefect_server_command
from triage.settings import Settings


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The variables of a user who has never started Triage."""
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def template(environment: dict[str, str]) -> Path:
    """Where the template of the installed Prefect belongs."""
    folder = Path(environment["XDG_CACHE_HOME"]) / "triage"
    folder.mkdir(parents=True)
    return folder / f"prefect-{version('prefect')}.sqlite"


def _make_template(file: Path, revision: str = "of the template") -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES (?)", (revision,))


def _revision(home: Path) -> str:
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        return str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def test_a_new_home_gets_a_copy_of_the_template(
    environment: dict[str, str], template: Path, tmp_path: Path
) -> None:
    _make_template(template)
    assert provide_database(tmp_path / "home", environment)
    assert _revision(tmp_path / "home") == "of the template"
    assert [f.name for f in (tmp_path / "home").iterdir()] == ["prefect.db"]


@pytest.mark.parametrize("there", ["prefect.db", "prefect.db-wal"])
def test_a_home_that_has_something_of_a_database_is_left_alone(
    there: str, environment: dict[str, str], template: Path, tmp_path: Path
) -> None:
    _make_template(template)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / there).write_bytes(b"flows of years")
    assert not provide_database(tmp_path / "home", environment)
    assert [f.read_bytes() for f in (tmp_path / "home").iterdir()] == [b"flows of years"]


@pytest.mark.parametrize(
    "variable",
    ["PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_HOST"],
)
def test_a_database_elsewhere_gets_no_copy(
    variable: str, environment: dict[str, str], template: Path, tmp_path: Path
) -> None:
    _make_template(template)
    assert not provide_database(tmp_path / "home", {**environment, variable: "elsewhere"})
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("damage", ["torn", "empty", "not migrated"])
def test_a_damaged_template_is_thrown_away_and_not_copied(
    damage: str, environment: dict[str, str], template: Path, tmp_path: Path
) -> None:
    _make_template(template)
    whole = template.read_bytes()
    if damage == "not migrated":
        with closing(sqlite3.connect(template)) as database, database:
            database.execute("DELETE FROM alembic_version")
    else:
        template.write_bytes(whole[:5000] if damage == "torn" else b"")
    with pytest.raises(TemplateError, match="is no database of Prefect"):
        provide_database(tmp_path / "home", environment)
    assert not list((tmp_path / "home").iterdir())
    assert not template.exists()


def test_a_template_that_cannot_be_made_is_said_and_leaves_nothing(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_database.sys, "executable", "/bin/false")
    with pytest.raises(TemplateError, match=r"sqlite: .*/bin/false"):
        provide_database(tmp_path / "home", environment)
    assert not (tmp_path / "home").exists()
    assert not list((tmp_path / "cache" / "triage").iterdir())


def test_the_server_is_started_also_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    variables = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PREFECT_HOME": str(tmp_path / "home"),
    }
    started = [sys.executable, "-m", "triage.prefect_database", "/bin/echo", "started"]
    ran = subprocess.run(started, env=variables, capture_output=True, text=True, check=True)
    assert ran.stdout == "started\n"
    assert ran.stderr.startswith("Prefect makes its database by itself: ")


def test_what_prefect_itself_makes_is_copied(tmp_path: Path) -> None:
    """The real thing, with the template that the whole systems of other tests need as well."""
    home = tmp_path / "home"
    assert provide_database(home, os.environ)
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        runs = database.execute("SELECT count(*) FROM flow_run").fetchone()[0]
    assert {"flow", "flow_run_state", "alembic_version"} <= tables
    assert runs == 0


def test_the_servers_command_sees_to_its_database_first(tmp_path: Path) -> None:
    command = prefect_server_command(Settings(data_directory=tmp_path))
    assert command[:5] == [
        *(sys.executable, "-m", "triage.prefect_database"),
        *(sys.executable, "-m"),
    ]
