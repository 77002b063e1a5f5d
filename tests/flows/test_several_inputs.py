"""A model of two series, from their arrival to the flag."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset
from sqlalchemy import select

from flows.analysis import analyse_study
from flows.steps import Step
from tests.models.tiny import manifest_of, write_manifest
from tests.tools import ManualClock
from tests.web.hospital import Hospital
from triage.core.priority import Priority
from triage.core.stages import Stage
from triage.models.host import ModelHosts
from triage.models.packages import ModelPackage
from triage.models.registry import register_package
from triage.settings import Settings, WorkerSettings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.tables import AnalysisRunRow, FindingRow, StudyRow
from triage.worklist.study_view import study_view


class _Enhancement(torch.nn.Module):
    """Says that a voxel is a lesion where contrast agent made it brighter by more than 50 HU."""

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(volumes[:, 1:2] - volumes[:, 0:1] - 50.0)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """A model of a head before and after contrast agent."""
    folder = tmp_path_factory.mktemp("registry") / "enhancement"
    (folder / "models").mkdir(parents=True)
    weights = folder / "models" / "model.pt2"
    program = torch.export.export(_Enhancement(), (torch.rand(1, 2, 6, 64, 64),))
    torch.export.save(program, weights)
    content = manifest_of(weights, name="enhancement")
    del content["accepts"]
    content["runner"] |= {"kind": "torch-export"}
    plain = {"modalities": ["CT"], "contrast": "without"}
    enhanced = {"modalities": ["CT"], "contrast": "with"}
    content["inputs"] = [
        {"name": "plain", "accepts": plain},
        {"name": "enhanced", "accepts": enhanced, "align": "first"},
    ]
    return write_manifest(folder, content)


@pytest.fixture
def hospital(sqlite_database: Database, files: InstanceFiles, clock: ManualClock) -> Hospital:
    """A hospital whose database the flow works on."""
    return Hospital(sqlite_database, files, clock)


@pytest.fixture(scope="module")
def hosts() -> Iterator[ModelHosts]:
    """Warm hosts for the tests of this module."""
    hosts = ModelHosts(WorkerSettings(device="cpu"))
    yield hosts
    hosts.close()


@pytest.fixture
def step(hospital: Hospital, hosts: ModelHosts, tmp_path: Path) -> Step:
    """What the flow needs."""
    step = Step(
        worker="tests",
        settings=Settings(data_directory=tmp_path),
        database=hospital.database,
        files=hospital.files,
        hosts=hosts,
        clock=hospital.clock,
    )
    step.become_worker()
    return step


def head(hospital: Hospital, lesion_hu: float, **attributes: str) -> list[Dataset]:
    """Return a block of tissue with a part of `lesion_hu`."""
    images = hospital.head_ct(slices=6, rows=64, PatientID="P1", **attributes)
    for number, image in enumerate(images):
        values = np.full((64, 64), 40)
        if number in {2, 3}:
            values[20:30, 20:30] = lesion_hu
        image.PixelData = (values + 1024).astype("<u2").tobytes()
    return images


async def test_what_only_both_series_show_is_found(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    with hospital.database.transaction() as session:
        register_package(session, package, stage=Stage.PRODUCTION, now=hospital.clock())
    study = {"StudyInstanceUID": "1.2.77", "StudyDescription": "CT head"}
    frame = {"FrameOfReferenceUID": "1.2.78"}
    hospital.receive(*head(hospital, 40, SeriesDescription="Head plain", **study, **frame))
    late = {"ContrastBolusAgent": "agent", "SeriesDescription": "Head late"}
    uid = hospital.receive(*head(hospital, 140, **late, **study, **frame))
    hospital.complete(uid)

    state = await analyse_study.fn()

    assert state.name == "Flagged", state.message
    with hospital.database.reading() as session:
        (row,) = session.scalars(select(StudyRow)).all()
        (run,) = session.scalars(select(AnalysisRunRow)).unique().all()
        (finding,) = session.scalars(select(FindingRow)).all()
        view = study_view(session, row.study_instance_uid, hospital.clock())
    assert row.priority is Priority.STAT
    assert finding.present
    assert view is not None
    assert view.runs[0].series == "Head plain + Head late"
    assert len(run.input_sha256) == len(hashlib.sha256().hexdigest())


async def test_series_that_cannot_be_laid_upon_one_another_are_not_routed(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    with hospital.database.transaction() as session:
        register_package(session, package, stage=Stage.PRODUCTION, now=hospital.clock())
    study = {"StudyInstanceUID": "1.2.77", "StudyDescription": "CT head"}
    hospital.receive(*head(hospital, 40, SeriesDescription="Head plain", **study))
    late = {"ContrastBolusAgent": "agent", "SeriesDescription": "Head late"}
    uid = hospital.receive(*head(hospital, 140, **late, **study))
    hospital.complete(uid)
    with hospital.database.reading() as session:
        assert session.scalars(select(AnalysisRunRow)).unique().all() == []
        view = study_view(session, uid, hospital.clock())
    assert view is not None
    assert "another frame of reference than the first input" in str(view)
