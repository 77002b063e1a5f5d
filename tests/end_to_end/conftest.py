"""One running system with an archive for all end-to-end tests; it would idle for all others."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.end_to_end.system import RunningSystem
from tests.orthanc import Orthanc


@pytest.fixture(scope="package")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An Orthanc that takes the results."""
    orthanc = Orthanc(tmp_path_factory.mktemp("orthanc"))
    orthanc.start()
    yield orthanc
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
    running = RunningSystem(
        tmp_path_factory.mktemp("system"),
        {
            "TRIAGE_DESTINATIONS": json.dumps([destination]),
            "TRIAGE_RESULTS__FIRST_RETRY_S": "0.5",
        },
    )
    running.start()
    yield running
    running.stop()
