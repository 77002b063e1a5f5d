"""`triage models explain`, on a folder and on a study that was received."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.models.tiny import axial_series, head_with_lesion, write_all
from tests.store.rows import received
from tests.tools import ManualClock
from triage.commands.models import models
from triage.models.packages import ModelPackage
from triage.store.database import Database
from triage.store.studies import record_instance


def explain(package: ModelPackage, study: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(models, ["explain", str(package.path), study])


def test_each_series_of_a_folder_is_explained(segmentation: ModelPackage, tmp_path: Path) -> None:
    for series, modality in ((1, "CT"), (2, "MR")):
        images = axial_series(head_with_lesion()[0])
        for image in images:
            image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.7", f"1.2.7.{series}"
            image.Modality = modality
        write_all(images, tmp_path / modality)
    said = explain(segmentation, str(tmp_path))
    assert said.output.splitlines() == [
        "input image, from the study:",
        "  chosen   series 1.2.7.1: score 20 (original +20)",
        "  refused  series 1.2.7.2: modality MR, model accepts CT",
        "would be analysed",
    ]


def test_a_received_study_is_explained(
    segmentation: ModelPackage,
    sqlite_database: Database,
    sqlite_url: str,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIAGE_DATABASE__URL", sqlite_url)
    with sqlite_database.transaction() as session:
        record_instance(session, received(clock(), modality="MR"))
    said = explain(segmentation, "1.2.3")
    assert "refused  series 1.2.3.1: modality MR, model accepts CT" in said.output
    unknown = explain(segmentation, "1.2.4")
    assert unknown.exit_code != 0
    assert "neither a folder nor the Study Instance UID" in unknown.output
