"""A listener on each kind of database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.tools import ManualClock
from triage.receiver.hl7 import Hl7Listener
from triage.settings import Settings
from triage.store.database import Database

Listen = Callable[..., Hl7Listener]


@pytest.fixture
def listen(database: Database, clock: ManualClock, free_port: int) -> Iterator[Listen]:
    """Start a listener with these settings of `[hl7]`, and of others by their section."""
    begun: list[Hl7Listener] = []

    def start(sections: dict[str, Any] | None = None, **changes: Any) -> Hl7Listener:
        settings = Settings(hl7={"port": free_port, **changes}, **(sections or {}))
        listener = Hl7Listener(settings, database, clock)
        listener.start()
        begun.append(listener)
        return listener

    yield start
    for listener in begun:
        listener.stop()
