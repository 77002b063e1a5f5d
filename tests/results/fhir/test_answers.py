"""What a FHIR server may answer, and what becomes of the notice then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.results.fhir.notices import destination, result
from tests.results.fhir.server import FhirServer, fhir_server, outcome
from tests.results.outbox_scenes import claim, finish, history, last_errors, receive, register
from tests.results.scenes import build, chest_analysis, chest_manifest, write_chest
from tests.tools import ManualClock, find_free_port
from triage.core.runs import DeliveryState
from triage.results.delivery.fhir import tell
from triage.results.delivery.rounds import deliver_next
from triage.results.errors import DeliveryError
from triage.settings import FhirDestination, Settings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.tables import DeliveryRow


@pytest.fixture(scope="module")
def running() -> Iterator[FhirServer]:
    with fhir_server() as server:
        yield server


@pytest.fixture
def server(running: FhirServer) -> FhirServer:
    running.scripted.clear()
    running.headers.clear()
    return running


def _failure(server: FhirServer, status: int, body: str = "", **headers: str) -> DeliveryError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    server.scripted.append((status, named, body))
    with pytest.raises(DeliveryError) as failed:
        tell(result(), destination(server.url))
    return failed.value


@pytest.mark.parametrize("status", [400, 409, 410, 412, 413, 415, 422])
def test_what_is_wrong_with_the_bundle_is_not_sent_again(server: FhirServer, status: int) -> None:
    failure = _failure(server, status, json.dumps(outcome("no such code in the value set")))
    assert failure.is_permanent
    assert str(failure) == f"record answered {status}: no such code in the value set"


@pytest.mark.parametrize("status", [302, 401, 403, 404, 405, 429, 500, 502, 503])
def test_what_is_wrong_with_the_server_or_our_rights_passes(
    server: FhirServer, status: int
) -> None:
    failure = _failure(server, status, "<html>")
    assert not failure.is_permanent
    assert str(failure) == f"record answered {status}"


def test_details_of_an_outcome_are_read_where_it_has_no_diagnostics(server: FhirServer) -> None:
    said = {
        "resourceType": "OperationOutcome",
        "issue": [{"code": "invalid", "details": {"text": "one"}}, {"code": "conflict"}],
    }
    assert str(_failure(server, 422, json.dumps(said))) == "record answered 422: one; conflict"


@pytest.mark.parametrize(
    "body", ["", "[]", "nonsense", "[" * 100_000, '{"resourceType": "OperationOutcome"}']
)
def test_an_answer_that_is_none_is_a_failure(server: FhirServer, body: str) -> None:
    failure = _failure(server, 200, body)
    assert "answered 200 without a Bundle; is url the base" in str(failure)


def test_a_part_that_failed_is_a_failure_of_all(server: FhirServer) -> None:
    parts = [
        {"response": {"status": "201 Created"}},
        {"response": {"status": "422 Unprocessable", "outcome": outcome("bad unit")}},
    ]
    body = {"resourceType": "Bundle", "type": "batch-response", "entry": parts}
    failure = _failure(server, 200, json.dumps(body))
    assert failure.is_permanent
    assert "422 Unprocessable for a part of the transaction: bad unit" in str(failure)


def test_a_server_says_when_to_come_again(server: FhirServer) -> None:
    assert _failure(server, 429, Retry_After="120").retry_after == timedelta(seconds=120)
    assert _failure(server, 503, Retry_After="soon").retry_after is None


def test_authorization_is_sent(server: FhirServer) -> None:
    tell(result(), destination(server.url, authorization="Bearer abc"))
    assert server.headers[-1]["Authorization"] == "Bearer abc"
    assert server.headers[-1]["Content-Type"] == "application/fhir+json"


def test_nobody_there_passes() -> None:
    with pytest.raises(DeliveryError, match="cannot be reached") as failed:
        tell(result(), destination(f"http://127.0.0.1:{find_free_port()}/fhir"))
    assert not failed.value.is_permanent


def test_a_certificate_counts_if_the_named_authority_signed_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with fhir_server(authority.sign()) as server:
        with pytest.raises(DeliveryError, match="TLS"):
            tell(result(), destination(server.url))
        tell(result(), destination(server.url, authorities=authority.certificate))
        assert server.only("Task")["priority"] == "stat"
        with pytest.raises(DeliveryError, match=r"none\.pem"):
            tell(result(), destination(server.url, authorities=tmp_path / "none.pem"))


def _queued(
    database: Database, files: InstanceFiles, folder: Path, clock: ManualClock, there: str
) -> tuple[Settings, str]:
    file = write_chest(folder)
    manifest, analysis = chest_manifest(), chest_analysis(file)
    register(database, manifest, clock)
    uid = receive(database, file, clock)
    built = build(analysis, manifest)
    settings = Settings(destinations=(destination(there, patients="identifier"),))
    finish(
        database,
        files,
        claim(database, clock),
        analysis,
        built,
        clock=clock,
        to=settings.destinations,
    )
    return settings, uid


def test_a_result_goes_from_the_outbox_to_the_server(
    server: FhirServer, database: Database, files: InstanceFiles, tmp_path: Path, clock: ManualClock
) -> None:
    settings, uid = _queued(database, files, tmp_path / "in", clock, server.url)
    [there] = settings.destinations
    assert isinstance(there, FhirDestination)
    server.stored.clear()
    server.scripted.append((503, {"Retry-After": "300"}, ""))

    def deliver() -> bool:
        return deliver_next(database, settings, files, clock, lambda: 0.5, destination="record")

    assert deliver()
    assert last_errors(database) == ["record answered 503"]
    clock.advance(299)
    assert not deliver()
    clock.advance(1)
    assert deliver()
    with database.reading() as session:
        [row] = session.query(DeliveryRow).all()
        assert row.state is DeliveryState.DELIVERED
    assert history(database, "delivered") == ["Result notice delivered to record, attempt 2"]
    study = server.only("ImagingStudy")
    assert study["identifier"][0]["value"] == f"urn:oid:{uid}"
    assert [each["modality"]["code"] for each in study["series"]] == ["DX", "SR", "OT"]
    present, absent = server.all_of("Observation")
    assert present["valueCodeableConcept"]["text"] == "Present"
    assert absent["valueCodeableConcept"]["text"] == "Absent"
