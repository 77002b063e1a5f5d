"""Jobs from the page to what came of them, done by `triage work` in processes of their own.

Such a process imports for seconds what this one has imported. So one kind of job is done there, and
all that can happen to its process; the others are done here, by the functions that it calls.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pydicom import dcmread
from sqlalchemy import func, select

from flows.jobs import Jobs
from flows.steps import Step
from tests.models.test_archives import pack
from tests.models.test_check import CARD, WHEN
from tests.models.tiny import make_classification, make_segmentation
from tests.tools import find_free_port, wait_until
from tests.web.hospital import Hospital
from triage.jobs import carry_out
from triage.models.host import ModelHosts
from triage.models.package_samples import EXPECTED
from triage.models.registration import register_at
from triage.settings import Settings
from triage.simulator.radiograph import Examination, Subject, radiograph
from triage.store.clock import system_clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.job_files import JobFolder
from triage.store.model_jobs import ClaimedJob
from triage.store.tables import AnalysisRunRow, DeliveryRow, ResultObjectRow, StudyEventRow
from triage.web.app import create_app

API = "/api/v1"
MODEL = f"{API}/models/tiny-classification"
OURS = {"X-Triage-Request": "1"}
HTML = {"Accept": "text/html"}
CODE = b"class Lungs:\n def load(self, f, d): ...\n def predict(self, i): ...\n"
SOON_S = 300.0  # a process that imports torch, on a machine that does other things too


class Place:
    """An installation with a registered model, and its API."""

    def __init__(self, folder: Path, package: Path, migrated: Path) -> None:
        self.folder = folder
        self.settings = Settings(
            data_directory=folder / "data",
            database={"url": f"sqlite:///{folder / 'triage.sqlite'}"},
            worker={"device": "cpu"},
        )
        shutil.copyfile(migrated, folder / "triage.sqlite")
        self.database = Database(self.settings.database_url)
        register_at(self.database, package, self.settings, who="ada", reason="", now=system_clock())
        files = InstanceFiles(self.settings.data_directory)
        self.hospital = Hospital(self.database, files, system_clock)  # type: ignore[arg-type]
        app = create_app(self.settings, self.database, files)
        self.client = TestClient(app, base_url="http://127.0.0.1", headers=OURS)

    def close(self) -> None:
        """Let go of what is held."""
        self.database.close()

    def ask(self, address: str, **sent: Any) -> int:
        answer = self.client.post(address, files=sent or None)
        assert answer.status_code == 202, answer.text
        return int(answer.json()["job_id"])

    def job(self, job_id: int) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"{API}/model-jobs/{job_id}").json()
        return found

    def ended(self, job_id: int) -> dict[str, Any]:
        """Return the job once it has ended."""
        raise NotImplementedError

    def done(self, job_id: int) -> dict[str, Any]:
        job = self.ended(job_id)
        assert job["state"] == "done", (job["reason"], self.log())
        return job

    def log(self) -> str:
        return ""

    def page(self, job_id: int) -> str:
        return self.client.get(f"/model-jobs/{job_id}", headers=HTML).text


class Here(Place):
    """One whose jobs are done in this process, each when its end is asked for."""

    def __init__(self, *args: Path) -> None:
        super().__init__(*args)
        self._hosts = ModelHosts(self.settings.worker)
        files = InstanceFiles(self.settings.data_directory)
        self._jobs = _JobsHere(Step("worker", self.settings, self.database, files, self._hosts))

    def close(self) -> None:
        self._hosts.close()
        super().close()

    def ended(self, job_id: int) -> dict[str, Any]:
        asyncio.run(self._jobs.carry_out_next())
        return self.job(job_id)


class _JobsHere(Jobs):
    async def _run(self, job: ClaimedJob, folder: JobFolder) -> int:
        await asyncio.to_thread(carry_out, folder, self._step.settings)
        return 0


class Working(Place):
    """One with a worker that can be killed."""

    def __init__(self, *args: Path) -> None:
        super().__init__(*args)
        self.worker: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        self.stop_worker()
        super().close()

    def start_worker(self) -> None:
        environment = {
            **os.environ,
            "TRIAGE_DATA_DIRECTORY": str(self.settings.data_directory),
            "TRIAGE_DATABASE__URL": self.settings.database_url,
            "TRIAGE_WORKER__WARM_MODELS": "false",
            # There are no studies to look for.
            "TRIAGE_WORKER__POLL_INTERVAL_S": "2",
            "TRIAGE_WORKER__DECODE_AHEAD_MB": "0",
            # Nothing is analysed here, so nobody asks for Prefect.
            "TRIAGE_PREFECT__API_URL": f"http://127.0.0.1:{find_free_port()}/api",
            # The tests' neighbours would leave nothing to who gives way to them.
            "TRIAGE_JOBS__NICENESS": "0",
        }
        with (self.folder / "worker.log").open("ab") as output:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "triage.cli", "work"],
                env=environment,
                stdout=output,
                stderr=output,
            )

    def stop_worker(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.worker is not None:
            self.worker.send_signal(number)
            self.worker.wait(60)

    def wait_for(self, job_id: int, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        def look() -> bool:
            time.sleep(0.1)  # each look is a request, on the processors that the job needs
            return is_so(self.job(job_id))

        wait_until(look, f"job {job_id} is so", timeout_s=SOON_S)
        return self.job(job_id)

    def ended(self, job_id: int) -> dict[str, Any]:
        return self.wait_for(job_id, lambda job: job["finished_at"] is not None)

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with a card and a sample whose left half is bright."""
    home = tmp_path_factory.mktemp("package") / "tiny"
    make_classification(home)
    (home / "MODEL_CARD.md").write_text(CARD)
    (home / "samples").mkdir()
    image().save_as(home / "samples" / "left.dcm", enforce_file_format=True)
    expected = {"left.dcm": {"findings": {"left": {"present": True, "confidence": 0.78}}}}
    (home / "samples" / EXPECTED).write_text(json.dumps(expected))
    return home


def image() -> Any:
    pixels = np.full((40, 40), 30, np.uint8)
    pixels[:, :20] = 200
    return radiograph(pixels, Subject("P1"), Examination("A1", WHEN))


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, package: Path, migrated_sqlite: Path
) -> Iterator[Place]:
    """The installation whose jobs are done here."""
    place = Here(tmp_path_factory.mktemp("here"), package, migrated_sqlite)
    with place.client:
        yield place
    place.close()


@pytest.fixture(scope="module")
def working(
    tmp_path_factory: pytest.TempPathFactory, package: Path, migrated_sqlite: Path
) -> Iterator[Working]:
    """The installation with its worker running."""
    place = Working(tmp_path_factory.mktemp("working"), package, migrated_sqlite)
    place.start_worker()
    with place.client:
        yield place
    place.close()


def zip_of(**entries: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("_", "."), data)
    return content.getvalue()


def test_model_becomes_a_package_with_what_is_left_to_say(place: Place) -> None:
    job_id = place.ask(
        f"{API}/model-jobs/init",
        source=("Lungs.py", CODE),
        modality=(None, "DX"),
        size=(None, "32"),
        labels=(None, "Left, Right"),
        keep=(None, "true"),
    )
    job = place.done(job_id)
    assert job["outcome"]["model"] == "lungs 0.1.0"
    assert "licence" in job["outcome"]["left_to_say"]
    assert job["delete_after"] is None
    content = place.client.get(f"{API}/model-jobs/{job_id}/files/package.zip").content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert "size: 32" in archive.read("lungs/model.yaml").decode()
        assert archive.read("lungs/lungs.py") == CODE
    assert "Only you can say the rest" in place.page(job_id)


def test_registered_version_is_checked_and_run_on_its_samples(place: Place) -> None:
    job_id = place.ask(f"{MODEL}/versions/1.0.0/check")
    outcome = place.done(job_id)["outcome"]
    said = {check["name"]: check for check in outcome["checks"]}
    assert outcome["is_ok"], said
    assert "has the digest" in said["weights"]["text"]
    assert "of which inference" in said["samples/left.dcm"]["text"]
    assert "MB" in said["memory"]["text"]
    assert "nothing is wrong" in place.page(job_id)


def test_code_in_an_uploaded_package_is_shown_and_not_run(place: Place, tmp_path: Path) -> None:
    bundle = make_segmentation(tmp_path / "bundle")
    (bundle.path / "samples").mkdir()
    image().save_as(bundle.path / "samples" / "left.dcm", enforce_file_format=True)
    archive = pack(bundle.path, tmp_path / "tiny.tgz", "tiny/")
    job_id = place.ask(f"{API}/model-jobs/check", package=("tiny.tgz", archive.read_bytes()))
    outcome = place.done(job_id)["outcome"]
    said = [f"{check['name']}: {check['text']}" for check in outcome["checks"]]
    assert any("imports#1: $import os" in line for line in said)
    assert "samples: not run: nobody has approved the code above" in said
    assert not outcome["is_ok"]  # it has no card


def test_what_is_no_archive_is_refused_in_words(place: Place) -> None:
    evil = zip_of(**{"../../evil": b"x"})
    job_id = place.ask(f"{API}/model-jobs/check", package=("a.zip", evil))
    job = place.ended(job_id)
    assert job["state"] == "failed"
    assert job["reason"].startswith("package.zip: entry '../../evil': its name leads out of")
    assert job["attempts"] == 1


def test_version_is_tried_on_a_held_study_and_nothing_else_changes(place: Place) -> None:
    uid = place.hospital.receive(image())
    job_id = place.ask(f"{MODEL}/versions/1.0.0/try", study=(None, f"http://x/studies/{uid}"))
    job = place.done(job_id)
    left = next(one for one in job["outcome"]["findings"] if one["key"] == "left")
    assert left["present"]
    assert job["outcome"]["timings_s"]["infer"] > 0
    assert job["outcome"]["pictures"] == ["left.png"]
    picture = place.client.get(f"/model-jobs/{job_id}/files/left.png")
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["cache-control"] == "private, no-store"
    files = place.client.get(f"{API}/model-jobs/{job_id}/files").content
    with zipfile.ZipFile(io.BytesIO(files)) as archive:
        reports = [name for name in archive.namelist() if name.endswith(".dcm")]
        assert reports == job["outcome"]["objects"]
        report = dcmread(io.BytesIO(archive.read("sr.dcm")))
    assert str(report.StudyInstanceUID) == uid
    with place.database.reading() as session:
        for table in (AnalysisRunRow, ResultObjectRow, DeliveryRow):
            assert session.scalars(select(func.count()).select_from(table)).one() == 0
        kinds = session.scalars(select(StudyEventRow.kind)).all()
    assert "analysed" not in kinds
    page = place.page(job_id)
    assert f"/model-jobs/{job_id}/files/left.png" in page
    assert "P1" not in page


@pytest.mark.slow
def test_version_is_tried_on_uploaded_files_which_go_afterwards(
    place: Place, package: Path
) -> None:
    file = (package / "samples" / "left.dcm").read_bytes()
    job_id = place.ask(f"{MODEL}/versions/1.0.0/try", images=("a.zip", zip_of(study_dcm=file)))
    assert place.done(job_id)["outcome"]["objects"] == ["sr.dcm"]
    jobs = place.settings.data_directory / "jobs"
    left = ("*/in/images.zip", "*/work/images")
    wait_until(lambda: not any(any(jobs.glob(one)) for one in left), "the uploads are gone")


def test_evaluation_is_shown_and_kept_with_the_version(working: Working) -> None:
    def png(*, is_left: bool) -> bytes:
        pixels = np.full((40, 40), 30, np.uint8)
        if is_left:
            pixels[:, :20] = 200
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        return content.getvalue()

    images = zip_of(**{f"case{n}_png": png(is_left=n % 2 == 0) for n in range(6)})
    rows = [f"case{n}.png,{(n + 1) % 2},{'North' if n < 3 else 'South'}" for n in range(6)]
    # As a spreadsheet writes it, with its byte order mark.
    labels = "\n".join(["\ufeffimage,left,site", *rows]).encode()
    job_id = working.ask(
        f"{MODEL}/versions/1.0.0/evaluate",
        labels=("halves.csv", labels),
        images=("images.zip", images),
        who=(None, "ada"),
    )
    figures = working.done(job_id)["outcome"]["figures"]
    assert (figures["cases"], figures["left.sensitivity"], figures["left.auc"]) == (6, 1.0, 1.0)
    assert figures["left.sensitivity_low"] < 1
    kept = working.client.get(f"{MODEL}/evaluations").json()
    assert [(one["labels_name"], one["who"]) for one in kept] == [
        ("halves.csv", "ada (from testclient)")
    ]
    page = working.page(job_id)
    assert "<polyline" in page
    assert "site: North" in page
    assert {file["name"] for file in working.job(job_id)["files"]} >= {"report.md", "roc.png"}


def test_job_is_ended_when_a_person_cancels_it(working: Working, package: Path) -> None:
    network = (package / "models" / "model.pt2").read_bytes()
    job_id = working.ask(f"{API}/model-jobs/init", source=("halves.pt2", network))
    working.wait_for(job_id, lambda job: job["state"] == "running")
    working.client.post(f"{API}/model-jobs/{job_id}/cancel")
    job = working.ended(job_id)
    assert (job["state"], job["files"]) == ("cancelled", [])
    assert processes_of_jobs(working) == []


def test_job_whose_process_dies_twice_has_failed(working: Working, package: Path) -> None:
    network = (package / "models" / "model.pt2").read_bytes()
    job_id = working.ask(f"{API}/model-jobs/init", source=("halves.pt2", network))
    for attempt in (1, 2):
        working.wait_for(
            job_id, lambda job, n=attempt: (job["state"], job["attempts"]) == ("running", n)
        )
        wait_until(lambda: processes_of_jobs(working), "its process runs", timeout_s=SOON_S)
        for process in processes_of_jobs(working):
            os.kill(process, signal.SIGKILL)
    job = working.ended(job_id)
    assert job["state"] == "failed"
    assert job["reason"] == "its process ended with SIGKILL (2 attempts)"


def test_job_of_a_killed_worker_is_done_by_the_next_one(working: Working) -> None:
    job_id = working.ask(f"{API}/model-jobs/init", source=("lungs.py", CODE), size=(None, "32"))
    working.wait_for(job_id, lambda job: job["state"] == "running")
    working.stop_worker(signal.SIGKILL)
    wait_until(lambda: not processes_of_jobs(working), "the job's process ends with its worker")
    working.start_worker()
    assert working.done(job_id)["attempts"] == 2


def processes_of_jobs(place: Place) -> list[int]:
    """Return the processes that are at a job of this installation."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "models job" in command and str(place.settings.data_directory) in command:
            found.append(int(path.parent.name))
    return found
