"""The page of operations, its API, and the figures for monitoring."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from tests.web.hospital import Hospital, hemorrhage
from triage.core.devices import DeviceState
from triage.core.progress import RunStep
from triage.core.remote import ReturnedState
from triage.core.visits import Way
from triage.store.tables import ReturnedObjectRow
from triage.store.visit_tables import VisitRow
from triage.store.visits import RefusedCaller, record_refused_callers
from triage.store.workers import Heartbeat, beat
from triage.worklist.next_steps import next_step_of

OURS = {"Origin": "http://127.0.0.1"}
HTML = {"Accept": "text/html"}
SCRIPT = {"X-Triage-Request": "script"}
GPU = DeviceState(
    name="cuda:0",
    title="NVIDIA H200",
    memory_used_bytes=20_000_000_000,
    memory_total_bytes=150_000_000_000,
    busy=0.42,
)


@pytest.fixture
def busy(hospital: Hospital) -> Hospital:
    """A hospital with a silent sender, a stranger, a run in progress, and two workers."""
    now = hospital.clock()
    hospital.register_model()
    uid = hospital.receive(*hospital.head_ct())
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage())
    other = hospital.receive(*hospital.head_ct())
    hospital.complete(other)
    hospital.claim()
    waits = hospital.receive(*hospital.head_ct())
    hospital.complete(waits)
    step = timedelta(minutes=10)
    moments = [now - timedelta(hours=3) - n * step for n in range(13 * 24 * 6)]
    with hospital.database.transaction() as session:
        session.add_all(_visit("CT9", at) for at in moments)
        stranger = RefusedCaller("CT7", "192.0.2.7", "no sender has this calling AE title", 12, now)
        record_refused_callers(session, [stranger])
        doing = {2: RunStep.INFER.value}
        said = Heartbeat("cuda:0", "head-ct-hemorrhage 1.0.0", "", "0.1.0", (GPU,), doing)
        beat(session, "worker@one", said, now=now)
        beat(session, "worker@two", said, now=now - timedelta(hours=1))
    return hospital


def _visit(sender: str, at: object) -> VisitRow:
    return VisitRow(
        way=Way.DICOM.value,
        calling_ae_title=sender,
        address="192.0.2.9",
        instances=100,
        size_bytes=50_000_000,
        began_at=at,
        last_at=at,
        ended="released",
    )


def test_board_says_who_is_silent_who_is_refused_and_what_waits(
    client: TestClient, busy: Hospital
) -> None:
    board = client.get("/api/v1/operations").json()
    (sender,) = board["intake"]["senders"]
    assert sender["silence"] == (
        "has sent nothing for 3 h 00 min; at these hours it usually sends every 10 min"
    )
    (refused,) = board["intake"]["refused"]
    assert (refused["times"], refused["next_step"]) == (
        12,
        "If it is one of yours, add it to [[senders]].",
    )
    (running,) = board["running"]
    assert running["doing"] == "in the model, or waiting for its host"
    queues = {queue["name"]: queue for queue in board["queues"]}
    assert (queues["runs waiting"]["length"], queues["studies arriving"]["length"]) == (1, 0)
    assert [(w["name"], w["is_alive"]) for w in board["workers"]] == [
        ("worker@one", True),
        ("worker@two", False),
    ]
    assert board["disk"]["bytes_per_day"] == pytest.approx(7.2e9, rel=0.1)


def test_page_shows_it_with_the_next_steps(client: TestClient, busy: Hospital) -> None:
    page = client.get("/status", headers=HTML).text
    for said in (
        "CT9 has sent nothing for 3 h 00 min",
        "No sender has this calling AE title",
        "NVIDIA H200",
        "20.0 of 150.0 GB",
        "Silent: see whether its machine",
        "Cancel run 2",
        "Prefect does not answer",
        "GB a day",
    ):
        assert said in page, said
    assert " style=" not in page


def test_metrics_can_be_read_and_name_no_patient_or_study(
    client: TestClient, busy: Hospital
) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert values["triage_runs", "running"] == 1
    assert values["triage_sender_silent", "CT9", "dicom"] == 1
    assert values["triage_worker_up", "worker@two"] == 0
    assert values["triage_device_memory_used_bytes", "cuda:0", "worker@one"] == 2e10
    assert values["triage_prefect_up",] == 0
    assert "SYN-" not in answer.text
    assert "1.2.826" not in answer.text
    openmetrics = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert openmetrics.text.endswith("# EOF\n")


def _quarantined(hospital: Hospital) -> str:
    (image, *_) = hospital.head_ct(slices=1)
    stored = hospital.store(image)
    with hospital.database.transaction() as session:
        session.add(
            ReturnedObjectRow(
                calling_ae_title="REMOTE",
                study_instance_uid="2.25.1",
                sop_instance_uid="2.25.2",
                path=stored.path,
                size_bytes=stored.size_bytes,
                sha256=stored.sha256,
                state=ReturnedState.QUARANTINED,
                said="no entry of [[remote_models]] has results_from = 'REMOTE'",
                received_at=hospital.clock(),
            )
        )
    return stored.path


def test_quarantined_object_is_judged_anew_or_deleted_with_its_file(
    client: TestClient, hospital: Hospital
) -> None:
    path = _quarantined(hospital)
    assert "Judge anew" in client.get("/status", headers=HTML).text
    because = {"reason": "the entry was added"}
    assert client.post("/quarantine/1/release", data=because, headers=OURS).status_code == 303

    def row() -> ReturnedObjectRow | None:
        with hospital.database.reading() as session:
            return session.scalars(select(ReturnedObjectRow)).first()

    waiting = row()
    assert waiting is not None
    assert waiting.state is ReturnedState.WAITING
    body = because | {"who": "Administrator"}
    refused = client.post("/api/v1/quarantine/1/delete", json=body, headers=SCRIPT)
    assert (refused.status_code, "not in quarantine" in refused.json()["detail"]) == (409, True)
    assert hospital.files.exists(path)
    with hospital.database.transaction() as session:
        session.scalars(select(ReturnedObjectRow)).one().state = ReturnedState.QUARANTINED
    assert client.post("/api/v1/quarantine/1/delete", json=body, headers=SCRIPT).status_code == 204
    assert row() is None
    assert not hospital.files.exists(path)
    assert client.post("/api/v1/quarantine/1/delete", json=body, headers=SCRIPT).status_code == 404


@pytest.mark.parametrize(
    ("state", "reason", "step"),
    [
        ("failed", "x 1.0.0 failed: CUDA out of memory", "cpu_fallback"),
        ("failed", "the worker stopped", "worker's log"),
        ("failed", "model unavailable: weights are missing", "triage prepare"),
        ("failed", "who knows", "Look in the worker's log"),
        ("refused", "the images of this series were purged; send them again", "sent again"),
        ("refused", "slice gaps", "scope"),
    ],
)
def test_failure_has_a_next_step(state: str, reason: str, step: str) -> None:
    assert step in next_step_of(state, reason)
