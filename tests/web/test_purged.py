"""Pages of studies whose images retention has deleted, and the disk on the status page."""

from __future__ import annotations

import numpy as np
from fastapi.testclient import TestClient
from pydicom.dataset import Dataset
from sqlalchemy import select

from tests.web.hospital import Hospital, hemorrhage, segmentation
from tests.web.test_images import frame_address
from triage.core.runs import DeliveryState
from triage.settings import ReceiverSettings, RetentionSettings, Settings
from triage.store.purge import Purger
from triage.store.tables import DeliveryRow, StudyRow
from triage.web.app import create_app
from triage.worklist.reading import mark_as_read


def purge(hospital: Hospital, images: list[Dataset], **retention: object) -> None:
    """Read the study and let retention delete it."""
    with hospital.database.transaction() as session:
        mark_as_read(session, images[0].StudyInstanceUID, now=hospital.clock())
    wanted = RetentionSettings.model_validate({"read_days": 0, **retention})
    purger = Purger(hospital.database, hospital.files, wanted, hospital.clock, holder="test")
    assert len(purger.go_round().studies) == 1


def analysed(hospital: Hospital) -> list[Dataset]:
    """Return the images of a study that a model has outlined a hemorrhage on."""
    hospital.register_model()
    images = hospital.head_ct()
    hospital.complete(hospital.receive(*images))
    mask = np.zeros((len(images), 64, 64), np.uint8)
    mask[1, 20:30, 20:30] = 1
    hospital.finish(hospital.claim(), hemorrhage(), objects=[segmentation(images, mask)])
    with hospital.database.transaction() as session:
        session.scalars(select(DeliveryRow)).one().state = DeliveryState.DELIVERED
    return images


def test_study_page_says_that_the_images_were_purged(
    client: TestClient, hospital: Hospital
) -> None:
    images = analysed(hospital)
    purge(hospital, images)
    page = client.get(f"/studies/{images[0].StudyInstanceUID}")
    assert page.status_code == 200
    assert "Images purged on" in page.text
    assert "images of read studies are kept for 0 days" in page.text
    assert "Hemorrhage" in page.text
    view = client.get(f"/api/v1/studies/{images[0].StudyInstanceUID}").json()
    assert view["purged_at"] is not None
    received = [one for one in view["series"] if not one["is_result"]]
    assert [(one["purged"], one["images"]) for one in received] == [(len(images), [])]


def test_purged_image_is_gone_and_not_an_error(client: TestClient, hospital: Hospital) -> None:
    images = analysed(hospital)
    before = client.get(frame_address(images[0]))
    purge(hospital, images)
    tag = {"If-None-Match": before.headers["etag"]}
    answer = client.get(frame_address(images[0]), headers=tag)
    assert answer.status_code == 410
    assert "deleted on 2026-03-01" in answer.json()["detail"]


def test_overlay_says_when_its_file_was_purged(client: TestClient, hospital: Hospital) -> None:
    images = analysed(hospital)
    study = images[0].StudyInstanceUID
    purge(hospital, images, result_files=True)
    (overlay,) = client.get(f"/studies/{study}/overlays").json()
    assert "deleted on 2026-03-01" in overlay["error"]
    place = f"{overlay['segmentation_uid']}/images/{images[0].SOPInstanceUID}/frames/1"
    assert client.get(f"/studies/{study}/overlays/{place}").status_code == 410


def test_status_shows_the_disk(hospital: Hospital) -> None:
    def shown(**receiver: int) -> tuple[str, str]:
        settings = Settings(receiver=ReceiverSettings(**receiver))
        app = create_app(settings, hospital.database, hospital.files, hospital.clock)
        with TestClient(app, base_url="http://127.0.0.1") as client:
            level: str = client.get("/api/v1/status").json()["disk"]["level"]
            return level, client.get("/status").text

    assert shown(warning_free_mb=0, minimum_free_mb=0)[0] == "roomy"
    level, page = shown(warning_free_mb=10**9, minimum_free_mb=0)
    assert (level, "Little is left" in page) == ("low", True)
    level, page = shown(warning_free_mb=10**9, minimum_free_mb=10**9)
    assert (level, "No image is taken" in page) == ("refusing", True)


def test_worklist_still_lists_what_was_purged_unread(
    client: TestClient, hospital: Hospital
) -> None:
    images = analysed(hospital)
    wanted = RetentionSettings(unread_days=0)
    Purger(hospital.database, hospital.files, wanted, hospital.clock, holder="test").go_round()
    with hospital.database.reading() as session:
        assert session.scalars(select(StudyRow.purged_at)).one() is not None
    assert images[0].StudyInstanceUID in client.get("/").text
