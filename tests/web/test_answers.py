"""What radiologists answer, over the API: per finding, what was missed, and signing off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.web.hospital import Hospital, hemorrhage
from triage.settings import ReadingSettings, Settings, WebSettings
from triage.web.app import create_app

OURS = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
CODE = {"value": "50960005", "scheme": "SCT", "meaning": "Hemorrhage"}


def _create(hospital: Hospital, folder: Path, **reading: Any) -> TestClient:
    """Return a client whose proxy names the person in X-Remote-User."""
    settings = Settings(
        data_directory=folder,
        web=WebSettings(user_header="X-Remote-User"),
        reading=ReadingSettings(**reading),
    )
    app = create_app(settings, hospital.database, hospital.files, hospital.clock)
    return TestClient(app, base_url="http://127.0.0.1", headers=OURS, follow_redirects=False)


@pytest.fixture
def api(hospital: Hospital, tmp_path: Path) -> Iterator[TestClient]:
    with _create(hospital, tmp_path / "data") as client:
        yield client


def as_(who: str) -> dict[str, str]:
    return {"X-Remote-User": who}


def analysed(hospital: Hospital, *, present: bool = True) -> tuple[str, list[str]]:
    """Return a study about which the model has spoken, and its images."""
    if not hospital.models:
        hospital.models["head"] = hospital.register_model()
    images = hospital.head_ct()
    uid = hospital.receive(*images)
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage(present=present))
    return uid, [str(image.SOPInstanceUID) for image in images]


def answers(api: TestClient, uid: str) -> dict[str, Any]:
    said: dict[str, Any] = api.get(f"/api/v1/studies/{uid}/answers").json()
    return said


def say(api: TestClient, uid: str, who: str, verdict: str) -> int:
    finding = answers(api, uid)["findings"][0]["finding_id"]
    address = f"/api/v1/studies/{uid}/answers/{finding}"
    return api.put(address, json={"verdict": verdict}, headers=as_(who)).status_code


def test_what_two_radiologists_say_is_both_kept_and_each_ones_last_word_counts(
    api: TestClient, hospital: Hospital
) -> None:
    uid, _ = analysed(hospital)
    assert say(api, uid, "ada", "agree") == 200
    assert say(api, uid, "bob", "disagree") == 200
    assert say(api, uid, "ada", "unsure") == 200
    said = answers(api, uid)["findings"][0]["answers"]
    assert [(one["who"], one["verdict"]) for one in said] == [
        ("ada", "unsure"),
        ("bob", "disagree"),
    ]
    finding = answers(api, uid)["findings"][0]["finding_id"]
    address = f"/api/v1/studies/{uid}/answers/{finding}"
    assert api.delete(address, headers=as_("ada")).status_code == 204
    said = answers(api, uid)["findings"][0]["answers"]
    assert [one["who"] for one in said] == ["bob"]


def test_a_finding_of_another_study_is_not_answered_on_this_one(
    api: TestClient, hospital: Hospital
) -> None:
    uid, _ = analysed(hospital)
    other, _ = analysed(hospital)
    finding = answers(api, other)["findings"][0]["finding_id"]
    refused = api.put(
        f"/api/v1/studies/{uid}/answers/{finding}", json={"verdict": "agree"}, headers=as_("ada")
    )
    assert refused.status_code == 404
    assert answers(api, other)["findings"][0]["answers"] == []


def test_signing_off_closes_the_answers_and_an_addendum_opens_them_again(
    api: TestClient, hospital: Hospital
) -> None:
    uid, _ = analysed(hospital)
    say(api, uid, "ada", "agree")
    signed = api.post(f"/api/v1/studies/{uid}/sign-off", headers=as_("ada")).json()
    assert (signed["is_open"], signed["signed_off_by"]) == (False, "ada")
    assert answers(api, uid)["read_at"] is not None
    assert say(api, uid, "bob", "disagree") == 409
    finding = answers(api, uid)["findings"][0]["finding_id"]
    from_page = api.post(
        f"/findings/{finding}/feedback", data={"verdict": "disagree"}, headers=as_("bob")
    )
    assert from_page.status_code == 409
    assert "ada has signed off the study; add an addendum" in from_page.json()["detail"]
    missed = api.post(
        f"/api/v1/studies/{uid}/missed-findings", json={"words": "fracture"}, headers=as_("bob")
    )
    assert missed.status_code == 409
    addenda = f"/api/v1/studies/{uid}/addenda"
    hospital.clock.advance(60)
    opened = api.post(addenda, json={"reason": "second look"}, headers=as_("bob")).json()
    assert opened["is_open"]
    assert opened["sign_offs"][0]["reopened_by"] == "bob"
    assert opened["sign_offs"][0]["reopen_reason"] == "second look"
    assert answers(api, uid)["read_at"] is not None  # it stays off the list
    assert say(api, uid, "bob", "disagree") == 200
    assert api.post(addenda, json={}, headers=as_("bob")).status_code == 409
    again = api.post(f"/api/v1/studies/{uid}/sign-off", headers=as_("bob")).json()
    assert [one["who"] for one in again["sign_offs"]] == ["ada", "bob"]


def test_marking_as_read_signs_off_and_putting_back_opens_again(
    api: TestClient, hospital: Hospital
) -> None:
    uid, _ = analysed(hospital)
    api.post(f"/studies/{uid}/read", headers=as_("ada"))
    assert answers(api, uid)["signed_off_by"] == "ada"
    api.post(f"/studies/{uid}/unread", headers=as_("ada"))
    assert answers(api, uid)["is_open"]
    assert say(api, uid, "ada", "agree") == 200


def test_signing_off_can_be_an_act_of_its_own(hospital: Hospital, tmp_path: Path) -> None:
    uid, _ = analysed(hospital)
    with _create(hospital, tmp_path / "data", sign_off_with_read=False) as api:
        api.post(f"/studies/{uid}/read", headers=as_("ada"))
        assert answers(api, uid)["is_open"]
        api.delete(f"/api/v1/studies/{uid}/read", headers=as_("ada"))
        api.post(f"/api/v1/studies/{uid}/sign-off", headers=as_("ada"))
        assert not answers(api, uid)["is_open"]
        assert answers(api, uid)["read_at"] is None


def test_images_that_come_after_the_sign_off_open_the_answers(
    api: TestClient, hospital: Hospital
) -> None:
    images = hospital.head_ct(slices=5)
    hospital.register_model()
    uid = hospital.receive(*images[:4])
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage())
    api.post(f"/studies/{uid}/read", headers=as_("ada"))
    hospital.clock.advance(60)
    hospital.receive(images[4])
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage())
    assert answers(api, uid)["is_open"]
    assert say(api, uid, "ada", "agree") == 200


def test_a_missed_finding_counts_as_missed_by_the_model_that_said_there_is_none(
    api: TestClient, hospital: Hospital
) -> None:
    uid, images = analysed(hospital, present=False)
    address = f"/api/v1/studies/{uid}/missed-findings"
    said = {
        "code": CODE,
        "laterality": "left",
        "sop_instance_uid": images[1],
        "mark": [10, 12, 20.5, 30],
    }
    reported = api.post(address, json=said, headers=as_("ada"))
    assert reported.status_code == 201, reported.text
    assert reported.json()["words"] == "Hemorrhage, left"
    found = answers(api, uid)
    assert found["missed"][0]["finding"]["mark"] == [10, 12, 20.5, 30]
    assert [one["verdict"] for one in found["findings"][0]["answers"]] == ["disagree"]
    hospital.clock.advance(60)
    page = api.get("/models/head-ct-hemorrhage/watch", headers={"Accept": "text/html"}).text
    cells = page.split('id="watch-findings"')[1].split("<tr")[2].split("</td>")
    assert [cell.rsplit(">", 1)[1] for cell in cells[4:7]] == ["0", "0", "1"]
    report = reported.json()["report_id"]
    assert api.delete(f"{address}/{report}", headers=as_("bob")).status_code == 404
    assert api.delete(f"{address}/{report}", headers=as_("ada")).status_code == 204
    found = answers(api, uid)
    assert (found["missed"], found["findings"][0]["answers"]) == ([], [])


def test_free_words_are_kept_out_of_the_history(api: TestClient, hospital: Hospital) -> None:
    uid, _ = analysed(hospital)
    address = f"/api/v1/studies/{uid}/missed-findings"
    assert api.post(address, json={"words": "rib 7"}, headers=as_("ada")).status_code == 201
    history = [one["text"] for one in api.get(f"/api/v1/studies/{uid}").json()["history"]]
    assert "ada reports a missed finding in free words" in history
    assert not any("rib 7" in text for text in history)
    assert answers(api, uid)["missed"][0]["words"] == "rib 7"


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({}, "choose a code or say in words"),
        ({"words": "x", "sop_instance_uid": "1.2.3"}, "sop_instance_uid: the study has no such"),
        ({"words": "x", "mark": [1, 2]}, "a mark needs the image"),
        ({"words": "x", "laterality": "up"}, "laterality"),
        ({"words": "x" * 201}, "words"),
    ],
)
def test_a_report_that_says_too_little_or_nonsense_is_refused(
    api: TestClient, hospital: Hospital, said: dict[str, Any], field: str
) -> None:
    uid, _ = analysed(hospital)
    refused = api.post(f"/api/v1/studies/{uid}/missed-findings", json=said, headers=as_("ada"))
    assert refused.status_code == 422
    assert field in refused.json()["detail"]
    assert answers(api, uid)["missed"] == []


def test_codes_are_those_that_registered_models_look_for(
    api: TestClient, hospital: Hospital
) -> None:
    hospital.register_model()
    hospital.register_model(stage="retired", name="old", findings=[])
    assert api.get("/api/v1/finding-codes").json() == [
        {"code": CODE, "models": ["head-ct-hemorrhage"]}
    ]


def test_nobody_answers_unnamed_and_no_other_sites_page_does(
    api: TestClient, hospital: Hospital
) -> None:
    uid, _ = analysed(hospital)
    finding = answers(api, uid)["findings"][0]["finding_id"]
    address, said = f"/api/v1/studies/{uid}/answers/{finding}", {"verdict": "agree"}
    assert api.put(address, json=said).status_code == 401
    foreign = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site", **as_("ada")}
    assert api.put(address, json=said, headers=foreign).status_code == 403
    assert api.post(f"/api/v1/studies/{uid}/sign-off", headers=foreign).status_code == 403
    assert answers(api, uid)["findings"][0]["answers"] == []
