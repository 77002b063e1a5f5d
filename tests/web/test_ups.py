"""UPS-RS: workstations work the reading worklist over HTTP (DICOM PS3.18 section 11)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from pydicom.dataset import Dataset
from sqlalchemy import select
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.receiver.ups.workstation import creation, item, performed
from tests.store.rows import received
from tests.tools import ManualClock
from tests.web.hospital import Hospital
from triage.core.priority import Priority
from triage.settings import Settings, UpsSettings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.prioritising import raise_ai_priority
from triage.store.studies import complete_study, record_instance
from triage.store.tables import StudyRow
from triage.web.app import create_app

JSON = {"Content-Type": "application/dicom+json"}
CLAIM = "1.2.3.4.5"
CHANNEL = "/dicom-web/subscribers/READER"
EVERYTHING = "1.2.840.10008.5.1.4.34.5"
WHAT_MATCHES = "1.2.840.10008.5.1.4.34.5.1"


def body(dataset: Dataset) -> str:
    """Return a data set as UPS-RS takes it: an array of one DICOM JSON object."""
    return json.dumps([dataset.to_json_dict()])


def state(wanted: str, transaction_uid: str = CLAIM) -> str:
    return body(item(ProcedureStepState=wanted, TransactionUID=transaction_uid))


def create(client: httpx.Client, **changes: Any) -> str:
    """Create a workitem and return its UID."""
    answer = client.post("/dicom-web/workitems", content=body(creation(**changes)), headers=JSON)
    assert answer.status_code == 201
    return answer.headers["location"].rsplit("/", 1)[1]


def a_complete_study(database: Database, clock: ManualClock) -> None:
    with database.transaction() as session:
        record_instance(session, received(clock(), patient_name="Müller^Änne"), lambda _: True)
        complete_study(session, session.scalars(select(StudyRow)).one(), "quiet", clock())


def value(attributes: dict[str, Any], tag: str) -> Any:
    return attributes[tag]["Value"][0]


def test_a_study_is_found_claimed_read_and_completed(
    client: TestClient, hospital: Hospital
) -> None:
    a_complete_study(hospital.database, hospital.clock)
    query = {
        "ProcedureStepState": "SCHEDULED",
        "00100010": "müll*",
        "ScheduledWorkitemCodeSequence.CodeValue": "110005",
        "StudyInstanceUID": "1.2.3",
    }
    answer = client.get("/dicom-web/workitems", params=query)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    (found,) = answer.json()
    uid = value(found, "00080018")
    assert value(found, "00741200") == "MEDIUM"
    assert value(found, "00741202") == "Triage"
    assert "00404021" not in found
    with_inputs = client.get("/dicom-web/workitems", params={"includefield": "00404021"})
    assert len(value(with_inputs.json()[0], "00404021")["00081199"]["Value"]) == 1
    address = f"/dicom-web/workitems/{uid}"
    claimed = client.put(f"{address}/state", content=state("IN PROGRESS"), headers=JSON)
    assert (claimed.status_code, claimed.headers.get("warning")) == (200, None)
    too_early = client.put(f"{address}/state", content=state("COMPLETED"), headers=JSON)
    assert too_early.status_code == 409
    assert "(0074,1216)" in too_early.json()["detail"]
    done = performed(CLAIM)
    del done.TransactionUID
    assert client.post(address, content=body(done), headers=JSON).status_code == 409
    updated = client.post(
        address, params={"transaction-uid": CLAIM}, content=body(done), headers=JSON
    )
    assert updated.status_code == 200
    completed = client.put(f"{address}/state", content=state("COMPLETED"), headers=JSON)
    assert completed.status_code == 200
    again = client.put(f"{address}/state", content=state("COMPLETED"), headers=JSON)
    assert again.status_code == 200
    assert "already in the requested state of COMPLETED" in again.headers["warning"]
    (shown,) = client.get(address).json()
    assert value(shown, "00741000") == "COMPLETED"
    assert "00081195" not in shown
    assert len(value(shown, "00404021")["00081199"]["Value"]) == 1
    with hospital.database.reading() as session:
        assert session.scalars(select(StudyRow.read_at)).one() is not None


def test_creation_is_answered_with_its_address_and_a_warning_of_what_was_added(
    client: TestClient,
) -> None:
    given = body(creation(PatientName="Doe^Jane"))
    answer = client.post("/dicom-web/workitems?workitem=1.5.1", content=given, headers=JSON)
    assert answer.status_code == 201
    assert answer.headers["location"] == "http://127.0.0.1/dicom-web/workitems/1.5.1"
    assert answer.headers["warning"].startswith("299 http://127.0.0.1/dicom-web: The Workitem was")
    assert (
        client.post("/dicom-web/workitems?workitem=1.5.1", content=given, headers=JSON).status_code
        == 409
    )


@pytest.mark.parametrize(
    ("content", "headers", "status", "said"),
    [
        (body(creation(ProcedureStepState="COMPLETED")), JSON, 400, "(0074,1000)"),
        (body(creation(ScheduledProcedureStepPriority="URGENT")), JSON, 400, "(0074,1200)"),
        (body(creation(ProcedureStepLabel=None)), JSON, 400, "(0074,1204)"),
        ("[{}, {}]", JSON, 400, "one data set"),
        ("{", JSON, 400, "not JSON"),
        ('{"00741200": 1}', JSON, 400, "cannot be parsed"),
        ("<NativeDicomModel/>", {"Content-Type": "application/dicom+xml"}, 415, "dicom+json"),
    ],
)
def test_wrong_creation_names_the_attribute(
    client: TestClient, content: str, headers: dict[str, str], status: int, said: str
) -> None:
    answer = client.post("/dicom-web/workitems", content=content, headers=headers)
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_request_to_cancel_is_accepted_for_what_nobody_claimed(client: TestClient) -> None:
    uid = create(client)
    address = f"/dicom-web/workitems/{uid}"
    reason = body(item(ReasonForCancellation="ordered twice"))
    assert client.post(f"{address}/cancelrequest", content=reason, headers=JSON).status_code == 202
    again = client.post(f"{address}/cancelrequest")
    assert again.status_code == 202
    assert "already in the requested state of CANCELED" in again.headers["warning"]
    (shown,) = client.get(address).json()
    assert value(value(shown, "00741002"), "00741238") == "ordered twice"
    assert client.post("/dicom-web/workitems/1.9/cancelrequest").status_code == 404
    assert client.get("/dicom-web/workitems/1.9").status_code == 404


def test_search_pages_and_returns_what_is_asked_for(client: TestClient) -> None:
    for number in range(3):
        create(client, ProcedureStepLabel=f"Item {number}", ContentLabel="MORE")
    first = client.get("/dicom-web/workitems", params={"limit": 2})
    assert len(first.json()) == 2
    assert "additional results" in first.headers["warning"]
    assert "00700080" not in first.json()[0]
    rest = client.get(
        "/dicom-web/workitems", params={"limit": 2, "offset": 2, "includefield": "ContentLabel"}
    )
    assert [value(one, "00741204") for one in rest.json()] == ["Item 2"]
    assert value(rest.json()[0], "00700080") == "MORE"
    assert "warning" not in rest.headers
    none = client.get("/dicom-web/workitems", params={"ProcedureStepLabel": "Nothing"})
    assert (none.status_code, none.content) == (204, b"")
    for wrong in (
        {"NoSuchAttribute": "1"},
        {"limit": "many"},
        {"ScheduledProcedureStepStartDateTime": "yesterday"},
        {"PatientName.CodeValue": "1"},
    ):
        assert client.get("/dicom-web/workitems", params=wrong).status_code == 400


def test_xml_is_not_given(client: TestClient) -> None:
    answer = client.get("/dicom-web/workitems", headers={"Accept": "application/dicom+xml"})
    assert answer.status_code == 406


def test_client_needs_the_configured_authorization(
    sqlite_database: Database, files: InstanceFiles
) -> None:
    settings = Settings(ups=UpsSettings(authorization="Bearer secret"))
    app = create_app(settings, sqlite_database, files, ManualClock())
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get("/dicom-web/workitems").status_code == 401
        known = {"Authorization": "Bearer secret"}
        assert client.get("/dicom-web/workitems", headers=known).status_code == 204
        foreign = {**known, **JSON, "Origin": "https://evil.example"}
        answer = client.post("/dicom-web/workitems", content=body(creation()), headers=foreign)
        assert answer.status_code == 403


def test_it_can_be_switched_off(sqlite_database: Database, files: InstanceFiles) -> None:
    settings = Settings(ups=UpsSettings(enabled=False))
    app = create_app(settings, sqlite_database, files, ManualClock())
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get("/dicom-web/workitems").status_code == 404


@pytest.fixture
def outside(address: str) -> Iterator[httpx.Client]:
    """A client that talks to the server over a socket."""
    with httpx.Client(base_url=address) as client:
        yield client


def open_channel(address: str, ae_title: str = "READER", **headers: str) -> ClientConnection:
    return connect(
        f"{address.replace('http', 'ws', 1)}/dicom-web/subscribers/{ae_title}",
        additional_headers=headers,
    )


def test_raised_priority_arrives_as_an_event(
    outside: httpx.Client, address: str, hospital: Hospital
) -> None:
    answer = outside.post(f"/dicom-web/workitems/{EVERYTHING}/subscribers/READER")
    assert answer.status_code == 201
    assert answer.headers["content-location"] == (
        f"{address.replace('http', 'ws', 1)}/dicom-web/subscribers/READER"
    )
    with open_channel(address) as channel:
        a_complete_study(hospital.database, hospital.clock)
        scheduled = json.loads(channel.recv(timeout=10))
        with hospital.database.transaction() as session:
            study_id = session.scalars(select(StudyRow.id)).one()
            raise_ai_priority(session, study_id, Priority.STAT, "Hemorrhage", at=hospital.clock())
        raised = json.loads(channel.recv(timeout=10))
    assert value(scheduled, "00741200") == "MEDIUM"
    assert value(raised, "00741200") == "HIGH"
    assert value(raised, "00001002") == 1
    assert value(raised, "00741000") == "SCHEDULED"
    assert value(raised, "00404041") == "READY"
    assert value(raised, "00001000") == value(scheduled, "00001000")


def test_subscriber_that_is_away_is_told_when_it_opens_its_channel(
    outside: httpx.Client, address: str
) -> None:
    terms = {"deletionlock": "true", "filter": "ScheduledProcedureStepPriority=HIGH"}
    answer = outside.post(f"/dicom-web/workitems/{WHAT_MATCHES}/subscribers/READER", params=terms)
    assert answer.status_code == 201
    create(outside)
    urgent = create(outside, ScheduledProcedureStepPriority="HIGH")
    outside.put(f"/dicom-web/workitems/{urgent}/state", content=state("IN PROGRESS"), headers=JSON)
    with open_channel(address) as channel:
        told = [json.loads(channel.recv(timeout=10)) for _ in range(2)]
    assert [value(one, "00741000") for one in told] == ["SCHEDULED", "IN PROGRESS"]
    assert {value(one, "00001000") for one in told} == {urgent}
    assert (
        outside.post(f"/dicom-web/workitems/{WHAT_MATCHES}/subscribers/READER/suspend").status_code
        == 200
    )
    create(outside, ScheduledProcedureStepPriority="HIGH")
    gone = outside.delete(f"/dicom-web/workitems/{EVERYTHING}/subscribers/READER")
    assert gone.status_code == 200
    assert outside.post("/dicom-web/workitems/1.9/subscribers/READER").status_code == 404
    wrong = outside.post(f"/dicom-web/workitems/{urgent}/subscribers/READER/suspend")
    assert wrong.status_code == 400


def test_page_of_another_site_opens_no_channel(address: str, client: TestClient) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        open_channel(address, Origin="https://evil.example")
    assert refusal.value.response.status_code == 403
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(CHANNEL, headers={"host": "evil.example"}),
    ):
        pass


def test_channel_needs_the_configured_authorization(
    sqlite_database: Database, files: InstanceFiles
) -> None:
    settings = Settings(ups=UpsSettings(authorization="Bearer secret"))
    app = create_app(settings, sqlite_database, files, ManualClock())
    here = {"host": "127.0.0.1"}
    known = {**here, "Authorization": "Bearer secret"}
    with TestClient(app, base_url="http://127.0.0.1") as client:
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect(CHANNEL, headers=here),
        ):
            pass
        with client.websocket_connect(CHANNEL, headers=known) as channel:
            channel.close()
