"""A new database for Prefect's server is copied from a template instead of migrated.

Prefect brings an empty SQLite database to its schema in a hundred migrations: most of what the
first start of a data directory costs. The template is made once for each version of Prefect, by
Prefect's own command, in a folder where nobody works, and never from a database that is in use.
The server still migrates what it finds, so a template can spare work, but not leave any out.

`python -m triage.prefect_database COMMAND...` sees to the database of `PREFECT_HOME`, and then
becomes COMMAND. Next to nothing is imported: what this takes, the server starts later.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from triage.core.errors import TriageError

_NAME = "prefect.db"  # what Prefect calls it in its home
_OWN_DATABASE = ("PREFECT_API_DATABASE_", "PREFECT_SERVER_DATABASE_")
_MADE_WITHIN_S = 300.0


class TemplateError(TriageError):
    """There is no template to copy; the message says why."""


def template_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder of this user that templates are kept in.

    Raises:
        TemplateError: the user has no home.
    """
    if cache := environment.get("XDG_CACHE_HOME"):
        return Path(cache) / "triage"
    try:
        return Path.home() / ".cache" / "triage"
    except RuntimeError as error:
        raise TemplateError(str(error)) from error


def provide_database(home: Path, environment: Mapping[str, str]) -> bool:
    """Put a migrated database into a Prefect home that has none yet, and say whether one was put.

    Where variables say that the database is elsewhere, nothing is done.

    Raises:
        TemplateError: it could not be; Prefect makes its database by itself, as always.
    """
    is_elsewhere = any(name.startswith(_OWN_DATABASE) for name in environment)
    # A log of SQLite without its database would be taken for a log of the copy.
    if is_elsewhere or any(home.glob(f"{_NAME}*")):
        return False
    template = template_folder(environment) / f"prefect-{version('prefect')}.sqlite"
    try:
        if not template.exists():
            _make(template, environment)
        home.mkdir(parents=True, exist_ok=True)
        with _put_in_place(home / _NAME) as copy:
            shutil.copyfile(template, copy)
            _check(copy)
    except sqlite3.Error as error:
        template.unlink(missing_ok=True)  # the next start makes another
        raise TemplateError(f"{template} is no database of Prefect: {error}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise TemplateError(f"{template}: {error}") from error
    return True


def _make(template: Path, environment: Mapping[str, str]) -> None:
    template.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=template.parent, prefix="making-") as folder:
        subprocess.run(
            [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"],
            env={**environment, "PREFECT_HOME": folder},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=_MADE_WITHIN_S,
        )
        made = Path(folder) / _NAME
        with _put_in_place(template) as whole:
            # Into one file, whatever its log still holds.
            with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(whole)) as one:
                source.backup(one)
            _check(whole)


@contextlib.contextmanager
def _put_in_place(file: Path) -> Iterator[Path]:
    """Give a path to write to; it takes the place of `file` only whole and durable."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        yield Path(name)
        os.fsync(descriptor)
        Path(name).replace(file)
    finally:
        os.close(descriptor)
        Path(name).unlink(missing_ok=True)


def _check(file: Path) -> None:
    """Raise `sqlite3.Error` if the file is damaged or has no schema of Prefect."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        said = database.execute("PRAGMA quick_check").fetchone()
        if said != ("ok",):
            raise sqlite3.DatabaseError(f"damaged: {said}")
        if database.execute("SELECT version_num FROM alembic_version").fetchone() is None:
            raise sqlite3.DatabaseError("not migrated")


def main(command: list[str]) -> None:
    """See to the database of `PREFECT_HOME`, and become `command`."""
    # A stop while a template is made ends its maker too, and takes its folder away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        provide_database(Path(os.environ["PREFECT_HOME"]), os.environ)
    except TemplateError as error:
        sys.stderr.write(f"Prefect makes its database by itself: {error}\n")
    os.execv(command[0], command)  # noqa: S606 - the command of our own supervisor


if __name__ == "__main__":
    main(sys.argv[1:])
