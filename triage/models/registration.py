"""A package from a folder or an archive: unpacked, checked, kept and registered."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from triage.models.admission import Admission
from triage.models.registry import register_package
from triage.settings import Settings
from triage.store.database import Database
from triage.store.model_tables import ModelRow


def register_at(
    store: Database, path: Path, settings: Settings, *, who: str, reason: str, now: datetime
) -> ModelRow:
    """Register the package at `path`, a folder or an archive, and return its row.

    A new one begins as a shadow; one that is registered keeps its stage.

    Raises:
        PackageError: it is no package, or its name and version are registered with other content.
    """
    admitted = Admission(settings).admit(path)
    with store.transaction() as session:
        row = register_package(
            session,
            admitted.package,
            who=who,
            reason=reason,
            now=now,
            signed_by=admitted.signed_by,
        )
        session.expunge(row)
        return row
