"""A hospital on each kind of database."""

from __future__ import annotations

import pytest

from tests.tools import ManualClock
from tests.web.hospital import Hospital
from triage.store.database import Database
from triage.store.files import InstanceFiles


@pytest.fixture
def hospital(database: Database, files: InstanceFiles, clock: ManualClock) -> Hospital:
    """A hospital without studies, on SQLite and on PostgreSQL in turn."""
    return Hospital(database, files, clock)
