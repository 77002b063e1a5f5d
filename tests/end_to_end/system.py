"""Triage as a user starts it, in a folder and on ports of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom import Dataset

from tests.tools import PROJECT, find_free_port, require_tool, wait_until
from triage.doctor import examine
from triage.settings import load_settings
from triage.simulator.dicom import StudyIdentity, head_ct_series, write_series
from triage.simulator.head_ct import simulate_head_ct
from triage.simulator.hemorrhage import LesionSpec

_STARTS_WITHIN_S = 240.0


@dataclass
class RunningSystem:
    """The processes of `triage up`, and what a test asks of them."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.port = find_free_port()
        self.web = f"http://127.0.0.1:{find_free_port()}"
        self._process: subprocess.Popen[bytes] | None = None
        # Kept, because each client reads all authorities of the system, for which none is asked.
        self._http = httpx.Client(base_url=self.web, timeout=10, verify=False)
        self.environment = {
            **os.environ,
            "TRIAGE_DATA_DIRECTORY": str(self.folder / "data"),
            "TRIAGE_MODEL_REGISTRY": str(PROJECT / "model_registry"),
            "TRIAGE_RECEIVER__PORT": str(self.port),
            "TRIAGE_RECEIVER__QUIET_PERIOD_BY_MODALITY_S": '{"CT": 1.0}',
            "TRIAGE_WEB__PORT": self.web.rsplit(":", 1)[1],
            "TRIAGE_PREFECT__PORT": str(find_free_port()),
            "TRIAGE_WORKER__LEASE_S": "10",
            **self.variables,
        }

    def start(self) -> None:
        """Start and return once `triage doctor` is green."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "up.log").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "triage.cli", "up"],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        # The doctor costs something from those that start; this look costs nothing.
        wait_until(self._has_worker, "the worker is ready", timeout_s=_STARTS_WITHIN_S)
        wait_until(self.is_green, "every part is well", timeout_s=_STARTS_WITHIN_S)
        self._run_doctor()

    def _has_worker(self) -> bool:
        self._check_runs()
        log = self.folder / "data" / "log" / "worker.log"
        return log.exists() and b"worker.ready" in log.read_bytes()

    def _check_runs(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError((self.folder / "up.log").read_text())

    def stop(self) -> None:
        """Stop as Ctrl-C does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)

    def _run_doctor(self) -> None:
        """Fail unless `triage doctor` is green, as a user runs it: seconds to import it all."""
        ran = subprocess.run(
            [sys.executable, "-m", "triage.cli", "doctor", "--json"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout.decode() + ran.stderr.decode()
        assert all(check["ok"] for check in json.loads(ran.stdout))

    def is_green(self) -> bool:
        """Whether every check of `triage doctor` passes; they are made in this process."""
        self._check_runs()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)  # paths of settings, such as the viewer's, begin there
            for name, value in self.environment.items():
                patch.setenv(name, value)
            is_green = all(check.is_ok for check in examine(load_settings()))
        if not is_green:
            time.sleep(1)  # the next look would take from those that start
        return is_green

    def kill(self, part: str) -> None:
        """Kill a part outright, as a crash of the machine would."""
        os.kill(self.pid_of(part), signal.SIGKILL)

    @contextlib.contextmanager
    def paused(self, part: str) -> Iterator[None]:
        """Stop a part for the time of the block: it is there and does not answer."""
        process = self.pid_of(part)
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)

    def pid_of(self, part: str) -> int:
        """Return the process of a part."""
        return int((self.folder / "data" / "run" / f"{part}.pid").read_text())

    def send(self, *files: Path) -> None:
        """Send files with DCMTK's storescu, as an outside modality does."""
        subprocess.run(
            [
                require_tool("storescu"),
                "-R",
                "-aet",
                "MODALITY",
                "-aec",
                "TRIAGE",
                "127.0.0.1",
                str(self.port),
                *map(str, files),
            ],
            env={**os.environ, "TCP_NODELAY": "1"},
            check=True,
            capture_output=True,
        )

    def send_until_accepted(self, *files: Path) -> None:
        """Send as a modality does: again and again until everything was acknowledged."""

        def accepted() -> bool:
            try:
                self.send(*files)
            except subprocess.CalledProcessError:
                time.sleep(0.5)
                return False
            return True

        wait_until(accepted, "the receiver has taken the study", timeout_s=60)

    def study(self, study_instance_uid: str) -> dict[str, Any] | None:
        """Return the study as the API gives it, or None while it is not there."""
        try:
            answer = self._http.get(f"/api/v1/studies/{study_instance_uid}")
        except httpx.HTTPError:
            return None
        return answer.json() if answer.is_success else None


def simulated_head_ct(
    folder: Path, seed: int, lesion: LesionSpec | None = None, **identity: Any
) -> tuple[str, list[Path]]:
    """Write a simulated head CT and return its Study Instance UID and its files."""
    volume = simulate_head_ct(
        np.random.default_rng(seed),
        shape=(28, 256, 256),
        spacing_mm=(5.0, 0.9, 0.9),
        lesions=[lesion] if lesion else None,
    )
    who = StudyIdentity(
        patient_name=f"Test{seed}^Simulated",
        patient_id=f"T{seed}",
        accession_number=f"E{seed}",
        **identity,
    )
    datasets: list[Dataset] = head_ct_series(volume, who, seed=f"end-to-end-{seed}")
    return str(datasets[0].StudyInstanceUID), write_series(datasets, folder)
