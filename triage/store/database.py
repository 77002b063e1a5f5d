"""The database: an engine for SQLite or PostgreSQL, sessions, and its migrations."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

from sqlalchemy import (
    Connection,
    Engine,
    PoolProxiedConnection,
    create_engine,
    event,
    inspect,
)
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.store.syncing import sync

_SQLITE_BUSY_TIMEOUT_MS = 30_000
_MIGRATIONS = Path(__file__).parent / "migrations"


class DatabaseError(TriageError):
    """The database cannot be used; the message says why and what to do."""


class Database:
    """Sessions on one database. A session is one transaction: committed whole, or not at all."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _create_engine(url)
        file = make_url(url).database if self.is_sqlite else None
        self._kept = {True: _Kept(), False: _Kept()}
        self._file = file if file != ":memory:" else None
        self._queue = _Queue(f"{self._file}.writers") if self._file else nullcontext()

    @property
    def file(self) -> str | None:
        """The file of an SQLite database; None of PostgreSQL, and of a database in memory."""
        return self._file

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the embedded database."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Give a session that writes; commit at the end, roll back if an exception leaves it.

        On SQLite the write lock is taken at once (BEGIN IMMEDIATE): a transaction that reads first
        and writes later would otherwise fail with SQLITE_BUSY beside another writer.
        """
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def connection(self, *, is_durable: bool = True) -> Iterator[Connection]:
        """Give a connection that writes, as `transaction` does, without the weight of a session.

        Processes that use it wait for one another in a queue. SQLite by itself has none: who finds
        another writer sleeps for up to 0.1 s and tries again.

        Where `is_durable` is false, the commit of SQLite does not wait for the disk. It outlives
        the process all the same; a power failure only from `make_durable`, or the next durable
        commit, on. PostgreSQL always waits: its server may end by itself and lose such commits,
        and nobody here would know.
        """
        with self._queue, self._engine_for(is_durable=is_durable).begin() as connection:
            yield connection

    @contextmanager
    def cursor(self, *, is_durable: bool) -> Iterator[Any]:
        """Give a cursor of the driver in a transaction, as `connection` does.

        The connections are kept, so there is one for all threads that want the same durability.
        They wait for one another.

        Raises:
            Exception: what the driver raises.
        """
        with self._queue, self._kept[is_durable] as kept:
            cursor = kept.cursor(self._engine_for(is_durable=is_durable))
            try:
                if self.is_sqlite:
                    cursor.execute("BEGIN IMMEDIATE")
                yield cursor
                cursor.connection.commit()
            except BaseException:
                kept.drop()  # the next one begins with a connection that was looked at
                raise

    def _engine_for(self, *, is_durable: bool) -> Engine:
        return self.engine if is_durable or not self.is_sqlite else self._hasty_engine

    @cached_property
    def _hasty_engine(self) -> Engine:
        return _create_engine(self.url, synchronous="NORMAL")

    def make_durable(self) -> None:
        """Return once all that was committed is durable.

        Raises:
            OSError: it is not.
        """
        if self._file is not None:
            # What is not in the write-ahead log any more was synced before it was taken from there.
            with suppress(FileNotFoundError):
                sync(f"{self._file}-wal")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session that only reads; it takes no write lock."""
        with (
            self.engine.connect().execution_options(triage_reads=True) as connection,
            Session(connection, expire_on_commit=False) as session,
        ):
            yield session

    def migrate(self) -> None:
        """Bring the schema to the newest version."""
        if self.is_sqlite:
            database = make_url(self.url).database
            if database:
                Path(database).parent.mkdir(parents=True, exist_ok=True)
        with self.engine.begin() as connection:
            if not self.is_sqlite:
                # Two processes that start together must not migrate at the same time.
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7492031)")
            _upgrade(connection)

    def check_schema(self) -> None:
        """Raise DatabaseError unless the schema is the one that this version expects."""
        wanted = newest_migration()
        with self.engine.connect().execution_options(triage_reads=True) as connection:
            found = (
                connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
                if inspect(connection).has_table("alembic_version")
                else None
            )
        if found != wanted:
            raise DatabaseError(
                f"the database schema is at {found or 'nothing'}, this version needs {wanted}; "
                "run `triage prepare`"
            )

    def close(self) -> None:
        """Close all connections."""
        for kept in self._kept.values():
            with kept:
                kept.drop()
        if isinstance(self._queue, _Queue):
            self._queue.close()
        self.engine.dispose()
        if self.is_sqlite:
            self._hasty_engine.dispose()


def newest_migration() -> str:
    """Return the name of the newest migration, which is that of its file."""
    return max(file.stem for file in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def _upgrade(connection: Connection) -> None:
    # Who only looks at the schema, as each process does when it starts, does not wait for Alembic.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


class _Queue:
    """The writers of a file, one after the other, whatever thread or process they are in.

    The lock of the file belongs to the open descriptor, which is kept: opening it takes longer than
    locking. So the threads of this process wait for one another at a lock of their own.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            if self._descriptor is None:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o640)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            if self._descriptor is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the file; who writes next opens it again."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor = None


class _Kept:
    """A connection of the driver that stays out of its pool; used within `with`, by one thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: PoolProxiedConnection | None = None

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def cursor(self, engine: Engine) -> Any:
        if self._connection is None:
            self._connection = engine.raw_connection()
        return self._connection.cursor()

    def drop(self) -> None:
        if self._connection is not None:
            with suppress(Exception):  # it may be broken, which is why it is dropped
                self._connection.invalidate()
        self._connection = None


def _create_engine(url: str, synchronous: str = "FULL") -> Engine:
    # hide_parameters: the values of a failed statement are patients' names, and errors are logged.
    if url.startswith("sqlite"):
        engine = create_engine(
            url,
            connect_args={"timeout": _SQLITE_BUSY_TIMEOUT_MS / 1000},
            hide_parameters=True,
        )
        event.listen(engine, "connect", partial(_configure_sqlite, synchronous))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(url, pool_pre_ping=True, hide_parameters=True)


def _configure_sqlite(synchronous: str, connection: Any, _: Any) -> None:
    # The driver's own transaction control would begin too late; see _begin_sqlite.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    # FULL: what was answered with success survives a power failure.
    cursor.execute(f"PRAGMA synchronous = {synchronous}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA busy_timeout = {_SQLITE_BUSY_TIMEOUT_MS}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    reads = connection.get_execution_options().get("triage_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
