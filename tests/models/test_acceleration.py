"""Faster ways to run a network are kept only where its answers stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.test_host import volume
from tests.models.tiny import make_segmentation
from tests.tools import PROJECT
from triage.models.acceleration import Acceleration, greatest_difference, load_fastest
from triage.models.packages import load_package
from triage.models.runners import Runner, load_runner
from triage.models.samples import sample_inputs
from triage.models.tensors import ModelOutput

BETWEEN_HU = 101.7  # bfloat16 has no such number
REGISTRY = PROJECT / "model_registry"


def loaded(folder: Path, **runner: object) -> tuple[list[Acceleration], Runner, tuple[str, ...]]:
    """Load a package as a host does; return also what was tried."""
    package = make_segmentation(folder, runner=runner)
    tried: list[Acceleration] = []

    def load(acceleration: Acceleration) -> Runner:
        tried.append(acceleration)
        return load_runner(package, "cpu", acceleration)

    return tried, *load_fastest(load, package.manifest.runner, lambda: [volume(BETWEEN_HU)])


def test_nothing_is_compared_where_nothing_is_asked(tmp_path: Path) -> None:
    tried, _, remarks = loaded(tmp_path / "plain")
    assert (tried, remarks) == ([Acceleration(channels_last=True)], ())


def test_precision_within_the_tolerance_is_kept(tmp_path: Path) -> None:
    tried, runner, remarks = loaded(tmp_path / "half", precision="bfloat16", tolerance=0.05)
    assert remarks == ()
    assert tried[-1].precision == "bfloat16"
    probabilities = runner.run(volume(BETWEEN_HU)).probabilities
    assert probabilities is not None
    assert probabilities.dtype == np.float32


def test_precision_that_changes_answers_is_not_kept(tmp_path: Path) -> None:
    # In bfloat16 it is 101.5 HU, and its probability 0.82 instead of 0.85.
    tried, runner, remarks = loaded(tmp_path / "exact", precision="bfloat16", tolerance=0.01)
    (remark,) = remarks
    assert remark.startswith("bfloat16 is not used, because answers differ by")
    assert "runner.tolerance is 0.01" in remark
    plain = load_runner(load_package(tmp_path / "exact"), "cpu", tried[0])
    assert greatest_difference(plain.run(volume(BETWEEN_HU)), runner.run(volume(BETWEEN_HU))) == 0.0


def test_what_fails_is_left_out_and_the_rest_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_: object) -> Callable[..., object]:
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(torch, "compile", no_compiler)
    tried, _, remarks = loaded(
        tmp_path / "both", precision="bfloat16", compile=True, tolerance=0.05
    )
    assert remarks == ("compile is not used, because it failed: no C++ compiler found",)
    assert [a.compiled for a in tried] == [False, False, True]


def test_difference_of_outputs() -> None:
    labels = np.zeros((2, 2, 2), np.uint8)
    other = labels.copy()
    other[0, 0, 0] = 1
    assert greatest_difference(ModelOutput(labels=labels), ModelOutput(labels=other)) == 0.125
    some = ModelOutput(probabilities=np.array([0.1, 0.9], np.float32))
    none = ModelOutput(probabilities=np.array([0.1, np.nan], np.float32))
    assert greatest_difference(some, none) == float("inf")
    assert greatest_difference(some, ModelOutput(labels=labels)) == float("inf")


@pytest.mark.parametrize(
    ("package", "shapes"),
    [
        ("head-ct-hemorrhage", {(26, 256, 256)}),
        ("chest-xray-urgent", {(1, 1, 224, 224)}),
    ],
)
def test_samples_of_the_shipped_models_are_what_their_runners_get(
    package: str, shapes: set[tuple[int, ...]]
) -> None:
    inputs = list(sample_inputs(load_package(REGISTRY / package / "1.0.0")))
    assert {i.values.shape for i in inputs} == shapes
