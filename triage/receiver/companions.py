"""What runs beside the receiver in its process: the watched folder, and the fetching of priors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import structlog

from triage.receiver.priors import PriorsRounds
from triage.receiver.watched_folder import WatchedFolder
from triage.settings import Settings, SettingsError
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.files import InstanceFiles

log = structlog.get_logger(__name__)


class Companion(Protocol):
    """Something with threads of its own."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """End, and wait for that."""
        ...


def companions(
    settings: Settings, database: Database, files: InstanceFiles, clock: Clock, name: str
) -> list[Companion]:
    """Return what the settings ask for; `name` is the receiver's.

    One process of a receiver runs them. What is wrongly configured is said and left out: studies
    are received all the same.
    """
    wanted: list[tuple[str, Callable[[], Companion]]] = []
    if settings.watched_folder.path:
        watched = partial(
            WatchedFolder, settings.watched_folder, settings.receiver, database, files, clock
        )
        wanted.append(("no folder is watched", watched))
    if settings.priors.remote:
        priors = partial(PriorsRounds, settings, database, files, clock, name)
        wanted.append(("priors are not fetched", priors))
    found = []
    for otherwise, make in wanted:
        try:
            found.append(make())
        except SettingsError as error:
            log.error(otherwise, error=str(error))
    return found
