"""`docker-compose.gpu.yml`: valid, and its commands and variables run as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.end_to_end.system import simulated_head_ct
from tests.orthanc import Orthanc
from tests.tools import (
    PROJECT,
    PostgresqlCluster,
    find_free_port,
    require_tool,
    wait_until,
)
from triage.settings import load_settings
from triage.simulator.hemorrhage import HemorrhageKind, LesionSpec

_FILE = PROJECT / "docker-compose.gpu.yml"
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of the file."""
    return dict(yaml.safe_load(_FILE.read_text())["services"])


def test_file_is_valid_for_docker_compose() -> None:
    ran = subprocess.run(
        [require_tool("docker-compose"), "-f", str(_FILE), "config", "--quiet"],
        env={**os.environ, "TRIAGE_DB_PASSWORD": "secret"},
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()


def test_password_is_asked_for() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRIAGE_DB_PASSWORD"}
    ran = subprocess.run(
        [require_tool("docker-compose"), "-f", str(_FILE), "config", "--quiet"],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert ran.returncode != 0
    assert b"set a password" in ran.stderr


def test_variables_of_every_part_are_settings(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("prepare", "receiver", "worker", "web"):
        with monkeypatch.context() as patch:
            for variable, value in services[name]["environment"].items():
                patch.setenv(variable, _filled(str(value)))
            settings = load_settings()
        assert settings.database_url.startswith("postgresql+psycopg://"), name
        assert settings.prefect.api_url == "http://prefect:4200/api"
        assert [d.name for d in settings.destinations] == ["orthanc"]


def test_image_has_what_the_parts_need() -> None:
    dockerfile = (PROJECT / "Dockerfile").read_text()
    for needed in ("requirements.lock", "triage", "flows", "model_registry"):
        assert f"COPY {needed} " in dockerfile


def _filled(value: str) -> str:
    """Fill in the variables of a value as Compose does: `${NAME:-default}`, `${NAME:?message}`."""
    if "${" not in value:
        return value
    head, _, rest = value.partition("${")
    inside, _, tail = rest.partition("}")
    name, _, alternative = inside.partition(":")
    default = alternative[1:] if alternative.startswith("-") else "secret"
    return head + (os.environ.get(name) or default) + _filled(tail)


def test_parts_run_as_processes_with_the_same_commands_and_variables(
    services: dict[str, Any], postgresql: PostgresqlCluster, tmp_path: Path
) -> None:
    """PostgreSQL, Redis, Prefect, receiver, worker, web and Orthanc: a study ends flagged."""
    archive = Orthanc(tmp_path / "orthanc", ae_title="ORTHANC")
    ports = {name: find_free_port() for name in ("redis", "prefect", "receiver", "hl7", "web")}
    databases = {"triage": postgresql.create_database(), "prefect": postgresql.create_database()}
    with ExitStack() as stack:
        archive.start()
        stack.callback(archive.stop)
        stack.enter_context(
            _running([require_tool("redis-server"), "--port", str(ports["redis"])], {}, tmp_path)
        )
        moved = _Moved(ports, databases, postgresql, archive, tmp_path)
        _run(services["prepare"], moved, tmp_path)
        for name in ("prefect", "receiver", "worker", "web"):
            command = _command(services[name], moved)
            stack.enter_context(_running(command, moved.environment(services[name]), tmp_path))
        _wait_until_well(moved.environment(services["worker"]), tmp_path)

        study_instance_uid, files = simulated_head_ct(
            tmp_path / "study", 80_001, LesionSpec(HemorrhageKind.INTRAPARENCHYMAL, 25.0)
        )
        subprocess.run(
            [require_tool("storescu"), "-R", "127.0.0.1", str(ports["receiver"]), *map(str, files)],
            env={**os.environ, "TCP_NODELAY": "1"},
            check=True,
        )

        def is_flagged() -> bool:
            address = f"http://127.0.0.1:{ports['web']}/api/v1/studies/{study_instance_uid}"
            answer = httpx.get(address, timeout=10, verify=False)
            return answer.is_success and answer.json()["priority"] == "stat"

        wait_until(is_flagged, "the study is flagged", timeout_s=90)
        wait_until(
            lambda: len(archive.sop_instance_uids()) == 2, "SEG and SR are there", timeout_s=60
        )


class _Moved:
    """The places of the services on this machine instead of in containers."""

    def __init__(
        self,
        ports: Mapping[str, int],
        databases: Mapping[str, str],
        postgresql: PostgresqlCluster,
        archive: Orthanc,
        folder: Path,
    ) -> None:
        triage = postgresql.url(databases["triage"])
        prefect = postgresql.url(databases["prefect"]).replace("+psycopg", "+asyncpg")
        self._ports = ports
        self._replaced = {
            "TRIAGE_DATABASE__URL": triage,
            "TRIAGE_PREFECT__API_URL": f"http://127.0.0.1:{ports['prefect']}/api",
            "TRIAGE_DESTINATIONS": json.dumps(
                [
                    {
                        "name": "orthanc",
                        "ae_title": archive.ae_title,
                        "host": "127.0.0.1",
                        "port": archive.dicom_port,
                    }
                ]
            ),
            "TRIAGE_HL7__PORT": str(ports["hl7"]),
            "PREFECT_API_DATABASE_CONNECTION_URL": prefect,
            "PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1",
            "PREFECT_REDIS_MESSAGING_PORT": str(ports["redis"]),
        }
        self._added = {
            # What the image sets, and ports, which containers need not choose.
            "TRIAGE_DATA_DIRECTORY": str(folder / "data"),
            "TRIAGE_MODEL_REGISTRY": str(PROJECT / "model_registry"),
            "TRIAGE_RECEIVER__PORT": str(ports["receiver"]),
            "TRIAGE_WEB__PORT": str(ports["web"]),
            "PREFECT_HOME": str(folder / "prefect"),
        }

    def environment(self, service: Mapping[str, Any]) -> dict[str, str]:
        """Return the service's variables, with the places of this machine."""
        variables = {k: _filled(str(v)) for k, v in service["environment"].items()}
        moved = {k: self._replaced.get(k, v) for k, v in variables.items()}
        moved |= {k: "127.0.0.1" for k in moved if k.endswith("__HOST")}
        return {**os.environ, **self._added, **moved}

    def port(self, of: str) -> str:
        """Return the port of a service on this machine."""
        return str(self._ports[of])


def _command(service: Mapping[str, Any], moved: _Moved) -> list[str]:
    """Return the service's entry point and command, as programs of this environment."""
    entry = service.get("entrypoint", ["triage"])[0]
    arguments = [str(a).replace("0.0.0.0", "127.0.0.1") for a in service["command"]]
    if entry == "prefect":
        arguments = [moved.port("prefect") if a == "4200" else a for a in arguments]
    return [str(Path(sys.executable).with_name(entry)), *arguments]


def _run(service: Mapping[str, Any], moved: _Moved, folder: Path) -> None:
    ran = subprocess.run(
        _command(service, moved),
        env=moved.environment(service),
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()


@contextmanager
def _running(command: list[str], environment: Mapping[str, str], folder: Path) -> Iterator[None]:
    log = folder / f"{Path(command[0]).name}-{command[1].strip('-')}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment or None, cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_well(environment: Mapping[str, str], folder: Path) -> None:
    worker = folder / "triage-work.log"
    # Each look of the doctor costs seconds of the processor; this one costs nothing.
    wait_until(lambda: b"worker.ready" in worker.read_bytes(), "the worker is ready", timeout_s=180)

    def is_well() -> bool:
        ran = subprocess.run(
            [sys.executable, "-m", "triage.cli", "doctor"],
            env=environment,
            cwd=folder,
            capture_output=True,
            check=False,
        )
        (folder / "doctor.log").write_bytes(ran.stdout + ran.stderr)
        time.sleep(2 if ran.returncode else 0)
        return ran.returncode == 0

    wait_until(is_well, "triage doctor is green", timeout_s=120)
