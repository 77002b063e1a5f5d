"""The runners in this process: bundles and exported programs on inputs whose answer is known."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.models.test_volume import ANGLES, rotation
from tests.models.tiny import (
    LESION_FROM_HU,
    head_with_lesion,
    make_classification,
    make_segmentation,
    manifest_of,
    slice_dataset,
    write_all,
    write_manifest,
)
from triage.models.packages import ModelPackage
from triage.models.predictions import RunnerError
from triage.models.runners import Runner, load_runner
from triage.models.tensors import ModelInput
from triage.models.volume import load_volume

AFFINE = np.diag([0.5, 0.5, 5.0, 1.0])


@pytest.fixture(scope="module")
def runner(segmentation: ModelPackage) -> Runner:
    return load_runner(segmentation, "cpu")


def turned_head(
    angles: tuple[float, float, float], tilt: float, folder: Path
) -> tuple[ModelInput, NDArray[np.bool_]]:
    """Return the input of a turned head scanned with a tilted gantry, and where its lesion is."""
    turn = rotation(*angles)
    values, lesion = head_with_lesion()
    along = turn @ np.array([0.0, np.tan(tilt), 1.0])
    directions = [f"{v:.10f}" for v in (*turn[:, 0], *turn[:, 1])]
    series = [
        slice_dataset(v, 5.0 * n * along, n + 1, ImageOrientationPatient=directions)
        for n, v in enumerate(values)
    ]
    volume = load_volume(write_all(series, folder))
    return ModelInput(volume.values, volume.affine), lesion


@settings(max_examples=25, deadline=None)
@given(angles=st.tuples(ANGLES, ANGLES, ANGLES), tilt=st.floats(-0.5, 0.5))
def test_mask_lands_on_the_source_voxels_however_the_head_lies(
    runner: Runner, angles: tuple[float, float, float], tilt: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model_input, lesion = turned_head(angles, tilt, Path(folder))
    output = runner.run(model_input)
    assert output.probabilities is not None
    np.testing.assert_array_equal(output.probabilities[0] > 0.5, lesion)


def test_tilted_volume_is_straightened_for_the_network_and_comes_back(tmp_path: Path) -> None:
    """The network sees a grid at right angles; the mask lies on the slanted source voxels."""
    spacing = {"_target_": "Spacingd", "keys": "image", "pixdim": [0.5, 0.5, 5.0]}
    package = make_segmentation(tmp_path / "package", preprocessing=[spacing])
    model_input, lesion = turned_head((0.0, 0.0, 0.0), 0.3, tmp_path / "series")
    output = load_runner(package, "cpu").run(model_input)
    assert output.probabilities is not None
    found = output.probabilities[0] > 0.5
    overlap = 2 * (found & lesion).sum() / (found.sum() + lesion.sum())
    assert overlap > 0.8
    assert {int(i) for i in np.flatnonzero(found.any(axis=(1, 2)))} == {2, 3}


@pytest.mark.parametrize(
    "last_step",
    [
        {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
        {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: (x > 0.5).byte()"},
    ],
)
def test_label_map_is_told_from_probabilities(tmp_path: Path, last_step: dict[str, Any]) -> None:
    package = make_segmentation(tmp_path / "package", postprocessing=[last_step])
    values, lesion = head_with_lesion()
    output = load_runner(package, "cpu").run(ModelInput(values.astype(np.float32), AFFINE))
    assert output.probabilities is None
    assert output.labels is not None
    assert output.labels.dtype == np.uint8
    np.testing.assert_array_equal(output.labels, lesion)


def test_channels_of_a_one_hot_output_are_labels(tmp_path: Path) -> None:
    one_hot = "$lambda x: __import__('torch').cat([1 - x.round(), x.round()])"
    package = make_segmentation(
        tmp_path / "package",
        postprocessing=[{"_target_": "Lambdad", "keys": "pred", "func": one_hot}],
    )
    values, lesion = head_with_lesion()
    output = load_runner(package, "cpu").run(ModelInput(values.astype(np.float32), AFFINE))
    assert output.labels is not None
    np.testing.assert_array_equal(output.labels, lesion)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    package = make_segmentation(tmp_path / "package")
    torch.save({"other": torch.ones(1)}, package.weights)
    changed = manifest_of(package.weights)
    with pytest.raises(RunnerError, match="not a state dict of network_def"):
        load_runner(write_manifest(package.path, changed), "cpu")


def test_weights_that_are_code_are_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "sprung"),))  # type: ignore[return-value]

    package = make_segmentation(tmp_path / "package")
    torch.save(Trap(), package.weights)
    with pytest.raises(Exception, match="weights_only"):
        load_runner(write_manifest(package.path, manifest_of(package.weights)), "cpu")
    assert not (tmp_path / "sprung").exists()


def test_bundle_without_a_needed_key_says_which(tmp_path: Path) -> None:
    package = make_segmentation(tmp_path / "package")
    config = package.path / "configs" / "inference.json"
    config.write_text(config.read_text().replace('"inferer"', '"inferrer"'))
    with pytest.raises(RunnerError, match="the key inferer is required"):
        load_runner(package, "cpu")


def test_exported_program_gives_probabilities_and_heat_maps(tmp_path: Path) -> None:
    runner = load_runner(make_classification(tmp_path / "package"), "cpu")
    image = np.zeros((1, 1, 32, 32), np.float32)
    image[..., :16] = 0.5
    output = runner.run(ModelInput(image))
    assert output.probabilities is not None
    np.testing.assert_allclose(output.probabilities, [0.5, 0.0])
    assert output.heat_maps is not None
    assert output.heat_maps.shape == (2, 4, 4)


class _Threshold(torch.nn.Module):
    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(volume - LESION_FROM_HU)


def test_exported_program_may_segment_volumes(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    weights = tmp_path / "models" / "model.pt2"
    values, lesion = head_with_lesion()
    example = torch.zeros(1, 1, *values.shape)
    torch.export.save(torch.export.export(_Threshold(), (example,)), weights)
    content = manifest_of(weights)
    content["runner"] |= {"kind": "torch-export"}
    runner = load_runner(write_manifest(tmp_path, content), "cpu")
    output = runner.run(ModelInput(values.astype(np.float32), AFFINE))
    assert output.probabilities is not None
    np.testing.assert_array_equal(output.probabilities[0] > 0.5, lesion)
