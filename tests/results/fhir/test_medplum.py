"""Against a FHIR R4 engine of others: Medplum's router, validator and repository.

They are published for Node: `npm install --prefix DIR` with `medplum/package.json` in DIR, and
TRIAGE_MEDPLUM=DIR. Without it these tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.results.fhir.notices import change_by_person, destination, result, withdrawal
from tests.tools import require_tool
from triage.results.delivery.fhir import tell

KINDS = {
    "Patient": 1,
    "Device": 1,
    "ImagingStudy": 1,
    "Observation": 2,
    "DiagnosticReport": 1,
    "Task": 1,
    "Provenance": 1,
    "AuditEvent": 1,
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    folder = os.environ.get("TRIAGE_MEDPLUM")
    if not folder:
        # Not a tool: nothing that Triage or its other tests need is written for Node.
        pytest.skip("TRIAGE_MEDPLUM names no folder with Medplum's packages")
    script = Path(folder) / "server.mjs"  # Node looks for packages beside the script
    shutil.copy(Path(__file__).parent / "medplum" / "server.mjs", script)
    process = subprocess.Popen([require_tool("node"), script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}/"
    process.kill()
    process.wait()


def all_of(url: str, kind: str) -> list[dict[str, Any]]:
    found = httpx.get(f"{url}{kind}").raise_for_status().json()
    return [entry["resource"] for entry in found.get("entry", [])]


def contents(url: str, kind: str) -> list[dict[str, Any]]:
    """Return the resources without their versions: it counts one for each PUT, equal or not."""
    return [
        {key: value for key, value in each.items() if key != "meta"} for each in all_of(url, kind)
    ]


def test_it_takes_what_it_is_told_once(url: str) -> None:
    there = destination(url)
    tell(result(), there)
    before = {kind: contents(url, kind) for kind in KINDS}
    tell(result(), there)
    assert {kind: contents(url, kind) for kind in KINDS} == before
    assert {kind: len(all_of(url, kind)) for kind in KINDS} == KINDS
    [report] = all_of(url, "DiagnosticReport")
    assert report["status"] == "preliminary"
    tell(change_by_person(), there)
    assert all_of(url, "Task")[0]["priority"] == "routine"
    tell(withdrawal(), there)
    tell(withdrawal(), there)
    [report] = all_of(url, "DiagnosticReport")
    assert report["status"] == "entered-in-error"
    assert {kind: len(all_of(url, kind)) for kind in KINDS} == KINDS | {
        "Provenance": 3,
        "AuditEvent": 3,
    }
