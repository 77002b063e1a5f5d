"""What runs beside the receiver in its process: watched folder, priors, UPS events, places."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from triage.receiver.hl7 import Hl7Listener
from triage.receiver.placing import PlaceRounds
from triage.receiver.priors import PriorsRounds
from triage.receiver.rounds import Duty
from triage.receiver.ups.events import UpsEvents
from triage.receiver.watched_folder import WatchedFolder
from triage.settings import Settings, SettingsError
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.files import InstanceFiles

log = structlog.get_logger(__name__)


def companions(
    settings: Settings, database: Database, files: InstanceFiles, clock: Clock, name: str
) -> list[Duty]:
    """Return what the settings ask for; `name` is the receiver's.

    One process of a receiver runs them. What is wrongly configured is said and left out: studies
    are received all the same.
    """
    ups = partial(UpsEvents, settings, database, clock, name)
    places = partial(PlaceRounds, database, clock)
    wanted: list[tuple[str, Callable[[], Duty]]] = [
        ("subscribers are not told", ups),
        ("places do not follow the policy", places),
    ]
    if settings.watched_folder.path:
        watched = partial(
            WatchedFolder, settings.watched_folder, settings.receiver, database, files, clock
        )
        wanted.append(("no folder is watched", watched))
    if settings.priors.remote:
        priors = partial(PriorsRounds, settings, database, files, clock, name)
        wanted.append(("priors are not fetched", priors))
    if settings.hl7.port is not None:
        listener = partial(Hl7Listener, settings, database, clock)
        wanted.append(("no HL7 messages are taken", listener))
    found = []
    for otherwise, make in wanted:
        try:
            found.append(make())
        except SettingsError as error:
            log.error(otherwise, error=str(error))
    return found
