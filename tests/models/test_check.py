"""`triage models init` and `check`: a package made from a file, and what is still to be said."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml

from tests.models.tiny import axial_series, head_with_lesion, write_all
from tests.tools import PROJECT
from triage.models.check import Verdict, check_package
from triage.models.model_files import ScaffoldError, read_model_file
from triage.models.package_samples import EXPECTED, record_expectations, samples_of
from triage.models.packages import ModelPackage, PackageError, load_package
from triage.models.placeholders import PLACEHOLDER, unfilled
from triage.models.scaffold import Said, scaffold
from triage.settings import WorkerSettings
from triage.simulator.radiograph import Examination, Subject, radiograph

CPU = WorkerSettings(device="cpu")
WHEN = datetime(2026, 1, 1, tzinfo=UTC)
CARD = "# A card\n\n" + "It marks what is bright, for tests, and nothing else whatever. " * 5


@pytest.fixture
def folder(classification: ModelPackage, tmp_path: Path) -> Path:
    """A package with a card and a sample whose left half is bright."""
    home = Path(shutil.copytree(classification.path, tmp_path / "package"))
    (home / "MODEL_CARD.md").write_text(CARD)
    (home / "samples").mkdir()
    pixels = np.full((40, 40), 30, np.uint8)
    pixels[:, :20] = 200
    image = radiograph(pixels, Subject("P1"), Examination("A1", WHEN))
    image.save_as(home / "samples" / "left.dcm", enforce_file_format=True)
    return home


def expect(folder: Path, **findings: object) -> None:
    (folder / "samples" / EXPECTED).write_text(json.dumps({"left.dcm": {"findings": findings}}))


def test_package_is_run_on_its_samples_and_compared(folder: Path) -> None:
    expect(folder, left={"present": True, "confidence": 0.78}, right={"present": False})
    report = check_package(folder, CPU)
    assert report.is_ok
    verdicts = {check.name: check.verdict for check in report.checks}
    assert verdicts["samples/left.dcm"] is Verdict.OK
    assert "MB" in next(check.text for check in report.checks if check.name == "memory")

    record_expectations(folder, report.said)
    (sample,) = samples_of(folder)
    assert sample.contradictions(report.said["left.dcm"]) == []
    assert sample.findings["left"]["present"] is True

    expect(folder, left={"present": False}, lung={"present": True})
    (wrong,) = [c for c in check_package(folder, CPU).checks if c.verdict is Verdict.WRONG]
    assert "left is present, not as expected" in wrong.text
    assert "lung is expected, and the model does not look for it" in wrong.text


def test_damage_is_said_with_the_fix_and_nothing_is_run(folder: Path) -> None:
    (folder / "models" / "model.pt2").write_bytes(b"other")
    (folder / "MODEL_CARD.md").unlink()
    report = check_package(folder, CPU)
    assert not report.is_ok
    texts = " ".join(check.text for check in report.checks)
    assert "runner.weights_sha256" in texts
    assert "there is no MODEL_CARD.md" in texts


def test_sample_that_is_not_there_is_named(folder: Path) -> None:
    (folder / "samples" / "left.dcm").unlink()
    expect(folder, left={"present": True})
    texts = [check.text for check in check_package(folder, CPU).checks]
    assert any("left.dcm: there is no such file or folder in samples" in text for text in texts)


def test_shipped_packages_have_samples_with_expectations() -> None:
    for package in PROJECT.glob("model_registry/*/*/"):
        assert all(sample.findings for sample in samples_of(package)), package


def test_bundle_becomes_a_package_that_lacks_only_what_a_person_can_say(tmp_path: Path) -> None:
    shipped = PROJECT / "model_registry" / "head-ct-hemorrhage" / "1.0.0"
    bundle = tmp_path / "Bleeding Net"
    for part in ("configs", "models"):
        shutil.copytree(shipped / part, bundle / part)
    made = scaffold(bundle, tmp_path / "made", Said())
    manifest = load_package(made).manifest
    assert manifest.identity == "bleeding-net 1.0.0"
    assert manifest.accepts.modalities == ("CT",)
    assert [f.key for f in manifest.findings] == ["hemorrhage"]
    left = list(unfilled(manifest.model_dump(mode="json")))
    assert left == [
        "licence",
        "findings.0.code.value",
        "findings.0.segment.type.value",
    ]
    wrong = [c for c in check_package(made, CPU).checks if c.verdict is Verdict.WRONG]
    assert {check.name for check in wrong} == {"to be said", "card"}


def test_exported_program_says_its_size_and_its_channels(
    classification: ModelPackage, tmp_path: Path
) -> None:
    said = Said(name="halves", modality="DX", labels=("Left", "Right"))
    made = scaffold(classification.weights, tmp_path / "made", said)
    manifest = load_package(made).manifest
    content = manifest.model_dump(mode="json")
    assert content["runner"]["kind"] == "torch-export"
    assert content["runner"]["input"]["size"] == 32
    assert [(f.key, f.channel) for f in manifest.findings] == [("left", 0), ("right", 1)]
    with pytest.raises(ScaffoldError, match="exists already; choose another folder with --out"):
        scaffold(classification.weights, made, said)


def test_kind_of_a_file_is_seen_from_its_content(tmp_path: Path) -> None:
    scripted = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(torch.nn.Conv2d(1, 2, 1)), scripted)
    assert read_model_file(scripted).kind == "torchscript"
    with pytest.raises(ScaffoldError, match="does not say how large its images are; give --size"):
        scaffold(scripted, tmp_path / "made", Said(modality="DX"))
    made = scaffold(scripted, tmp_path / "made", Said(modality="DX", size=64))
    assert yaml.safe_load((made / "model.yaml").read_text())["runner"]["kind"] == "torchscript"

    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Sigmoid", ["x"], ["y"])],
        "net",
        [onnx.helper.make_tensor_value_info("x", kind, ["n", 1, 48, 48])],
        [onnx.helper.make_tensor_value_info("y", kind, ["n", 1, 48, 48])],
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), tmp_path / "n.onnx"
    )
    read = read_model_file(tmp_path / "n.onnx")
    assert (read.kind, read.image_size, read.channels) == ("onnx", 48, 1)

    code = tmp_path / "lungs.py"
    code.write_text("class Lungs:\n def load(self, f, d): ...\n def predict(self, i): ...\n")
    assert read_model_file(code).entry == "lungs:Lungs"

    torch.save({"weight": torch.ones(1)}, tmp_path / "state.pth")
    with pytest.raises(ScaffoldError, match="a state dictionary alone"):
        read_model_file(tmp_path / "state.pth")


def test_what_is_made_is_wrong_only_where_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ScaffoldError, match=r"metadata\.json: there is no such file"):
        scaffold(tmp_path, tmp_path / "made", Said())
    (tmp_path / "model.yaml").write_text("name: x")
    with pytest.raises(PackageError):
        load_package(tmp_path)
    assert list(unfilled({"a": f"{PLACEHOLDER}: b", "c": ["d", PLACEHOLDER]})) == ["a", "c.1"]


def test_volume_sample_is_a_folder(segmentation: ModelPackage, tmp_path: Path) -> None:
    home = Path(shutil.copytree(segmentation.path, tmp_path / "package"))
    (home / "MODEL_CARD.md").write_text(CARD)
    values, _ = head_with_lesion()
    series = axial_series(values)
    for image in series:
        image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.9", "1.2.9.1"
    write_all(series, home / "samples" / "bleeding")
    report = check_package(home, CPU)
    assert report.is_ok
    assert report.said["bleeding"][0].present
    looked = next(c for c in report.checks if c.name == "samples/bleeding")
    assert (looked.verdict, "--record" in looked.text) == (Verdict.LOOK, True)
