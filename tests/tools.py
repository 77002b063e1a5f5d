"""What the tests stand on: outside programs, a private PostgreSQL, a clock that is set by hand."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from triage.settings import DicomDestination

PROJECT = Path(__file__).resolve().parent.parent

_SHORTEST_LOOK_S = 0.01
_LONGEST_LOOK_S = 0.25


def require_tool(name: str) -> str:
    """Return the path of the program `name`; skip the test where it is not installed.

    With TRIAGE_REQUIRE_TOOLS=1 in the environment, as in CI, its absence fails the test instead.
    A program of the system goes before one of the virtual environment: pynetdicom installs a
    `storescu` and others of DCMTK's names there.
    """
    own = str(Path(sys.prefix) / "bin")
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    system = [folder for folder in path if folder != own]
    folders = [*system, "/usr/sbin", "/usr/local/sbin", "/sbin", own]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        missing(f"the program {name} is not installed")
    return found


def missing(what: str) -> None:
    """Skip the test, or fail it where TRIAGE_REQUIRE_TOOLS=1 says that everything must be there."""
    if os.environ.get("TRIAGE_REQUIRE_TOOLS") == "1":
        pytest.fail(f"TRIAGE_REQUIRE_TOOLS=1, but {what}")
    pytest.skip(what)


def find_free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def shared_data_directory() -> Path | None:
    """Return the folder of real DICOM files: TRIAGE_SHARED_DATA, or `shared/data` beside us."""
    named = os.environ.get("TRIAGE_SHARED_DATA")
    folder = Path(named) if named else PROJECT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Return once `condition()` is true; fail the test if that takes longer than `timeout_s`.

    The longer it takes, the seldomer it looks: a look is often a request or a query, on the
    processors that what it waits for needs.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > timeout_s:
            pytest.fail(f"after {timeout_s:g} s still waiting until {what}")
        time.sleep(min(max(waited / 10, _SHORTEST_LOOK_S), _LONGEST_LOOK_S))


def archive_named(name: str) -> DicomDestination:
    """Return a destination of objects at which nobody listens."""
    return DicomDestination(name=name, ae_title="ARCHIVE", host="127.0.0.1", port=104)


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return the moment that the test has set."""
        return self.now

    def advance(self, seconds: float) -> datetime:
        """Move on by `seconds` and return the new moment."""
        self.now += timedelta(seconds=seconds)
        return self.now


def _postgresql_program(name: str) -> str:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(installed[-1]) if installed else shutil.which(name)
    if found is None:
        missing(f"PostgreSQL's {name} is not installed")
        raise AssertionError
    return found


def _memory_folder() -> str | None:
    """Return a folder in memory, or None where the system has none with a gigabyte free."""
    folder = Path("/dev/shm")
    has_room = folder.is_dir() and shutil.disk_usage(folder).free > 1 << 30
    return str(folder) if has_room else None


class PostgresqlCluster:
    """A private PostgreSQL in a temporary folder, reached through a Unix socket in that folder.

    It has no durability, ends with the process that started it, and needs no port.
    """

    def __init__(self) -> None:
        self._initdb = _postgresql_program("initdb")
        self._postgres = _postgresql_program("postgres")
        # Not below pytest's own folder: that one is closed to other users, and a Unix socket's
        # path may have 107 bytes at most.
        # In memory, where there is some: making a database is making 300 files.
        self.folder = Path(tempfile.mkdtemp(prefix="triage-pg-", dir=_memory_folder()))
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # postgres refuses to run as root
            shutil.chown(self.folder, "postgres", "postgres")
            self.folder.chmod(0o755)
            self._as_user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self._server = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        data = str(self.folder / "data")
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
            # Databases of a second's life need neither statistics nor compiled expressions.
            "autovacuum": "off",
            "jit": "off",
        }
        setpriv = ["setpriv", *self._as_user]
        initdb = [self._initdb, "-D", data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8"]
        subprocess.run(
            [*setpriv, *initdb, "--locale=C"], check=True, capture_output=True, cwd=self.folder
        )
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [*setpriv, "--pdeathsig=QUIT", self._postgres, "-D", data, *options],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        wait_until(self._answers, "PostgreSQL answers", timeout_s=60)
        return server

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statement: str) -> None:
        """Run one statement outside any transaction."""
        with psycopg.connect(
            host=str(self.folder), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def url(self, name: str) -> str:
        """Return the SQLAlchemy address of the database `name`."""
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"

    def create_database(self, template: str = "template0") -> str:
        """Create a database as a copy of `template` and return its name."""
        name = f"triage_{uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, closing what is still connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def stop(self) -> None:
        """Stop the server at once and remove its folder."""
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)
