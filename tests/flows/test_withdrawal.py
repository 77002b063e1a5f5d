"""A late image, as flow and worker carry it: the new report names the old, a note rejects it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select

from flows.analysis import analyse_study
from flows.steps import Step
from flows.worker import Worker
from tests.models.tiny import make_segmentation
from tests.tools import ManualClock
from tests.web.hospital import Hospital
from triage.models.host import ModelHosts
from triage.settings import Settings, WorkerSettings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.model_tables import ModelRow
from triage.store.tables import ResultObjectRow


@pytest.fixture
def step(
    sqlite_database: Database, files: InstanceFiles, clock: ManualClock, tmp_path: Path
) -> Step:
    """What the flow needs, with a model that segments and no archive."""
    package = make_segmentation(
        tmp_path / "tiny", results={"objects": ["seg", "sr", "key-objects", "pdf"]}
    )
    with sqlite_database.transaction() as session:
        session.add(
            ModelRow(
                name=package.manifest.name,
                version=package.manifest.version,
                stage="production",
                manifest=package.manifest.model_dump(mode="json"),
                package_path=str(package.path),
                package_sha256=package.sha256,
                registered_at=clock(),
            )
        )
    settings = Settings(data_directory=tmp_path, worker=WorkerSettings(warm_models=False))
    hosts = ModelHosts(WorkerSettings(device="cpu"))
    return Step(
        worker="tests",
        settings=settings,
        database=sqlite_database,
        files=files,
        hosts=hosts,
        clock=clock,
    )


def _slices(hospital: Hospital) -> list[Dataset]:
    images = hospital.head_ct(slices=8, rows=64)
    for number, image in enumerate(images):
        values = np.full((64, 64), -1000)
        values[8:-8, 8:-8] = 40
        if number in {2, 3}:
            values[20:30, 20:30] = 170
        image.PixelData = (values + 1024).astype("<u2").tobytes()
    return images


def _objects(step: Step) -> list[tuple[str, Dataset]]:
    with step.database.reading() as session:
        rows = session.scalars(select(ResultObjectRow).order_by(ResultObjectRow.id)).all()
        return [(row.role, pydicom.dcmread(step.files.absolute(row.path))) for row in rows]


async def test_a_late_image_s_report_takes_the_place_of_the_earlier_one(step: Step) -> None:
    hospital = Hospital(step.database, step.files, step.clock)  # type: ignore[arg-type]
    images = _slices(hospital)
    uid = hospital.receive(*images[:6])
    hospital.complete(uid)
    step.become_worker()
    try:
        await analyse_study.fn()
        hospital.receive(*images[6:])
        hospital.complete(uid)
        await analyse_study.fn()
    finally:
        step.hosts.close()
    await Worker(step)._withdraw()
    made = _objects(step)
    assert [role for role, _ in made] == [
        *["seg", "sr", "pdf", "key-objects"] * 2,
        "rejection-note",
    ]
    first, second, note = made[1][1], made[5][1], made[-1][1]
    named = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first
    rejected = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in note.ContentSequence
        if "ReferencedSOPSequence" in item
    }
    assert rejected == {dataset.SOPInstanceUID for _, dataset in made[:4]}
