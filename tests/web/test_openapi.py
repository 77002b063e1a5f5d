"""The API does what its OpenAPI document says, whatever it is asked.

Schemathesis makes requests from the document, right ones and wrong ones, to a server with a few
studies: no answer of 500, no status that is not documented, no body that is not as described, and
nothing wrong is accepted.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tests.client.generation import api_document
from tests.tools import ManualClock, find_free_port, wait_until
from tests.web.hospital import Hospital, hemorrhage
from triage.settings import Settings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.web.app import create_app

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(api_document())
OPERATIONS = {
    operation.label: operation for one in SCHEMA.get_all_operations() if (operation := one.ok())
}
EXAMPLES = 5
ROOM = {"scenario": {"days": 1, "warm_up_days": 0, "replications": 2}}
# What is played is random otherwise, and may take seconds.
BODIES = {"POST /api/v1/simulations": ROOM}

few_examples = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Known:
    """A running server, and what it holds: values of path parameters."""

    address: str
    parameters: dict[str, Any]


@pytest.fixture(scope="module")
def known(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    """A server with three studies, one of them flagged, and a model."""
    folder = tmp_path_factory.mktemp("openapi")
    shutil.copyfile(migrated_sqlite, folder / "triage.sqlite")
    database = Database(f"sqlite:///{folder / 'triage.sqlite'}")
    hospital = Hospital(database, InstanceFiles(folder / "data"), ManualClock())
    hospital.register_model()
    uids = [hospital.receive(*hospital.head_ct()) for _ in range(3)]
    for uid in uids:
        hospital.complete(uid)
    hospital.find(hospital.claim(), hemorrhage())
    app = create_app(
        Settings(data_directory=folder / "data"), database, hospital.files, hospital.clock
    )
    port = find_free_port()
    config = uvicorn.Config(app, port=port, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the server listens")
    parameters = {
        "study_instance_uid": uids[0],
        "finding_id": 1,
        "run_id": 1,
        "name": "head-ct-hemorrhage",
        "version": "1.0.0",
        "job_id": 1,
    }
    yield Known(f"http://127.0.0.1:{port}", parameters)
    server.should_exit = server.force_exit = True
    thread.join(timeout=10)
    database.close()


def ask(case: Case, address: str, checks: list[Any]) -> None:
    headers = {"X-Triage-Request": "tests", "Accept": "application/json"}
    with requests.Session() as session:
        answer = case.call(base_url=address, session=session, headers=headers)
    case.validate_response(answer, checks=checks)


@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_what_is_right_is_answered_as_described(label: str, known: Known) -> None:
    operation = OPERATIONS[label]
    names = {one.name for one in operation.path_parameters}
    fixed: dict[str, Any] = {"body": BODIES[label]} if label in BODIES else {}
    if names and names <= known.parameters.keys():
        fixed["path_parameters"] = {name: known.parameters[name] for name in names}

    @few_examples
    @given(case=operation.as_strategy(GenerationMode.POSITIVE, **fixed))
    def asked(case: Case) -> None:
        ask(case, known.address, CHECKS)

    asked()


@pytest.mark.parametrize("path", ["worklist", "deliveries"])
def test_a_place_beyond_what_a_database_counts_is_refused(path: str, known: Known) -> None:
    answer = requests.get(f"{known.address}/api/v1/{path}?offset={10**22}", timeout=60)
    assert answer.status_code == 422
    assert "offset" in answer.json()["detail"]


def _can_be_wrong(label: str) -> bool:
    operation = OPERATIONS[label]
    return bool(operation.path_parameters or operation.query or operation.body)


@pytest.mark.parametrize("label", [one for one in sorted(OPERATIONS) if _can_be_wrong(one)])
def test_what_is_wrong_is_refused_as_described(label: str, known: Known) -> None:
    @few_examples
    @given(case=OPERATIONS[label].as_strategy(GenerationMode.NEGATIVE))
    def asked(case: Case) -> None:
        ask(case, known.address, [*CHECKS, negative_data_rejection])

    asked()
