"""What runs beside the receiver in its process: the watched folder, and the fetching of priors."""

from __future__ import annotations

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
    found: list[Companion] = []
    if settings.watched_folder.path:
        found.append(
            WatchedFolder(settings.watched_folder, settings.receiver, database, files, clock)
        )
    if settings.priors.remote:
        try:
            found.append(PriorsRounds(settings, database, files, clock, name))
        except SettingsError as error:
            log.error("priors are not fetched", error=str(error))
    return found
