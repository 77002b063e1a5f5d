"""Packages of models for the tests of the pages; nobody loads their weights."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import yaml

from tests.tools import ManualClock
from tests.web.hospital import MANIFEST, Hospital
from triage.core.stages import Stage
from triage.models.packages import load_package
from triage.models.registry import register_package
from triage.models.stages import version_of
from triage.store.code_approvals import approve_code
from triage.store.database import Database

NAME = str(MANIFEST["name"])


def write_package(folder: Path, version: str, **changes: object) -> Path:
    """Write a package with the tests' manifest into `folder`, and return its folder."""
    home = folder / version
    home.mkdir(parents=True)
    weights = version.encode()
    (home / "model.pt2").write_bytes(weights)
    runner = {**MANIFEST["runner"], "weights_sha256": hashlib.sha256(weights).hexdigest()}
    content = {**MANIFEST, "version": version, "runner": runner, **changes}
    (home / "model.yaml").write_text(yaml.safe_dump(content))
    return home


def register_versions(
    database: Database, clock: ManualClock, folder: Path, stages: dict[str, Stage]
) -> None:
    """Register a version of the tests' model in each of the stages."""
    for version, stage in stages.items():
        package = load_package(write_package(folder, version))
        with database.transaction() as session:
            register_package(session, package, stage=stage, who="ada", reason="tests", now=clock())
            # Whoever cannot read the program must take it for code.
            approve_code(session, package.sha256, who="ada", reason="tests", now=clock())


def park(hospital: Hospital) -> None:
    """Let the breaker have parked version 1.0.0."""
    with hospital.database.transaction() as session:
        row = version_of(session, NAME, "1.0.0")
        row.parked_until = hospital.clock() + timedelta(minutes=5)
        row.parked_reason = "it crashed"
