"""Orthanc as the client: it finds a study at Triage and fetches it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydicom.dataset import Dataset

from tests.orthanc import Orthanc


@pytest.fixture
def orthanc(tmp_path: Path, address: str) -> Iterator[Orthanc]:
    """An Orthanc that knows Triage's DICOMweb."""
    servers = {"triage": [f"{address}/dicom-web"]}
    plugin = {"Enable": True, "Root": "/dicom-web/", "Servers": servers}
    orthanc = Orthanc(tmp_path / "orthanc", more={"DicomWeb": plugin}).start()
    yield orthanc
    orthanc.kill()


def test_orthanc_finds_a_study_and_fetches_all_of_it(orthanc: Orthanc, head: list[Dataset]) -> None:
    server = f"{orthanc.url}/dicom-web/servers/triage"
    uid = head[0].StudyInstanceUID
    found = httpx.post(
        f"{server}/qido",
        json={"Uri": "/studies", "Arguments": {"PatientID": head[0].PatientID}},
        timeout=60,
    )
    [study] = found.raise_for_status().json()
    assert [one["Value"] for one in study.values() if one["Name"] == "StudyInstanceUID"] == [uid]
    fetched = httpx.post(f"{server}/retrieve", json={"Resources": [{"Study": uid}]}, timeout=60)
    assert fetched.raise_for_status().is_success
    assert set(orthanc.sop_instance_uids()) == {str(image.SOPInstanceUID) for image in head}
