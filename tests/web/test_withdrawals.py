"""Taking back a result, on the study page and over the API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.web.hospital import Hospital, hemorrhage, segmentation
from triage.settings import Settings, WebSettings
from triage.store.withdrawals import claim_due_withdrawal, mark_withdrawal_failed
from triage.web.app import create_app

OURS = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
HTML = {"Accept": "text/html"}
SAID = {"reason": "wrong-result", "text": "calcification"}


@pytest.fixture
def flagged(hospital: Hospital) -> tuple[str, int]:
    """A study that was flagged, and the run that did it."""
    hospital.register_model()
    images = hospital.head_ct()
    uid = hospital.receive(*images)
    hospital.complete(uid)
    run = hospital.claim()
    masks = np.zeros((len(images), 64, 64), np.uint8)
    masks[1, 20:30, 20:30] = 1
    hospital.finish(
        run,
        hemorrhage(key_image_uids=[str(images[1].SOPInstanceUID)]),
        objects=[segmentation(images, masks)],
    )
    return uid, run.run_id


def _study(client: TestClient, uid: str) -> dict[str, object]:
    answer: dict[str, object] = client.get(f"/api/v1/studies/{uid}").json()
    return answer


def test_a_click_takes_the_result_back_and_every_page_says_so(
    client: TestClient, flagged: tuple[str, int]
) -> None:
    uid, run = flagged
    assert _study(client, uid)["priority"] == "stat"
    page = client.get(f"/studies/{uid}", headers=HTML).text
    assert f'action="/runs/{run}/withdraw"' in page
    assert '<option value="patient-safety">' in page
    answer = client.post(
        f"/runs/{run}/withdraw",
        data=SAID,
        headers={**OURS, "Referer": f"http://127.0.0.1/studies/{uid}"},
    )
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/studies/{uid}#run-{run}"
    said = "withdrawn by reader at testclient, because the result is wrong: calcification"
    shown = client.get(f"/studies/{uid}", headers=HTML).text
    assert said[0].upper() + said[1:] in shown
    assert f'action="/runs/{run}/withdraw"' not in shown
    assert said in client.get("/", headers=HTML).text
    study = _study(client, uid)
    assert (study["priority"], study["ai_priority"], study["is_flagged"]) == (
        "routine",
        None,
        False,
    )
    status = study["status"]
    assert isinstance(status, dict)
    assert (status["kind"], status["text"]) == (
        "withdrawn",
        f"AI result {said} (head-ct-hemorrhage 1.0.0)",
    )


def test_what_was_withdrawn_is_no_longer_laid_over_the_images(
    client: TestClient, flagged: tuple[str, int]
) -> None:
    uid, run = flagged
    address = f"/studies/{uid}/overlays"
    assert client.get(address).json()
    assert client.post(f"/api/v1/runs/{run}/withdraw", json=SAID, headers=OURS).status_code == 200
    assert client.get(address).json() == []


def test_a_reader_is_told_of_what_was_withdrawn_after_the_reading(
    client: TestClient, hospital: Hospital, flagged: tuple[str, int]
) -> None:
    uid, run = flagged
    client.put(f"/api/v1/studies/{uid}/read", headers=OURS)
    hospital.clock.advance(60)
    client.post(f"/api/v1/runs/{run}/withdraw", json=SAID, headers=OURS)
    assert "an AI result was withdrawn after it was read" in client.get("/read", headers=HTML).text


def test_a_withdrawal_that_the_archives_are_not_told_of_is_seen(
    client: TestClient, hospital: Hospital, flagged: tuple[str, int]
) -> None:
    client.post(f"/api/v1/runs/{flagged[1]}/withdraw", json=SAID, headers=OURS)
    with hospital.database.transaction() as session:
        due = claim_due_withdrawal(session, lease=timedelta(minutes=1), now=hospital.clock())
        assert due is not None
        mark_withdrawal_failed(
            session,
            due,
            "the disk is full",
            retry_after=timedelta(minutes=1),
            now=hospital.clock(),
        )
    for page in ("/status", f"/studies/{flagged[0]}"):
        assert "the disk is full" in client.get(page, headers=HTML).text
    (stuck,) = client.get("/api/v1/status").json()["withdrawals"]
    assert stuck["run_id"] == flagged[1]


def test_programs_withdraw_in_a_persons_name(client: TestClient, flagged: tuple[str, int]) -> None:
    address = f"/api/v1/runs/{flagged[1]}/withdraw"
    answer = client.post(address, json={**SAID, "who": "dr-reader"}, headers=OURS)
    assert answer.status_code == 200
    assert answer.json()["who"] == "dr-reader"
    again = client.post(address, json=SAID, headers=OURS)
    assert again.status_code == 409
    assert "by dr-reader" in again.json()["detail"]


@pytest.mark.parametrize("reason", ["superseded", "", "because"])
def test_a_reason_is_chosen_from_the_list(
    client: TestClient, flagged: tuple[str, int], reason: str
) -> None:
    address = f"/api/v1/runs/{flagged[1]}/withdraw"
    assert client.post(address, json={"reason": reason}, headers=OURS).status_code == 422


def test_there_is_nothing_to_withdraw_of_other_runs(client: TestClient, hospital: Hospital) -> None:
    assert client.post("/api/v1/runs/99/withdraw", json=SAID, headers=OURS).status_code == 404
    hospital.register_model()
    uid = hospital.receive(*hospital.head_ct(slices=1))
    hospital.complete(uid)
    run = hospital.claim()
    answer = client.post(f"/api/v1/runs/{run.run_id}/withdraw", json=SAID, headers=OURS)
    assert answer.status_code == 409
    assert "is running" in answer.json()["detail"]


def test_another_sites_page_cannot_withdraw(client: TestClient, flagged: tuple[str, int]) -> None:
    uid, run = flagged
    evil = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    for address in (f"/runs/{run}/withdraw", f"/api/v1/runs/{run}/withdraw"):
        assert client.post(address, data=SAID, headers=evil).status_code == 403
        assert client.post(address, data=SAID).status_code == 403
    assert _study(client, uid)["priority"] == "stat"


@pytest.fixture
def behind_proxy(hospital: Hospital) -> Iterator[TestClient]:
    """A client of pages whose proxy names the person."""
    settings = Settings(web=WebSettings(user_header="X-Remote-User"))
    app = create_app(settings, hospital.database, hospital.files, hospital.clock)
    with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
        yield client


def test_the_proxys_name_counts(behind_proxy: TestClient, flagged: tuple[str, int]) -> None:
    address = f"/api/v1/runs/{flagged[1]}/withdraw"
    said = {**SAID, "who": "somebody else"}
    assert behind_proxy.post(address, json=said, headers=OURS).status_code == 401
    named = {**OURS, "X-Remote-User": "ada"}
    assert behind_proxy.post(address, json=said, headers=named).json()["who"] == "ada"
