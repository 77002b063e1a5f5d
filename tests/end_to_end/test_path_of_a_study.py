"""A study goes in over DICOM, and the worklist and the archive change; whatever is killed."""

from __future__ import annotations

import json
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest

from tests.end_to_end.system import RunningSystem, simulated_head_ct
from tests.orthanc import Orthanc
from tests.results.scenes import run_tool
from tests.tools import require_tool, wait_until
from triage.simulator.hemorrhage import HemorrhageKind, LesionSpec

pytestmark = pytest.mark.timeout(600)

_BLEEDING = LesionSpec(HemorrhageKind.INTRAPARENCHYMAL, 25.0)
_ANALYSED_WITHIN_S = 120.0
# Kept, because each client reads all authorities of the system, for which none is asked.
_HTTP = httpx.Client(timeout=10, verify=False)


def _series_of(archive: Orthanc, study_instance_uid: str) -> list[dict[str, Any]]:
    """The series of a study as QIDO-RS lists them (DICOM PS3.18 10.6)."""
    answer = _HTTP.get(
        f"{archive.url}/dicom-web/studies/{study_instance_uid}/series",
        headers={"Accept": "application/dicom+json"},
    )
    return list(answer.json()) if answer.is_success and answer.content else []


def _results_in(archive: Orthanc, study_instance_uid: str) -> list[str]:
    """Return the modalities of the results that count: no rejection note names them."""
    series = {
        str(each["0020000E"]["Value"][0]): str(each["00080060"]["Value"][0])
        for each in _series_of(archive, study_instance_uid)
    }
    rejected = set()
    for uid, modality in series.items():
        if modality == "KO":
            note = pydicom.dcmread(BytesIO(_first_file(archive, uid)))
            for study in note.CurrentRequestedProcedureEvidenceSequence:
                rejected |= {str(each.SeriesInstanceUID) for each in study.ReferencedSeriesSequence}
            rejected.add(uid)
    return sorted(modality for uid, modality in series.items() if uid not in rejected)


def _first_file(archive: Orthanc, series_instance_uid: str) -> bytes:
    found = _HTTP.post(f"{archive.url}/tools/lookup", content=series_instance_uid).json()[0]
    instance = _HTTP.get(f"{archive.url}/series/{found['ID']}").json()["Instances"][0]
    return _HTTP.get(f"{archive.url}/instances/{instance}/file").content


def _download(archive: Orthanc, study_instance_uid: str, modality: str, folder: Path) -> Path:
    for series in _series_of(archive, study_instance_uid):
        if series["00080060"]["Value"] == [modality]:
            path = folder / f"{modality}.dcm"
            path.write_bytes(_first_file(archive, series["0020000E"]["Value"][0]))
            return path
    raise AssertionError(f"no {modality} in the archive")


def _is_flagged(system: RunningSystem, study_instance_uid: str) -> bool:
    study = system.study(study_instance_uid)
    return bool(study) and study["priority"] == "stat"


def _history(system: RunningSystem, study_instance_uid: str, kind: str) -> list[str]:
    study = system.study(study_instance_uid)
    assert study is not None
    return [event["text"] for event in study["history"] if event["kind"] == kind]


def test_real_head_ct_leaves_valid_results_in_the_archive(
    system: RunningSystem, archive: Orthanc, shared_data: Path, tmp_path: Path
) -> None:
    files = sorted((shared_data / "dicom" / "head-ct-ge").glob("*.dcm"))
    study_instance_uid = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)

    system.send(*files)

    wait_until(
        lambda: {"SEG", "SR"} <= set(_results_in(archive, study_instance_uid)),
        "SEG and SR are in the archive",
        timeout_s=_ANALYSED_WITHIN_S,
    )
    segmentation = _download(archive, study_instance_uid, "SEG", tmp_path)
    report = _download(archive, study_instance_uid, "SR", tmp_path)
    assert run_tool("dciodvfy", "-new", segmentation).errors() == []
    assert run_tool("dciodvfy", "-new", report).errors() == []
    tree = subprocess.run(
        [require_tool("dsrdump"), "+Pl", str(report)], capture_output=True, check=True
    ).stdout.decode()
    assert "Imaging Measurement Report" in tree
    assert "not for clinical use" in tree


def test_a_bleeding_study_moves_above_one_that_came_first(
    system: RunningSystem, archive: Orthanc, tmp_path: Path
) -> None:
    normal, normal_files = simulated_head_ct(tmp_path / "normal", seed=70_001)
    bleeding, bleeding_files = simulated_head_ct(tmp_path / "bleeding", 70_002, _BLEEDING)

    system.send(*normal_files)
    system.send(*bleeding_files)
    wait_until(lambda: _is_flagged(system, bleeding), "the flag", timeout_s=_ANALYSED_WITHIN_S)

    entries = _HTTP.get(f"{system.web}/api/v1/worklist").json()["entries"]
    place = {entry["study_instance_uid"]: entry["place"] for entry in entries}
    assert place[bleeding] < place[normal]
    reason = next(e["reason"] for e in entries if e["study_instance_uid"] == bleeding)
    assert reason.startswith("Intracranial hemorrhage, ")
    assert "mL, confidence 0." in reason or "mL, confidence 1." in reason
    assert "head-ct-hemorrhage 1.0.0" in reason
    wait_until(lambda: _results_in(archive, bleeding) == ["SEG", "SR"], "the objects", timeout_s=60)
    report = _download(archive, bleeding, "SR", tmp_path)
    metrics = tmp_path / "metrics.json"
    run_tool(
        "tid1500reader",
        "--inputDICOM",
        report,
        "--outputMetadata",
        metrics,
    )
    volume = json.loads(metrics.read_text())["Measurements"][0]["measurementItems"][0]["value"]
    assert 10 < float(volume) < 50


@pytest.mark.parametrize("part", ["receiver", "worker", "prefect", "web"])
def test_a_part_killed_in_the_middle_of_a_study_loses_and_doubles_nothing(
    system: RunningSystem, archive: Orthanc, tmp_path: Path, part: str
) -> None:
    seed = 70_010 + ["receiver", "worker", "prefect", "web"].index(part)
    study_instance_uid, files = simulated_head_ct(tmp_path / "study", seed, _BLEEDING)
    before = system.pid_of(part)

    system.send(*files[: len(files) // 2])
    if part == "worker":  # in the middle of the analysis, not only of the study
        system.send(*files[len(files) // 2 :])
        _wait_for_event(system, study_instance_uid, "routed")
    system.kill(part)
    system.send_until_accepted(*files)

    wait_until(
        lambda: _is_flagged(system, study_instance_uid), "the flag", timeout_s=_ANALYSED_WITHIN_S
    )
    wait_until(
        lambda: _results_in(archive, study_instance_uid) == ["SEG", "SR"],
        "one set of objects in the archive",
        timeout_s=60,
    )
    wait_until(system.is_green, "every part is well again", timeout_s=90)
    assert system.pid_of(part) != before
    assert len(_history(system, study_instance_uid, "flagged")) == 1
    study = system.study(study_instance_uid)
    assert study is not None
    received = [s for s in study["series"] if not s["is_result"]]
    assert sum(s["instances"] for s in received) == len(files)
    assert _results_in(archive, study_instance_uid) == ["SEG", "SR"]


def _wait_for_event(system: RunningSystem, study_instance_uid: str, kind: str) -> None:
    def happened() -> bool:
        study = system.study(study_instance_uid)
        return study is not None and any(e["kind"] == kind for e in study["history"])

    wait_until(happened, f"the study is {kind}", timeout_s=30)


def test_studies_are_received_and_wait_while_prefect_is_away(
    system: RunningSystem, tmp_path: Path
) -> None:
    study_instance_uid, files = simulated_head_ct(tmp_path / "study", 70_020, _BLEEDING)

    with system.paused("prefect"):
        system.send(*files)
        _wait_for_event(system, study_instance_uid, "routed")
        study = system.study(study_instance_uid)
        assert study is not None
        assert study["runs"][0]["state"] in {"pending", "running"}

    wait_until(
        lambda: _is_flagged(system, study_instance_uid), "the flag", timeout_s=_ANALYSED_WITHIN_S
    )
