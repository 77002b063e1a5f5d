"""What the routes work with, handed to them by the app."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Path, Request

from triage.receiver.entrance import Entrance
from triage.settings import Settings
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.web.board import Board
from triage.web.live import LiveUpdates
from triage.web.prefect_health import PrefectHealth
from triage.web.simulating import Simulations
from triage.web.trail import Trail
from triage.worklist.operations import DiskView, disk_view


@dataclass(frozen=True, slots=True)
class WebContext:
    """What the routes work with; `decoders` are the threads that decode images."""

    settings: Settings
    database: Database
    files: InstanceFiles
    clock: Clock
    live: LiveUpdates
    decoders: ThreadPoolExecutor
    trail: Trail
    board: Board
    prefect: PrefectHealth
    entrances: list[Entrance] = field(default_factory=list)
    simulations: Simulations = field(default_factory=Simulations)

    def entrance(self) -> Entrance:
        """Return the way in for instances; it is opened for the first that comes.

        Called in the event loop only, so that it is opened once.
        """
        if not self.entrances:
            self.entrances.append(
                Entrance(
                    self.database,
                    self.files,
                    self.settings.receiver,
                    self.clock,
                    kind="stow",
                    remote_models=[model.results_from for model in self.settings.remote_models],
                )
            )
        return self.entrances[0]

    def close_entrance(self) -> None:
        """Close the way in, if it was opened."""
        while self.entrances:
            self.entrances.pop().close()

    def now(self) -> datetime:
        """Return the present moment."""
        return self.clock()

    def disk(self) -> DiskView:
        """Return how full the disk of the images is."""
        return disk_view(self.files.free_bytes(), self.settings.receiver)


def web_context(request: Request) -> WebContext:
    """Return the context of the app that answers `request`."""
    context = request.app.state.context
    assert isinstance(context, WebContext)
    return context


async def _context(request: Request) -> WebContext:
    return web_context(request)  # a coroutine: FastAPI would give a function a thread


Context = Annotated[WebContext, Depends(_context)]

MOST_OFFSET = 2**31 - 1
"""A list has no more; a greater number is none that a database takes."""
UID_PATTERN = r"^[0-9]+(\.[0-9]+)*$"
Uid = Annotated[str, Path(pattern=UID_PATTERN, max_length=64, description="A DICOM UID (PS3.5 9)")]
FrameNumber = Annotated[int, Path(ge=1, le=1_000_000, description="Number of the frame, from 1")]
