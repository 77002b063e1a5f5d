"""The shipped chest radiograph package: what it says of itself is what it does."""

import csv
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydicom import dcmread

from triage.core.manifest import ImageInput, ModelManifest, parse_manifest
from triage.models.evaluation import evaluate_predictions, parse_held_out, parse_labels

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "model_registry" / "chest-xray-urgent" / "1.0.0"
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
def program() -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    module = torch.export.load(PACKAGE / "models" / "model.pt2").module()

    def run(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            probabilities, heat_maps = module(image)
        return probabilities, heat_maps

    return run


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    """The training code's preprocessing, which the manifest describes."""
    spec = importlib.util.spec_from_file_location("dataset", PACKAGE / "recipe" / "dataset.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "dataset", module)
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


def test_drawn_chest_gets_the_expected_answer(
    manifest: ModelManifest,
    recipe: ModuleType,
    program: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
) -> None:
    expected = json.loads((PACKAGE / "samples" / "expected.json").read_text())
    pixels = dcmread(PACKAGE / "samples" / expected["input"]).pixel_array
    assert isinstance(manifest.runner.input, ImageInput)
    probabilities, heat_maps = program(recipe.preprocess(pixels, manifest.runner.input.size)[None])
    assert probabilities.shape == (1, 6)
    assert heat_maps.shape[:2] == (1, 6)
    assert 0.0 <= float(heat_maps.min()) <= float(heat_maps.max()) <= 1.0
    wanted = torch.tensor([list(expected["probabilities"].values())])
    assert float((probabilities - wanted).abs().max()) <= expected["tolerance"]


def test_scaling_of_the_values_does_not_matter(
    recipe: ModuleType,
    program: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
) -> None:
    pixels = dcmread(PACKAGE / "samples" / "synthetic-chest.dcm").pixel_array
    one, _ = program(recipe.preprocess(pixels, 224)[None])
    other, _ = program(recipe.preprocess(pixels.astype(np.uint16) * 16 + 100, 224)[None])
    assert float((one - other).abs().max()) < 1e-4


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


def test_held_out_patients_give_the_figures_of_the_card(
    recipe: ModuleType,
    program: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    figures: dict[str, Any],
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
            pixels = np.asarray(Image.open(folder / "images" / label.image).convert("L"))
            probabilities, _ = program(recipe.preprocess(pixels, 224)[None])
            predictions[label.image] = dict(zip(POSITIVES, probabilities[0].tolist(), strict=True))
    measured = evaluate_predictions(
        labels, predictions, {}, POSITIVES, held_out=held_out, replicates=1
    )
    assert measured["images_without_prediction"] == 0
    for key in POSITIVES:
        # The figures were taken before the weights were stored in fewer bytes.
        assert measured[f"{key}.auc"] == pytest.approx(
            figures["held_out_fold"][f"{key}.auc"], abs=0.01
        )
