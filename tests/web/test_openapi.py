"""The API does what its OpenAPI document says, whatever it is asked.

Schemathesis makes requests from the document, right ones and wrong ones, to a server with a few
studies: no answer of 500, no status that is not documented, no body that is not as described, and
nothing wrong is accepted. Who asks has logged in and may do everything.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
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
from tests.tools import ManualClock
from tests.web.access import add_account
from tests.web.hospital import Hospital, hemorrhage
from tests.web.serving import serving
from triage.core.permissions import Role
from triage.settings import LoginSettings, Settings, WebSettings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.sessions import SessionLimits, begin_session
from triage.store.users import User
from triage.web.app import create_app
from triage.web.callers import SESSION_COOKIE

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
    """A running server, what it holds (values of path parameters), and the cookie of who asks."""

    address: str
    parameters: dict[str, Any]
    cookies: dict[str, str]


@pytest.fixture(scope="module")
def known(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    """A server with three studies, one of them flagged, a model, and two accounts."""
    folder = tmp_path_factory.mktemp("openapi")
    shutil.copyfile(migrated_sqlite, folder / "triage.sqlite")
    database = Database(f"sqlite:///{folder / 'triage.sqlite'}")
    hospital = Hospital(database, InstanceFiles(folder / "data"), ManualClock())
    hospital.register_model()
    uids = [hospital.receive(*hospital.head_ct()) for _ in range(3)]
    for uid in uids:
        hospital.complete(uid)
    hospital.find(hospital.claim(), hemorrhage())
    cookies, other = log_in_twice(hospital)
    settings = Settings(
        data_directory=folder / "data", web=WebSettings(login=LoginSettings(mode="local"))
    )
    app = create_app(settings, database, hospital.files, hospital.clock)
    parameters = {
        "study_instance_uid": uids[0],
        "finding_id": 1,
        "run_id": 1,
        "name": "head-ct-hemorrhage",
        "version": "1.0.0",
        "job_id": 1,
        "user_id": other.id,
        "token_id": 1,
        "session_id": 2,
        "report_id": 1,
    }
    with serving(app, log_level="critical") as address:
        yield Known(address, parameters, cookies)
    database.close()


def log_in_twice(hospital: Hospital) -> tuple[dict[str, str], User]:
    """Return the cookie of one of two sessions of somebody with all roles, and another account."""
    somebody = add_account(hospital, "all", *Role)
    limits = SessionLimits(timedelta(hours=1), timedelta(hours=1))
    with hospital.database.transaction() as session:
        secret, _ = (
            begin_session(session, somebody, limits, address="", browser="", now=hospital.clock())
            for _ in range(2)
        )
    return {SESSION_COOKIE: secret}, add_account(hospital, "other", Role.RADIOLOGIST)


def ask(case: Case, known: Known, checks: list[Any]) -> None:
    headers = {"X-Triage-Request": "tests", "Accept": "application/json"}
    with requests.Session() as session:
        session.cookies.update(known.cookies)
        answer = case.call(base_url=known.address, session=session, headers=headers)
    assert answer.status_code not in (401, 403), "the tests would see refusals alone"
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
        ask(case, known, CHECKS)

    asked()


@pytest.mark.parametrize("path", ["worklist", "deliveries"])
def test_a_place_beyond_what_a_database_counts_is_refused(path: str, known: Known) -> None:
    answer = requests.get(
        f"{known.address}/api/v1/{path}?offset={10**22}", cookies=known.cookies, timeout=60
    )
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
        ask(case, known, [*CHECKS, negative_data_rejection])

    asked()
