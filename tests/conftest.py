"""Fixtures that all tests share: databases, real DICOM files, ports and the time."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog
from argon2 import PasswordHasher
from sqlalchemy import Engine
from xdist.scheduler import LoadScopeScheduling

from tests.tools import (
    ManualClock,
    PostgresqlCluster,
    find_free_port,
    shared_data_directory,
)
from triage.store import database as database_module
from triage.store import passwords
from triage.store.database import Database
from triage.store.files import InstanceFiles

# What is imported stays. Looking through half a million objects of it for garbage again and again
# took a sixth of the tests' processor time.
gc.disable()

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("triage", deadline=None)
hypothesis.settings.load_profile("triage")

# What shares a running system, or would starve its neighbours if it ran beside its own kind. The
# longest come first: begun last, they would keep one process busy while the others have ended.
_TOGETHER = (
    ("tests/end_to_end/", "tests/deployment/"),
    ("tests/chaos/", "tests/web/test_browser.py", "tests/fuzz/"),
)
# What is built of a series, by each process that has one of these tests.
_SAME_RESULTS = (
    ("tests/results/test_matrix.py", "tests/results/test_readers.py"),
    (
        "tests/results/test_build.py",
        "tests/results/test_heat_map.py",
        "tests/results/test_report.py",
        "tests/results/test_secondary_capture.py",
        "tests/results/test_segmentation.py",
        "tests/results/test_structure_set.py",
    ),
)
# Tests of a file share warm model hosts, a receiver or a browser, whose start takes seconds.
_BY_FILE = (
    "tests/flows/",
    "tests/models/",
    "tests/hostile/",
    "tests/results/fhir/",
    "tests/web/test_accessibility.py",
    "tests/web/test_notifications_browser.py",
    "tests/web/test_reading.py",
    "tests/web/test_viewer.py",
    "tests/web/test_worklist_browser.py",
)
# Single tests that take long too, and would be waited for at the end.
_LONG = (
    "tests/test_tutorial.py",
    "tests/core/test_head_ct_package.py",
    "tests/receiver/test_arrival.py",
)


class _Together(LoadScopeScheduling):
    """Sends tests to whichever process is free, but those that belong together to the same one.

    pytest-xdist's own mark for this has no effect with pytest 9.2, which computes node names.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(_BY_FILE):
            return nodeid.partition("::")[0]
        together = (*_TOGETHER, *_SAME_RESULTS)
        return next((places[0] for places in together if nodeid.startswith(places)), nodeid)


def _turn(nodeid: str) -> int:
    together = (place for places in (*_TOGETHER, *_SAME_RESULTS) for place in places)
    places = (*together, *_BY_FILE, *_LONG)
    return next((n for n, place in enumerate(places) if nodeid.startswith(place)), len(places))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that lets slow tests run too."""
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest; leave out what is slow and shows little that others do not."""
    items.sort(key=lambda item: _turn(item.nodeid))
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


def pytest_collection_finish() -> None:
    """Look for garbage again, but not in the modules and tests that stay until the end."""
    gc.freeze()
    gc.set_threshold(10_000)  # with 700, tests spend a tenth of their time on it
    gc.enable()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Together:
    """Return how tests are spread over the processes of pytest-xdist."""
    config.option.loadscopereorder = False  # by the number of tests, which says little
    return _Together(config, log)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what a command that ran in this process set up for the logs."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def statements_compiled_once() -> Iterator[None]:
    """Let all engines of a kind share their compiled statements, as one engine's transactions do.

    Each test has its own database and so its own engine, which would compile anew what the
    tests before it have compiled: half of the time of a test that uses a database.
    """
    create_engine = database_module._create_engine
    shared: dict[str, Engine] = {}

    def create_sharing_engine(*args: Any, **options: Any) -> Engine:
        engine = create_engine(*args, **options)
        first = shared.get(engine.name)
        if first is None or first.dialect.server_version_info is None:  # it was never connected
            shared[engine.name] = engine
        else:
            engine.dialect = first.dialect  # the cache's keys name it
            engine._compiled_cache = first._compiled_cache
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_module, "_create_engine", create_sharing_engine)
        yield


@pytest.fixture(scope="session", autouse=True)
def passwords_hashed_fast() -> Iterator[None]:
    """Hash passwords with the least that Argon2 allows, in this process alone."""
    with pytest.MonkeyPatch.context() as patch:
        least = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        patch.setattr(passwords, "_HASHER", least)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real DICOM files; tests that need it are skipped where it is absent."""
    folder = shared_data_directory()
    if folder is None:
        # Not a tool: CI installs programs, and these data are not for everybody to have.
        pytest.skip("there is no folder of test data; name one with TRIAGE_SHARED_DATA")
    return folder


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on."""
    return find_free_port()


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until the test moves it."""
    return ManualClock()


@pytest.fixture
def files(tmp_path: Path) -> InstanceFiles:
    """An empty folder of instances."""
    return InstanceFiles(tmp_path / "data")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlCluster]:
    """A private PostgreSQL cluster (each pytest-xdist worker has its own)."""
    cluster = PostgresqlCluster()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def migrated_postgresql(postgresql: PostgresqlCluster) -> str:
    """The name of a database with the newest schema, to be copied for each test."""
    name = postgresql.create_database()
    database = Database(postgresql.url(name))
    database.migrate()
    database.close()
    return name


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the newest schema, to be copied for each test."""
    file = tmp_path_factory.mktemp("sqlite") / "triage.sqlite"
    database = Database(f"sqlite:///{file}")
    database.migrate()
    with database.engine.connect() as connection:
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return file


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """The address of a fresh SQLite database with the newest schema."""
    shutil.copyfile(migrated_sqlite, tmp_path / "triage.sqlite")
    return f"sqlite:///{tmp_path / 'triage.sqlite'}"


@pytest.fixture
def postgresql_url(postgresql: PostgresqlCluster, migrated_postgresql: str) -> Iterator[str]:
    """The address of a fresh PostgreSQL database with the newest schema."""
    name = postgresql.create_database(template=migrated_postgresql)
    yield postgresql.url(name)
    postgresql.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database without any schema, on each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.sqlite'}"
        return
    cluster: PostgresqlCluster = request.getfixturevalue("postgresql")
    name = cluster.create_database()
    yield cluster.url(name)
    cluster.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The address of a fresh database with the newest schema, on each kind in turn."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh database with the newest schema, on SQLite and on PostgreSQL in turn."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    """A fresh SQLite database, for tests whose outcome does not depend on the database."""
    database = Database(sqlite_url)
    yield database
    database.close()


@pytest.fixture
def postgresql_database(postgresql_url: str) -> Iterator[Database]:
    """A fresh PostgreSQL database."""
    database = Database(postgresql_url)
    yield database
    database.close()
