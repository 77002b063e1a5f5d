"""A worker that carries one delivery: `python -m tests.results.killed_worker DATABASE DATA URL`."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from triage.results.delivery.rounds import deliver_next
from triage.settings import Settings, StowDestination
from triage.store.clock import system_clock
from triage.store.database import Database
from triage.store.files import InstanceFiles

if __name__ == "__main__":
    database_url, data, url = sys.argv[1:]
    archive = StowDestination(name="archive", kind="stow", url=url, timeout_s=5)
    deliver_next(
        Database(database_url),
        Settings(destinations=(archive,)),
        InstanceFiles(Path(data)),
        system_clock,
        random.random,
    )
