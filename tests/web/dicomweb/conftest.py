"""A hospital that is read over DICOMweb, in memory and by an outside client."""

from __future__ import annotations

from typing import Any

import pytest
from dicomweb_client.api import DICOMwebClient
from fastapi.testclient import TestClient
from pydicom.dataset import Dataset

from tests.web.hospital import Hospital

ROOT = "/dicom-web"


@pytest.fixture
def head(hospital: Hospital) -> list[Dataset]:
    """The images of a held study."""
    images = hospital.head_ct()
    hospital.receive(*images)
    return images


@pytest.fixture
def outside(address: str) -> DICOMwebClient:
    """A client that others have made."""
    client = DICOMwebClient(f"{address}{ROOT}")
    client.host = address.removeprefix("http://")  # it leaves the port out of its Host header
    return client


def address_of(image: Dataset, *, level: str = "instance") -> str:
    """Return the path of an image, or of its series or study."""
    path = f"{ROOT}/studies/{image.StudyInstanceUID}"
    if level == "study":
        return path
    path += f"/series/{image.SeriesInstanceUID}"
    return path if level == "series" else f"{path}/instances/{image.SOPInstanceUID}"


def search(client: TestClient, path: str, **parameters: Any) -> list[dict[str, Any]]:
    """Return the results of a search that must succeed."""
    answer = client.get(f"{ROOT}/{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom+json"
    return list(answer.json())


def value(result: dict[str, Any], tag: str) -> Any:
    """Return the first value of an attribute, None where it is empty."""
    return result[tag].get("Value", [None])[0]


def parts_of(answer: Any) -> list[tuple[str, bytes]]:
    """Return media type and content of each part of a multipart answer."""
    kind = answer.headers["content-type"]
    assert kind.startswith("multipart/related; type=")
    boundary = b"--" + kind.partition("boundary=")[2].encode()
    first, *parts, last = answer.content.split(boundary)
    assert (first, last) == (b"", b"--\r\n")
    found = []
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        [media_type] = [
            line.partition(b": ")[2].decode()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-type:")
        ]
        found.append((media_type, content.removesuffix(b"\r\n")))
    return found
