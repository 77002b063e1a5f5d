"""The database for a command, and who gives the command."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from triage.settings import Settings

if TYPE_CHECKING:
    from triage.store.database import Database


@contextmanager
def opened_store(settings: Settings) -> Iterator[Database]:
    """Give the installation's database, and close it.

    Raises:
        DatabaseError: its schema is not the one that this version needs.
    """
    from triage.store.database import Database

    store = Database(settings.database_url)
    try:
        store.check_schema()
        yield store
    finally:
        store.close()


def this_user() -> str:
    """Return the name of the operating system's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return "unnamed user"


who_option = click.option(
    "--who", default=this_user, show_default="the operating system's user", help="Who decides this."
)
reason_option = click.option("--reason", required=True, help="Why; it stays in the history.")
