"""Two versions on the studies that Triage holds, from records and run now; on the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from tests.models.tiny import axial_series, head_with_lesion
from tests.tools import ManualClock
from tests.web.hospital import Hospital
from triage.cli import main
from triage.core.stages import Stage
from triage.models.compare_now import compare_now, truth_of
from triage.models.packages import ModelPackage, load_package
from triage.models.registry import register_package
from triage.models.stages import version_of
from triage.settings import Settings
from triage.store.code_approvals import approve_code
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.model_tables import ModelEventRow

NAME = "tiny-segmentation"


@pytest.fixture
def settings(sqlite_database: Database, tmp_path: Path) -> Settings:
    """The settings of an installation whose images lie beside the test's database."""
    return Settings(data_directory=tmp_path / "data", worker={"device": "cpu"})


@pytest.fixture
def hospital(
    sqlite_database: Database,
    segmentation: ModelPackage,
    tmp_path: Path,
    clock: ManualClock,
) -> Hospital:
    """1.0.0 marks every lesion; 2.0.0 only those of 100 mL, which there is none of."""
    stages = {"1.0.0": Stage.PRODUCTION, "2.0.0": Stage.SHADOW}
    for version, stage in stages.items():
        folder = Path(shutil.copytree(segmentation.path, tmp_path / version))
        manifest = yaml.safe_load((folder / "model.yaml").read_text()) | {"version": version}
        if version == "2.0.0":
            manifest["findings"][0]["minimum_volume_ml"] = 100.0
        (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
        with sqlite_database.transaction() as session:
            row = register_package(session, load_package(folder), stage=stage, now=clock())
            # The tiny bundle misbehaves by expressions, which are code.
            approve_code(session, row.package_sha256, who="ada", reason="tests", now=clock())
    return Hospital(sqlite_database, InstanceFiles(tmp_path / "data"), clock)


def receive(hospital: Hospital, uid: str, *, has_lesion: bool) -> str:
    values, _ = head_with_lesion()
    series = axial_series(values if has_lesion else np.minimum(values, 40))
    for number, image in enumerate(series):
        image.StudyInstanceUID, image.SeriesInstanceUID = uid, f"{uid}.1"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{uid}.2.{number}"
    return hospital.receive(*series)


def test_what_was_not_recorded_is_run_now_and_not_recorded(
    hospital: Hospital, settings: Settings, tmp_path: Path
) -> None:
    with_lesion = receive(hospital, "1.2.81", has_lesion=True)
    receive(hospital, "1.2.82", has_lesion=False)
    labels = tmp_path / "labels.csv"
    labels.write_text("study_instance_uid,hemorrhage\n1.2.81,1\n1.2.82,0\n")
    truth = truth_of(hospital.database, labels, NAME, "2.0.0")
    seen: list[tuple[int, int]] = []
    comparison = compare_now(
        hospital.database,
        settings,
        (NAME, "1.0.0", "2.0.0"),
        most=10,
        labels=truth,
        on_progress=lambda *at: seen.append(at),
    )
    first, second = comparison.differences
    assert (first.study_instance_uid, first.is_changed, second.is_changed) == (
        with_lesion,
        True,
        False,
    )
    (agreement,) = comparison.agreements
    assert (agreement.only_a, agreement.both_absent, agreement.only_a_right) == (1, 1, 1)
    assert agreement.mcnemar_p == 1.0
    assert seen[-1] == (2, 2)
    assert "only 1.0.0 right 1" in agreement.said("1.0.0", "2.0.0")
    with hospital.database.reading() as session:
        assert session.connection().exec_driver_sql("SELECT COUNT(*) FROM findings").scalar() == 0


def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: str) -> Result:
    monkeypatch.setenv("TRIAGE_DATABASE__URL", f"sqlite:///{tmp_path / 'triage.sqlite'}")
    monkeypatch.setenv("TRIAGE_DATA_DIRECTORY", str(tmp_path / "data"))
    return CliRunner().invoke(main, ["models", *arguments])


def test_commands_change_stages_and_say_who(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(*arguments: str) -> Result:
        return command(monkeypatch, tmp_path, *arguments)

    why = ("--reason", "it does better", "--who", "ada")
    canary = run("promote", NAME, "2.0.0", "--to", "canary", "--share", "0.3", *why)
    assert canary.output == f"{NAME} 2.0.0 is in canary of 30% of the studies\n"
    assert run("promote", NAME, "2.0.0", "--to", "production", *why).exit_code == 0
    listed = run("list").output
    assert listed.index("2.0.0") < listed.index("production") < listed.index("retired")
    assert "1.0.0 is in production again" in run("rollback", NAME, *why).output
    assert "is retired" in run("retire", NAME, "1.0.0", "--reason", "fire").output
    with hospital.database.reading() as session:
        events = session.query(ModelEventRow).order_by(ModelEventRow.id).all()
        assert {e.who for e in events if e.action in ("promoted", "rolled-back")} == {"ada"}
        assert events[-1].who not in ("", "ada")  # whoever runs the tests
    assert "1.0.0 is not parked; its runs go on" in run("resume", NAME, "1.0.0", *why).output
    with hospital.database.transaction() as session:
        version_of(session, NAME, "2.0.0").parked_until = hospital.clock()
    assert run("resume", NAME, "2.0.0", *why).output == f"the runs of {NAME} 2.0.0 go on\n"
    shown = run("show", NAME)
    assert "Looks for: Hemorrhage from confidence 0.5 on, priority STAT." in shown.output
    refused = run("promote", NAME, "7.0.0", "--to", "shadow", *why)
    assert (refused.exit_code, "registered are: 1.0.0, 2.0.0" in refused.output) == (1, True)


def test_study_that_triage_holds_is_tried(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uid = receive(hospital, "1.2.83", has_lesion=True)
    nobody = command(monkeypatch, tmp_path, "try", f"{NAME}/1.0.0", "1.2.99", "--out", "x")
    assert "1.2.99 is neither a folder nor a study that Triage holds" in nobody.output
    out = tmp_path / "out"
    tried = command(monkeypatch, tmp_path, "try", f"{NAME}/1.0.0", uid, "--out", str(out))
    assert "Hemorrhage" in tried.output, tried.output
    assert (out / "findings.json").is_file()
