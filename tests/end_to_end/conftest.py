"""One running system with an archive for all end-to-end tests; it would idle for all others."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.end_to_end.system import RunningSystem
from tests.orthanc import Orthanc
from tests.tools import PROJECT

MODEL = "head-ct-hemorrhage"


@pytest.fixture(scope="package")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An Orthanc that takes the results."""
    orthanc = Orthanc(tmp_path_factory.mktemp("orthanc"))
    try:
        yield orthanc.start()
    finally:
        orthanc.stop()


@pytest.fixture(scope="package")
def system(tmp_path_factory: pytest.TempPathFactory, archive: Orthanc) -> Iterator[RunningSystem]:
    """`triage up` on SQLite, whose results go to the archive."""
    destination = {
        "name": "orthanc",
        "ae_title": archive.ae_title,
        "host": "127.0.0.1",
        "port": archive.dicom_port,
    }
    registry = tmp_path_factory.mktemp("registry")
    (registry / MODEL).symlink_to(PROJECT / "model_registry" / MODEL)
    running = RunningSystem(
        tmp_path_factory.mktemp("system"),
        {
            # Others would be warmed at each start, for studies that do not come.
            "TRIAGE_MODEL_REGISTRY": str(registry),
            "TRIAGE_DESTINATIONS": json.dumps([destination]),
            "TRIAGE_RESULTS__FIRST_RETRY_S": "0.5",
        },
    )
    try:
        running.start()
        yield running
    finally:  # also where it did not start in time
        running.stop()
