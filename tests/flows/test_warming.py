"""Models are loaded before the study that needs them is complete."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.steps import Step
from flows.warming import Warming
from tests.flows.test_analysis import head_ct, register
from tests.models.tiny import make_classification, make_segmentation
from tests.tools import ManualClock
from tests.web.hospital import Hospital
from triage.models.host import ModelHosts
from triage.models.packages import ModelPackage, PackageError
from triage.settings import Settings, WorkerSettings
from triage.store.database import Database
from triage.store.files import InstanceFiles


@pytest.fixture
def hosts() -> Iterator[ModelHosts]:
    """Hosts that have loaded nothing yet."""
    hosts = ModelHosts(WorkerSettings(device="cpu"))
    yield hosts
    hosts.close()


@pytest.fixture
def step(
    sqlite_database: Database,
    files: InstanceFiles,
    clock: ManualClock,
    hosts: ModelHosts,
    tmp_path: Path,
) -> Step:
    """A worker without Prefect."""
    settings = Settings(data_directory=tmp_path)
    return Step("tests", settings, sqlite_database, files, hosts, clock)


async def test_model_is_loaded_when_a_study_for_it_begins_to_arrive(
    step: Step, files: InstanceFiles, clock: ManualClock, tmp_path: Path
) -> None:
    hospital = Hospital(step.database, files, clock)
    of_ct = make_segmentation(tmp_path / "ct")
    of_radiographs = make_classification(tmp_path / "radiographs")
    register(hospital, of_ct)
    register(hospital, of_radiographs)
    warming = Warming(step)

    await warming.warm_ahead()
    assert step.hosts.process_ids() == {}

    hospital.receive(*head_ct(hospital)[:1])
    await warming.warm_ahead()
    assert list(step.hosts.process_ids()) == [of_ct.manifest.identity]


async def test_model_that_cannot_be_loaded_is_not_tried_without_end(
    step: Step,
    files: InstanceFiles,
    clock: ManualClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hospital = Hospital(step.database, files, clock)
    register(hospital, make_segmentation(tmp_path / "broken", runner={"keep_warm": True}))
    tries = []

    async def broken(package: ModelPackage) -> None:
        tries.append(package)
        raise PackageError("cannot be loaded")

    monkeypatch.setattr(step.hosts, "warm", broken)
    warming = Warming(step)
    await warming.warm_ahead()
    await warming.warm_ahead()
    assert len(tries) == 1
    clock.advance(61)
    await warming.warm_ahead()
    assert len(tries) == 2
