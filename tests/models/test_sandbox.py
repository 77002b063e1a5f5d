"""What a malicious package can do in its host: nothing but fail."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from tests.models.tiny import make_segmentation
from triage.core.analysis import AnalysisFailedError
from triage.models import confinement
from triage.models.confinement import host_environment, launch_of, missing_protections
from triage.models.host import ModelHosts
from triage.models.tensors import ModelInput
from triage.settings import WorkerSettings

_SECRET = "postgresql+psycopg://triage:secret@db/triage"
_ATTACK_HU = 300.0
_EXPECTED_TO_WORK = {"scratch": "done", "thread": "done", "socket pair": "done"}

needs_confinement = pytest.mark.skipif(
    bool(missing_protections()), reason=f"not confined here: {missing_protections()}"
)


def attacks_on(data: Path, package: Path) -> dict[str, str]:
    """Return what the package tries, by name; `data` stands for the data directory."""
    database = str(data / "triage.sqlite")
    return {
        "internet": "socket.create_connection(('127.0.0.1', 9), 5)",
        "datagram": "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "unix socket": "socket.socket(socket.AF_UNIX)",
        "read the database": f"open({database!r}).read()",
        "list the data": f"os.listdir({str(data)!r})",
        "write beside it": f"open({str(data / 'new')!r}, 'w')",
        "delete it": f"os.remove({database!r})",
        "truncate it": f"os.truncate({database!r}, 0)",
        "lock it away": f"os.chmod({database!r}, 0)",
        "link to it": f"os.symlink({database!r}, os.environ['HOME'] + '/link')",
        "read passwords": "open('/etc/shadow').read()",
        "change the package": f"open({str(package / 'model.yaml')!r}, 'a')",
        "add to the package": f"open({str(package / 'more.py')!r}, 'w')",
        "fork": "os.fork()",
        "program": "subprocess.run(['/usr/bin/id'])",
        "worker's memory": "open(f'/proc/{os.getppid()}/mem', 'rb')",
        "worker's environment": "open(f'/proc/{os.getppid()}/environ', 'rb')",
        "worker's end": "os.kill(os.getppid(), 9)",
        "everybody's end": "os.kill(-1, 9)",
        "worker's limits": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))",
        "secret": "os.environ['TRIAGE_DATABASE_URL']",
        "scratch": "open(os.environ['TMPDIR'] + '/note', 'w').write('x')",
        "thread": "threading.Thread(target=int).start()",
        "socket pair": "socket.socketpair()",
    }


def malicious_step(attacks: dict[str, str]) -> dict[str, object]:
    """Return a step of a bundle that tries everything and tells what came of it as its error."""
    code = "import json, os, resource, socket, subprocess, threading\noutcome = {}\n"
    for name, attack in attacks.items():
        code += f"try:\n    {attack}\n    outcome[{name!r}] = 'done'\n"
        code += f"except BaseException as e:\n    outcome[{name!r}] = type(e).__name__\n"
    code += "raise RuntimeError('<<' + json.dumps(outcome) + '>>')\n"
    func = f"$lambda x: exec({code!r}, {{}}) if x.max() == {_ATTACK_HU} else x"
    return {"_target_": "Lambdad", "keys": "image", "func": func}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "triage.sqlite").write_text("patients")
    return folder


@pytest.fixture(scope="module")
def outcome(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What came of each attack: "done", or the error that it ended in."""
    folder = tmp_path_factory.mktemp("package") / "malicious"
    step = malicious_step(attacks_on(data, folder))
    package = make_segmentation(folder, preprocessing=[step], name="tiny-malicious")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIAGE_DATABASE_URL", _SECRET)
        hosts = ModelHosts(WorkerSettings(device="cpu"), sandbox="require")
        try:
            values = np.full((4, 9, 8), 30.0, np.float32)
            values[1, 2, 3] = _ATTACK_HU
            with pytest.raises(
                AnalysisFailedError, match=r"tiny-malicious 1\.0\.0 failed"
            ) as failed:
                hosts.infer_now(package, ModelInput(values, np.diag([0.5, 0.5, 5.0, 1.0])))
        finally:
            hosts.close()
    said = re.search(r"<<(.*?)>>", str(failed.value))
    assert said is not None, str(failed.value)
    return dict(json.loads(said[1]))


@needs_confinement
@pytest.mark.parametrize("attack", attacks_on(Path("data"), Path("package")))
def test_attack_is_contained(outcome: dict[str, str], attack: str) -> None:
    # A name that leads nowhere proves nothing: each attack must end in a refusal.
    expected = _EXPECTED_TO_WORK.get(attack, "KeyError" if attack == "secret" else "")
    assert outcome[attack] == (expected or "PermissionError")


@needs_confinement
def test_nothing_is_left_of_the_attacks(outcome: dict[str, str], data: Path) -> None:
    assert [p.name for p in data.iterdir()] == ["triage.sqlite"]
    assert (data / "triage.sqlite").read_text() == "patients"
    assert list(Path("/dev/shm").glob(f"triage-host-{os.getpid()}-*/note")) == []


def test_environment_of_a_host_has_no_secret() -> None:
    ours = {
        "PATH": "/usr/bin",
        "CUDA_VISIBLE_DEVICES": "1",
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
        "TRIAGE_DATABASE__URL": _SECRET,
        "PGPASSWORD": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "HOME": "/home/someone",
    }
    environment = host_environment(ours, None)
    assert environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert environment["HOME"] != "/home/someone"
    assert "secret" not in str(environment)
    assert environment["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in environment


@pytest.fixture
def kernel_without_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "missing_protections", lambda: ("files are not restricted",))
    confinement._check_protections.cache_clear()
    monkeypatch.setattr(confinement, "_scratch_folder", lambda: None)


@pytest.mark.usefixtures("kernel_without_landlock")
def test_required_sandbox_that_is_missing_keeps_models_from_running() -> None:
    with pytest.raises(AnalysisFailedError, match="cannot be confined here: files are not restr"):
        launch_of(Path("package"), "require")
    confined = launch_of(Path("package"), "prefer")
    assert "triage.models.sandbox" in confined.command
    assert "triage.models.host_process" in launch_of(Path("package"), "off").command


def test_scratch_folders_of_dead_workers_are_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confinement, "_SHARED_MEMORY", tmp_path)
    left = tmp_path / "triage-host-999999999-x"
    living = tmp_path / f"triage-host-{os.getpid()}-x"
    for folder in (left, living):
        folder.mkdir()
    made = confinement._scratch_folder()
    assert made is not None
    assert made.is_dir()
    assert living.exists()
    assert not left.exists()
