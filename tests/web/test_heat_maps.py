"""Heat maps for the viewer: of parametric maps, and of pictures where a model leaves no map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydicom.dataset import Dataset

from tests.web.hospital import Hospital
from tests.web.radiographs import analysed_chest
from triage.store.tables import InstanceRow


def listed(client: TestClient, image: Dataset) -> list[dict[str, Any]]:
    return list(client.get(f"/studies/{image.StudyInstanceUID}/heat-maps").json())


def strengths(client: TestClient, image: Dataset, one: dict[str, Any]) -> np.ndarray[Any, Any]:
    [place] = one["images"]
    assert place == {"sop_instance_uid": image.SOPInstanceUID, "frame": 1}
    answer = client.get(
        f"/studies/{image.StudyInstanceUID}/heat-maps/{one['map_uid']}"
        f"/images/{image.SOPInstanceUID}/frames/1"
    )
    assert answer.status_code == 200
    shape = int(answer.headers["X-Image-Rows"]), int(answer.headers["X-Image-Columns"])
    assert shape == (one["rows"], one["columns"])
    return np.frombuffer(answer.content, np.uint8).reshape(shape)


@pytest.mark.parametrize(
    "changes", [{}, {"PatientOrientation": None, "ImagerPixelSpacing": None, "PixelSpacing": None}]
)
def test_picture_of_a_heat_map_is_laid_over_the_radiograph(
    client: TestClient, hospital: Hospital, tmp_path: Path, changes: dict[str, None]
) -> None:
    image, made = analysed_chest(hospital, tmp_path, **changes)
    [one] = listed(client, image)
    assert one["map_uid"] == made[-1].SOPInstanceUID
    assert one["label"] == "Saliency: Pneumothorax"
    assert one["model"] == "chest-xray 2.1.0"
    assert (one["low"], one["high"], one["covers_image"]) == (0, 1, True)
    found = strengths(client, image, one)
    across, down = found.shape[1] / image.Columns, found.shape[0] / image.Rows
    hot = np.zeros((120, 100), bool)
    hot[12:38, 62:88] = True  # the model's, without its blurred edge
    for row, column in [(25, 75), (13, 63), (37, 87), (5, 75), (80, 75), (25, 50)]:
        value = found[int((row + 0.5) * down), int((column + 0.5) * across)]
        assert value == (255 if hot[row, column] else 0)


def test_parametric_map_goes_before_the_picture_of_the_same_model(
    client: TestClient, hospital: Hospital, tmp_path: Path
) -> None:
    image, _ = analysed_chest(
        hospital, tmp_path, "sr", "heat-map", "parametric-map", ImagerPixelSpacing=[0.2, 0.2]
    )
    [one] = listed(client, image)
    assert one["covers_image"] is False
    assert strengths(client, image, one).shape == (120, 100)
    assert strengths(client, image, one)[25, 75] == 255


def test_picture_of_an_image_that_is_not_here_is_not_listed(
    client: TestClient, hospital: Hospital, tmp_path: Path
) -> None:
    image, _ = analysed_chest(hospital, tmp_path)
    with hospital.database.transaction() as session:
        row = session.query(InstanceRow).filter_by(sop_instance_uid=image.SOPInstanceUID).one()
        row.purged_at = hospital.clock()
    assert listed(client, image) == []


def test_damaged_picture_is_named(client: TestClient, hospital: Hospital, tmp_path: Path) -> None:
    image, made = analysed_chest(hospital, tmp_path)
    with hospital.database.reading() as session:
        row = session.query(InstanceRow).filter_by(sop_instance_uid=made[-1].SOPInstanceUID).one()
        hospital.files.absolute(row.path).write_bytes(b"no DICOM")
    [one] = listed(client, image)
    assert "the heat map cannot be read" in one["error"]
    assert one["images"] == []
