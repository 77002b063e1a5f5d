"""What a shadow model says is seen on the pages of the models and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.web.hospital import Hospital, hemorrhage, segmentation
from triage.core.query import Level, Query
from triage.store.query import find, instances_to_retrieve
from triage.store.runs import refuse_run
from triage.store.tables import InstanceRow, ResultObjectRow
from triage.worklist.changes import ChangeToken, change_token, recent_changes

SHADOW = "2.0.0"


@pytest.fixture
def study(hospital: Hospital) -> str:
    """A study in which the shadow found what production did not; both left objects."""
    hospital.register_model()
    hospital.register_model("shadow", version=SHADOW)
    images = hospital.head_ct()
    uid = hospital.receive(*images)
    hospital.complete(uid)
    masks = np.zeros((4, 64, 64), np.uint8)
    masks[1, 5:9, 5:9] = 1
    hospital.finish(hospital.claim(), hemorrhage(present=False))
    shadow = hospital.claim()
    assert shadow.manifest.version == SHADOW
    hospital.finish(shadow, hemorrhage(), objects=[segmentation(images, masks)])
    return uid


def test_no_page_of_a_radiologist_says_anything_of_it(client: TestClient, study: str) -> None:
    html = {"accept": "text/html"}
    for address in ("/", "/worklist/rows", "/read", f"/studies/{study}", "/status"):
        page = client.get(address, headers=html)
        assert page.status_code == 200
        assert SHADOW not in page.text, address
        assert "12.3 mL" not in page.text, address


def test_no_answer_of_the_api_says_anything_of_it(client: TestClient, study: str) -> None:
    view = client.get(f"/api/v1/studies/{study}").json()
    assert [run["stage"] for run in view["runs"]] == ["production"]
    assert [f["present"] for f in view["findings"]] == [False]
    assert [s["is_result"] for s in view["series"]] == [False]
    for address in (f"/api/v1/studies/{study}", "/api/v1/worklist", "/api/v1/status"):
        assert SHADOW not in client.get(address).text, address
    assert client.get(f"/studies/{study}/overlays").json() == []


def test_nothing_of_it_is_indexed_queried_or_retrieved(hospital: Hospital, study: str) -> None:
    keys: dict[str, Any] = {
        "StudyInstanceUID": (study,),
        "ModalitiesInStudy": (),
        "NumberOfStudyRelatedSeries": (),
    }
    (found,) = find(hospital.database, Query(Level.STUDY, keys))
    assert (found["ModalitiesInStudy"], found["NumberOfStudyRelatedSeries"]) == (["CT"], 1)
    with hospital.database.reading() as session:
        wanted = Query(Level.STUDY, {"StudyInstanceUID": (study,)})
        assert len(instances_to_retrieve(session, wanted)) == 4
        assert session.query(ResultObjectRow).all() == []
        assert session.query(InstanceRow).count() == 4


def test_open_pages_are_not_told(hospital: Hospital, study: str) -> None:
    late = hospital.receive(*hospital.head_ct(Modality="MR"))
    with hospital.database.reading() as session:
        before = change_token(session)
    hospital.complete(late)
    with hospital.database.reading() as session:
        kinds = [
            c.kind
            for c in recent_changes(session, change_token(session), ChangeToken())
            if c.event_id > before.newest_event_id
        ]
    assert kinds == ["complete", "not-routed"]


def test_refusals_of_a_shadow_are_no_reason_on_the_worklist(
    client: TestClient, hospital: Hospital
) -> None:
    hospital.register_model("shadow", version=SHADOW)
    hospital.complete(hospital.receive(*hospital.head_ct(Modality="MR")))
    hospital.complete(hospital.receive(*hospital.head_ct()))
    run = hospital.claim()
    with hospital.database.transaction() as session:
        refuse_run(session, run, "2 slices are missing", now=hospital.clock())
    texts = [e["status"]["text"] for e in client.get("/api/v1/worklist").json()["entries"]]
    assert texts == ["no model wants it: no model is registered"] * 2
    assert "2 slices are missing" not in client.get("/status").text
