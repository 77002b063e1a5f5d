"""The shipped head CT package is whole: manifest, weights and samples belong together."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from triage.core.manifest import ModelManifest, parse_manifest

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = PROJECT / "model_registry" / "head-ct-hemorrhage" / "1.0.0"
EXPECTED: dict[str, Any] = json.loads((PACKAGE / "samples" / "expected.json").read_text())
SEPARATOR = "next sample"
EACH_IN_TURN = f"""
import runpy, sys
_, recipe, *folders = sys.argv
for folder in folders:
    print("{SEPARATOR}")
    sys.argv = [recipe, "--dicom", folder]
    runpy.run_path(recipe, run_name="__main__")
"""


@pytest.fixture(scope="module")
def manifest() -> ModelManifest:
    path = PACKAGE / "model.yaml"
    return parse_manifest(yaml.safe_load(path.read_text()), source=str(path))


def test_weights_are_those_that_the_manifest_names(manifest: ModelManifest) -> None:
    weights = PACKAGE / manifest.runner.weights

    assert weights.stat().st_size < 10_000_000
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == manifest.runner.weights_sha256
    state = torch.load(weights, weights_only=True)
    assert all(torch.isfinite(value).all() for value in state.values())


def test_every_finding_has_an_expectation_for_each_sample(manifest: ModelManifest) -> None:
    for expectation in EXPECTED.values():
        assert set(expectation["findings"]) == {finding.key for finding in manifest.findings}


@pytest.mark.parametrize("name", list(EXPECTED))
def test_samples_are_small(name: str) -> None:
    files = list((PACKAGE / "samples" / name).iterdir())

    assert sum(file.stat().st_size for file in files) < 2_000_000


def test_model_says_of_its_samples_what_is_expected() -> None:
    said = evaluated(list(EXPECTED))
    assert said.keys() == EXPECTED.keys()
    for name, expectation in EXPECTED.items():
        (wanted,) = expectation["findings"].values()
        tolerance = expectation["tolerance"]
        confidence = pytest.approx(wanted["confidence"], abs=tolerance["confidence"])
        volume_ml = pytest.approx(
            wanted["volume_ml"], rel=tolerance["volume_ml_relative"], abs=tolerance["volume_ml"]
        )

        assert said[name]["present"] is wanted["present"], name
        assert said[name]["confidence"] == confidence, name
        assert said[name]["volume_ml"] == volume_ml, name


def evaluated(names: list[str]) -> dict[str, Any]:
    """Return what the recipe prints of each sample, in one process: to start costs the most."""
    program = [sys.executable, "-c", EACH_IN_TURN, PACKAGE / "recipe" / "evaluate.py"]
    done = subprocess.run(
        [*program, *(PACKAGE / "samples" / name for name in names)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    printed = done.stdout.split(SEPARATOR)[1:]
    return {
        name: json.loads(one[one.index("{") :]) for name, one in zip(names, printed, strict=True)
    }
