"""The shipped chest radiograph package: what it says of itself is what it does."""

import csv
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydicom import dcmread

from triage.core.manifest import ImageInput, ModelManifest, parse_manifest
from triage.models.evaluation import evaluate_predictions, parse_held_out, parse_labels
from triage.models.radiograph import load_radiograph, model_input
from triage.simulator.radiograph import Examination, PhotometricInterpretation, Subject, radiograph

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "model_registry" / "chest-xray-urgent" / "1.0.0"
Program = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
POSITIVES = {
    "pneumothorax": ("Pneumothorax",),
    "effusion": ("Effusion",),
    "consolidation": ("Consolidation",),
    "edema": ("Edema",),
    "cardiomegaly": ("Cardiomegaly",),
    "urgent": ("Pneumothorax", "Effusion", "Consolidation", "Edema"),
}


@pytest.fixture(scope="module")
def manifest() -> ModelManifest:
    path = PACKAGE / "model.yaml"
    return parse_manifest(yaml.safe_load(path.read_text()), source=str(path))


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((PACKAGE / "recipe" / "figures.json").read_text())
    return content


@pytest.fixture(scope="module")
def program() -> Program:
    module = torch.export.load(PACKAGE / "models" / "model.pt2").module()

    def run(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            probabilities, heat_maps = module(image)
        return probabilities, heat_maps

    return run


def _input(path: Path, manifest: ModelManifest) -> torch.Tensor:
    """Return the model input of a file, made as in a run."""
    assert isinstance(manifest.runner.input, ImageInput)
    image = load_radiograph([(path.name, path)], manifest.accepts)
    return torch.from_numpy(model_input(image, manifest.runner.input))


def _recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dataset", PACKAGE / "recipe" / "dataset.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # Dataclasses look their module up by its name.
        patch.setitem(sys.modules, "dataset", module)
        spec.loader.exec_module(module)
    return module


def test_weights_are_the_ones_that_the_manifest_names(manifest: ModelManifest) -> None:
    content = (PACKAGE / manifest.runner.weights).read_bytes()
    assert hashlib.sha256(content).hexdigest() == manifest.runner.weights_sha256
    assert len(content) < 25_000_000


def test_findings_are_the_channels_and_only_urgent_asks_for_priority(
    manifest: ModelManifest,
) -> None:
    assert [finding.channel for finding in manifest.findings] == list(range(6))
    assert [finding.key for finding in manifest.findings] == list(POSITIVES)
    assert {f.key for f in manifest.findings if f.priority.name != "ROUTINE"} == {"urgent"}


def test_thresholds_are_the_measured_ones(manifest: ModelManifest, figures: dict[str, Any]) -> None:
    for finding in manifest.findings:
        assert finding.threshold == pytest.approx(figures["thresholds"][finding.key], abs=5e-5)


def test_drawn_chest_gets_the_expected_answer(manifest: ModelManifest, program: Program) -> None:
    expected = json.loads((PACKAGE / "samples" / "expected.json").read_text())
    probabilities, heat_maps = program(_input(PACKAGE / "samples" / expected["input"], manifest))
    assert probabilities.shape == (1, 6)
    assert heat_maps.shape[:2] == (1, 6)
    assert 0.0 <= float(heat_maps.min()) <= float(heat_maps.max()) <= 1.0
    wanted = torch.tensor([list(expected["probabilities"].values())])
    assert float((probabilities - wanted).abs().max()) <= expected["tolerance"]


def test_a_run_prepares_the_image_as_training_did(manifest: ModelManifest) -> None:
    path = PACKAGE / "samples" / "synthetic-chest.dcm"
    assert isinstance(manifest.runner.input, ImageInput)
    trained = _recipe().preprocess(dcmread(path).pixel_array, manifest.runner.input.size)
    assert float((_input(path, manifest) - trained[None]).abs().max()) < 1e-3


@pytest.mark.parametrize("photometric_interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_depth_and_inversion_of_the_values_do_not_matter(
    tmp_path: Path,
    manifest: ModelManifest,
    photometric_interpretation: PhotometricInterpretation,
) -> None:
    sample = PACKAGE / "samples" / "synthetic-chest.dcm"
    pixels = dcmread(sample).pixel_array.astype(np.uint16) * 16
    path = tmp_path / "other.dcm"
    other = radiograph(
        pixels,
        Subject("X"),
        Examination("X", datetime(2026, 1, 1, tzinfo=UTC)),
        photometric_interpretation=photometric_interpretation,
    )
    other.save_as(path, enforce_file_format=True)
    assert float((_input(path, manifest) - _input(sample, manifest)).abs().max()) < 1e-3


def test_card_states_the_measured_areas(figures: dict[str, Any]) -> None:
    card = (PACKAGE / "MODEL_CARD.md").read_text()
    for part in ("nested_cross_validation", "held_out_fold"):
        measured = figures[part]
        for key in POSITIVES:
            low, high = measured[f"{key}.auc_low"], measured[f"{key}.auc_high"]
            assert f"{measured[f'{key}.auc']:.2f} ({low:.2f} to {high:.2f})" in card


def test_every_patient_is_on_one_side_of_the_split() -> None:
    with (PACKAGE / "recipe" / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["patient_id"] for row in rows}) == len(rows)
    assert {row["part"] for row in rows if row["fold"] == "0"} == {"held_out"}
    assert {row["part"] for row in rows if row["fold"] != "0"} == {"train"}


@pytest.mark.slow
def test_held_out_patients_give_the_figures_of_the_card(
    manifest: ModelManifest, program: Program, figures: dict[str, Any]
) -> None:
    shared = Path(os.environ.get("TRIAGE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    folder = shared / "cxr-nih"
    if not folder.is_dir():
        pytest.skip(f"the radiographs are not at {folder}; set TRIAGE_SHARED_DATA")
    labels = parse_labels((folder / "labels.csv").read_text().splitlines())
    held_out = parse_held_out((PACKAGE / "recipe" / "split.csv").read_text().splitlines())
    predictions = {}
    for label in labels:
        if label.patient_id in held_out:
            probabilities, _ = program(_input(folder / "images" / label.image, manifest))
            predictions[label.image] = dict(zip(POSITIVES, probabilities[0].tolist(), strict=True))
    measured = evaluate_predictions(
        labels, predictions, {}, POSITIVES, held_out=held_out, replicates=1
    )
    assert measured["images_without_prediction"] == 0
    for key in POSITIVES:
        expected = figures["held_out_fold"][f"{key}.auc"]
        assert measured[f"{key}.auc"] == pytest.approx(expected, abs=0.005)
