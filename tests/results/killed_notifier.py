"""A worker that tells one person: `python -m tests.results.killed_notifier DATABASE URL`."""

from __future__ import annotations

import random
import sys

from tests.results.notifying import pager_at, settings_with
from triage.results.notifying.rounds import send_next
from triage.store.clock import system_clock
from triage.store.database import Database

if __name__ == "__main__":
    database_url, url = sys.argv[1:]
    settings = settings_with(pager_at(url))
    send_next(Database(database_url), settings, system_clock, random.random, channel="pager")
