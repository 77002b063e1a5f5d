"""A package from a folder or an archive: unpacked, checked, kept and registered."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

from triage.models.archives import open_package
from triage.models.packages import ModelPackage, PackageError, load_package
from triage.models.registry import register_package
from triage.store.database import Database
from triage.store.model_tables import ModelRow


def register_at(
    store: Database, path: Path, data_directory: Path, *, who: str, reason: str, now: datetime
) -> ModelRow:
    """Register the package at `path`, a folder or an archive, and return its row.

    A new one begins as a shadow; one that is registered keeps its stage.

    Raises:
        PackageError: it is no package, or its name and version are registered with other content.
    """
    with open_package(path) as folder:
        kept = _keep(load_package(folder), data_directory)
    with store.transaction() as session:
        row = register_package(session, kept, who=who, reason=reason, now=now)
        session.expunge(row)
        return row


def _keep(package: ModelPackage, data_directory: Path) -> ModelPackage:
    """Copy the package to where it stays; its digest is its folder's name."""
    home = data_directory.absolute() / "models" / package.sha256
    if not home.is_dir():
        unfinished = home.with_name(f"{package.sha256}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(package.path, unfinished)
        unfinished.rename(home)
    kept = load_package(home)
    if kept.sha256 != package.sha256:
        raise PackageError(f"{home}: the copy differs from its source; look at the disk")
    return kept
