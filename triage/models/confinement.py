"""How a worker starts a model host that can do little: its command, environment and files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import structlog

import triage
from triage.core.analysis import AnalysisFailedError
from triage.models.sandbox import Policy
from triage.settings import SandboxMode

_TRIAGE = Path(triage.__file__).parent
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made in it
_SCRATCH_PREFIX = "triage-host-"
_PROBE_LIMIT_S = 60.0
_KEPT_VARIABLES = frozenset({"PATH", "LANG", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD"})
_KEPT_PREFIXES = (
    "LC_",
    "OMP_",
    "KMP_",
    "MKL_",
    "OPENBLAS_",
    "CUDA_",
    "CUBLAS_",
    "CUDNN_",
    "NVIDIA_",
    "HIP_",
    "ROCR_",
    "PYTORCH_",
    "TORCH_",
    "ORT_",
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Launch:
    """How the process of a host is started.

    Attributes:
        policy: what it may see, as JSON; None where it is not confined.
        environment: all that it has of the worker's environment, and no secret of it.
        scratch: the folder that it may write to, in memory; None where the system has none.
    """

    policy: str | None
    environment: Mapping[str, str]
    scratch: Path | None

    @property
    def command(self) -> tuple[str, ...]:
        """The program that starts it afresh; the descriptors of its channel and lifeline follow."""
        # -P: a file named torch.py in the working directory must not be run.
        python = (sys.executable, "-P", "-m")
        if self.policy is None:
            return (*python, "triage.models.host_process")
        return (*python, "triage.models.sandbox", self.policy)

    def clean_up(self) -> None:
        """Delete what the host wrote; the host must have ended."""
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)


def launch_of(package: Path, mode: SandboxMode) -> Launch:
    """Return how a host of the package in `package` is started, with a scratch folder made.

    Raises:
        AnalysisFailedError: confinement is required, and this system cannot give it.
    """
    if mode != "off":
        _check_protections(mode)
    scratch = _scratch_folder()
    environment = host_environment(os.environ, scratch)
    if mode == "off":
        return Launch(None, environment, scratch)
    policy = Policy(
        readable=(str(package), *_python_files()),
        scratch=str(scratch or ""),
        is_required=mode == "require",
    )
    return Launch(policy.as_json(), environment, scratch)


def host_environment(ours: Mapping[str, str], scratch: Path | None) -> dict[str, str]:
    """Return the part of our environment that a host gets: nothing that may be a secret."""
    kept = {
        name: value
        for name, value in ours.items()
        if (name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES))
        and name != "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    }
    search_path = [str(_TRIAGE.parent), *filter(None, [ours.get("PYTHONPATH", "")])]
    home = str(scratch or "/nonexistent")
    return {
        # OpenMP's threads spin while they wait for one another. Beside a receiver, a database and
        # a page that took a network from 0.3 s to 1.7 s on two cores; asleep they wait for nothing.
        "OMP_WAIT_POLICY": "PASSIVE",
        **kept,
        "PYTHONPATH": os.pathsep.join(search_path),
        "PYTHONUNBUFFERED": "1",  # what a model printed before it crashed is what explains it
        "HOME": home,
        "TMPDIR": home,
        "USER": "triage",
        # Also where a library asks for more, as `torch.export.load` does.
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    }


@lru_cache(maxsize=1)
def missing_protections() -> tuple[str, ...]:
    """Return what of the sandbox this system cannot enforce, found by trying it once."""
    probe = [sys.executable, "-P", "-m", "triage.models.sandbox", Policy(_python_files()).as_json()]
    try:
        answer = subprocess.run(
            probe,
            env=host_environment(os.environ, None),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_LIMIT_S,
            check=True,
        )
        return tuple(json.loads(answer.stdout))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return (f"the sandbox cannot be tried ({error})",)


@lru_cache(maxsize=2)
def _check_protections(mode: SandboxMode) -> None:
    missing = missing_protections()
    if missing and mode == "require":
        raise AnalysisFailedError(
            f"model hosts cannot be confined here: {'; '.join(missing)}; use Linux from 6.2 with "
            'Landlock, or allow less with trust.sandbox = "prefer"'
        )
    if missing:
        log.warning("model hosts are not fully confined", missing=missing)


def _python_files() -> tuple[str, ...]:
    """Return what of the machine a host must read to run Python, Triage and their libraries.

    Never a whole folder that the data directory may lie in, such as that of a checkout.
    """
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    installed = [Path(prefix, part) for prefix in prefixes for part in ("lib", "lib64")]
    installed += [Path(prefix, "pyvenv.cfg") for prefix in prefixes]
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    added = [Path(part).absolute() for part in named if part]
    beside = [path for path in added if path not in {_TRIAGE.parent, Path.cwd()}]
    found = {str(path) for path in (*installed, *beside, _TRIAGE) if path.exists()}
    return tuple(sorted(found))


def _scratch_folder() -> Path | None:
    """Make a folder in shared memory, which is bounded, so that no model fills a disk."""
    if not os.access(_SHARED_MEMORY, os.W_OK):
        return None
    for left in _SHARED_MEMORY.glob(f"{_SCRATCH_PREFIX}*-*"):
        # Of a worker that was killed.
        owner = left.name.removeprefix(_SCRATCH_PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_SCRATCH_PREFIX}{os.getpid()}-", dir=_SHARED_MEMORY))
