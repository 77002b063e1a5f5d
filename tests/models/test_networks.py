"""Networks without code, and models that are code, on inputs whose answer is known."""

from __future__ import annotations

import importlib
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.models.bundles import CODE
from tests.models.test_runners import turned_head
from tests.models.test_volume import ANGLES
from tests.models.tiny import LESION_FROM_HU, head_with_lesion, manifest_of, write_manifest
from triage.core.manifest import Preprocessing, RunnerSpec
from triage.models.host import ModelHosts
from triage.models.packages import ModelPackage
from triage.models.predictions import RunnerError
from triage.models.runners import load_runner
from triage.models.runners.network import NetworkRunner, prepared
from triage.models.tensors import ModelImage, ModelInput, ModelOutput

NUMBER = {
    "key": "n",
    "code": CODE,
    "measurement": {
        "name": "size",
        "concept": CODE,
        "unit": {"value": "mm", "scheme": "UCUM", "meaning": "millimeter"},
        "present_when": {"minimum": 10},
    },
}


class _Bright(torch.nn.Module):
    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return volume[:, :1] - 100.0  # LESION_FROM_HU


class _Sides(torch.nn.Module):
    """Scores an image by the brightness of its halves, and draws a box on the brighter one."""

    def forward(
        self, image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        half = image.shape[-1] // 2
        left, right = image[..., :half].mean(dim=[1, 2, 3]), image[..., half:].mean(dim=[1, 2, 3])
        box = torch.tensor([[[0.0, 0.0, 16.0, 32.0]]])
        label = torch.ones(1, 1, dtype=torch.int64)
        sides = torch.stack([left, right], dim=1)
        return sides, box, label, torch.full((1, 1), 0.75), image.max().reshape(1, 1)


def torchscript(
    folder: Path, module: torch.nn.Module, findings: Any = None, **runner: Any
) -> ModelPackage:
    (folder / "models").mkdir(parents=True)
    weights = folder / "models" / "model.ts"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is what people still bring
        torch.jit.save(torch.jit.script(module), str(weights))
    content = manifest_of(weights)
    content["runner"] |= {"kind": "torchscript"} | runner
    content["findings"] = findings or content["findings"]
    return write_manifest(folder, content)


def the_lesion(package: ModelPackage, model_input: ModelInput) -> Any:
    output = load_runner(package, "cpu").run(model_input)
    assert output.probabilities is not None
    return output.probabilities[0] > 0.5


@pytest.mark.parametrize(
    "preprocessing",
    [
        {},
        {"orientation": "RAS", "sliding_window": {"roi": [8, 8, 4], "overlap": 0.5}},
        {"orientation": "SPL", "layout": "channels-first"},
        {"orientation": "LIP", "channels": 3},
    ],
)
def test_torchscript_segments_whatever_axes_it_was_trained_on(
    tmp_path: Path, preprocessing: dict[str, Any]
) -> None:
    package = torchscript(
        tmp_path / "package", _Bright(), activation="sigmoid", preprocessing=preprocessing
    )
    model_input, lesion = turned_head((0.0, 0.0, 0.0), 0.0, tmp_path / "series")
    np.testing.assert_array_equal(the_lesion(package, model_input), lesion)


@settings(max_examples=15, deadline=None)
@given(
    angles=st.tuples(ANGLES, ANGLES, ANGLES),
    tilt=st.floats(-0.4, 0.4),
    axes=st.sampled_from(["RAS", "SPL", "AIR", "LPI"]),
)
def test_mask_lands_on_the_source_voxels_for_any_affine(
    angles: tuple[float, float, float], tilt: float, axes: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model_input, lesion = turned_head(angles, tilt, Path(folder))
    spec = manifest_of(Path(__file__))["runner"] | {
        "kind": "torchscript",
        "preprocessing": {"orientation": axes},
        "activation": "sigmoid",
    }
    runner = NetworkRunner(
        RunnerSpec.model_validate(spec), lambda x: [_Bright()(x)], torch.device("cpu")
    )
    output = runner.run(model_input)
    assert output.probabilities is not None
    np.testing.assert_array_equal(output.probabilities[0] > 0.5, lesion)


def test_resampled_network_brings_its_mask_back(tmp_path: Path) -> None:
    package = torchscript(
        tmp_path / "package",
        _Bright(),
        activation="sigmoid",
        preprocessing={"orientation": "RAS", "spacing_mm": [0.4, 0.4, 2.5]},
    )
    model_input, lesion = turned_head((0.0, 0.0, 0.0), 0.0, tmp_path / "series")
    found = the_lesion(package, model_input)
    assert found.shape == lesion.shape
    assert 2 * (found & lesion).sum() / (found.sum() + lesion.sum()) > 0.8


def test_each_slice_is_scored_by_itself(tmp_path: Path) -> None:
    package = torchscript(
        tmp_path,
        _Bright().requires_grad_(False),
        preprocessing={"each_slice": True, "window": {"centre": 50, "width": 100}},
        outputs=["probabilities"],
    )
    scored = NetworkRunner(
        package.manifest.runner, lambda x: [x.mean(dim=(2, 3))], torch.device("cpu")
    ).run(ModelInput(np.stack([np.full((4, 4), v, np.float32) for v in (0, 50, 900)]), np.eye(4)))
    assert scored.image_probabilities is not None
    np.testing.assert_allclose(scored.image_probabilities, [[0.0, 0.5, 1.0]])


def test_several_kinds_of_output_come_from_one_network(tmp_path: Path) -> None:
    package = torchscript(
        tmp_path,
        _Sides(),
        findings=[{"key": "l", "code": CODE, "channel": 0}, NUMBER],
        input={"kind": "image", "size": 32},
        outputs=["probabilities", "boxes", "box_labels", "box_scores", "measurements"],
        measurement_names=["size"],
    )
    image = np.zeros((1, 1, 32, 32), np.float32)
    image[..., :16] = 0.5
    output = load_runner(package, "cpu").run(ModelInput(image))
    assert output.probabilities is not None
    assert output.boxes is not None
    np.testing.assert_allclose(output.probabilities, [0.5, 0.0])
    np.testing.assert_allclose(output.boxes, [[0, 0, 16, 32]])
    assert output.box_labels is not None
    assert output.box_labels.tolist() == [1]
    assert output.measurements == {"size": 0.5}


def test_labels_and_a_score_of_the_whole_go_together() -> None:
    spec = RunnerSpec.model_validate(
        manifest_of(Path(__file__))["runner"]
        | {"kind": "torchscript", "outputs": ["labels", "probabilities"], "activation": "sigmoid"}
    )
    runner = NetworkRunner(
        spec, lambda x: [(x[:, 0] > LESION_FROM_HU).long(), torch.zeros(1, 2)], torch.device("cpu")
    )
    values, lesion = head_with_lesion()
    output = runner.run(ModelInput(values.astype(np.float32), np.eye(4)))
    assert output.labels is not None
    np.testing.assert_array_equal(output.labels, lesion)
    assert output.probabilities is not None
    assert output.probabilities.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("width", [4, 6])
def test_boxes_of_a_network_are_placed_in_the_patient(width: int) -> None:
    spec = RunnerSpec.model_validate(
        manifest_of(Path(__file__))["runner"]
        | {"kind": "torchscript", "outputs": ["boxes", "box_labels", "box_scores"]}
    )
    box = torch.tensor([1.0, 2.0, 3.0, 2.0, 4.0, 6.0])[None, None, :width]  # slice, row, column
    runner = NetworkRunner(
        spec,
        lambda _: [box, torch.ones(1, 1, dtype=torch.int64), torch.ones(1, 1)],
        torch.device("cpu"),
    )
    affine = np.diag([0.5, 0.25, 5.0, 1.0])
    affine[:3, 3] = [10, 20, 30]
    model_input = ModelInput(np.zeros((4, 8, 8), np.float32), affine)
    if width == 4:
        with pytest.raises(RunnerError, match=r"needed is \(boxes, 6\)"):
            runner.run(model_input)
        return
    output = runner.run(model_input)
    assert output.boxes is not None
    np.testing.assert_allclose(output.boxes, [[11.5, 20.5, 35, 13, 21, 40]])


def test_network_off_its_grid_is_refused(tmp_path: Path) -> None:
    package = torchscript(tmp_path, torch.nn.AvgPool3d(2))
    values, _ = head_with_lesion()
    with pytest.raises(RunnerError, match="its output must be on the grid of its input"):
        load_runner(package, "cpu").run(ModelInput(values.astype(np.float32), np.eye(4)))


def test_intensities_are_windowed_scaled_and_normalised() -> None:
    values = torch.tensor([-100.0, 0.0, 40.0, 80.0, 500.0]).reshape(1, 1, 1, 5)
    window = {"window": {"centre": 40, "width": 80}}
    scaled = Preprocessing.model_validate(window | {"scale": {"minimum": -1, "maximum": 1}})
    assert prepared(values, scaled).flatten().tolist() == [-1, -1, 0, 1, 1]
    coloured = Preprocessing.model_validate(
        window | {"channels": 2, "mean": [0.0, 0.5], "std": [1.0, 0.5]}
    )
    assert prepared(values, coloured)[0, :, 0].tolist() == [[0, 0, 0.5, 1, 1], [-1, -1, 0, 1, 1]]


def test_onnx_segments_a_volume(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    weights = tmp_path / "models" / "model.onnx"
    shape = ["batch", 1, "slices", "rows", "columns"]
    limit = helper.make_tensor("limit", TensorProto.FLOAT, [1], [LESION_FROM_HU])
    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["image", "limit"], ["logits"]),
            helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
        ],
        "bright",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape)],
        [limit],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(weights))
    content = manifest_of(weights)
    content["runner"] |= {
        "kind": "onnx",
        "outputs": ["probabilities"],
        "preprocessing": {"orientation": "RAS"},
    }
    model_input, lesion = turned_head((0.3, 0.0, 0.1), 0.0, tmp_path / "series")
    found = the_lesion(write_manifest(tmp_path, content), model_input)
    np.testing.assert_array_equal(found, lesion)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    package = torchscript(tmp_path, _Bright())
    content = package.manifest.model_dump(mode="json")
    content["runner"]["kind"] = "onnx"
    with pytest.raises(RunnerError, match=r"model\.ts: cannot be loaded as onnx"):
        load_runner(write_manifest(tmp_path, content), "cpu")


PREDICTOR = """
import numpy as np

from beside import LIMIT
from triage.models.tensors import ModelOutput


class Predictor:
    def load(self, folder, device):
        self.limit = float((folder / "limit.txt").read_text())

    def predict(self, model_input):
        prior = model_input.others["prior"]
        lesion = model_input.values > max(self.limit, LIMIT)
        return ModelOutput(
            labels=lesion.astype(np.uint8),
            boxes=np.array([[0.0, 0, 0, 5, 5, 5]]),
            box_labels=np.array([3]),
            box_scores=np.array([0.5], np.float32),
            measurements={"size": float(prior.values.max()), "tilt": float(prior.affine[0, 3])},
        )
"""


def python_package(folder: Path, **runner: Any) -> ModelPackage:
    folder.mkdir(parents=True, exist_ok=True)
    limit = folder / "limit.txt"
    limit.write_text("100")
    content = manifest_of(limit, findings=[NUMBER])
    content["runner"] = {"kind": "python", "input": {"kind": "volume"}} | runner
    return write_manifest(folder, content)


def test_python_class_of_a_package_gets_and_gives_everything(
    hosts: ModelHosts, tmp_path: Path
) -> None:
    """Through the host: all arrays, further images and numbers cross the channel."""
    (tmp_path / "predictor.py").write_text(PREDICTOR)
    (tmp_path / "beside.py").write_text("LIMIT = 90.0\n")
    package = python_package(tmp_path, entry="predictor:Predictor")
    values, lesion = head_with_lesion()
    affine = np.eye(4)
    affine[0, 3] = 7.0
    prior = ModelImage(np.full((2, 3, 4), 12.5, np.float32), affine)
    model_input = ModelInput(values.astype(np.float32), np.eye(4), {"prior": prior})
    output = hosts.infer_now(package, model_input)
    np.testing.assert_array_equal(output.labels, lesion)
    assert output.boxes is not None
    assert output.boxes.tolist() == [[0, 0, 0, 5, 5, 5]]
    assert output.box_labels is not None
    assert output.box_labels.tolist() == [3]
    assert output.measurements == {"size": 12.5, "tilt": 7.0}


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Path]:
    """A package that is installed, with the entry point `constant`."""
    site = tmp_path / "site"
    info = site / "tiny_model-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[triage.models]\nconstant = tiny_model:Constant\n")
    (site / "tiny_model.py").write_text(
        "from triage.models.tensors import ModelOutput\n\n\nclass Constant:\n"
        "    def load(self, folder, device):\n        self.device = device\n\n"
        "    def predict(self, model_input):\n"
        "        return ModelOutput(measurements={'size': 4.0})\n"
    )
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    yield site
    sys.path.remove(str(site))
    sys.modules.pop("tiny_model", None)


@pytest.mark.usefixtures("installed")
def test_entry_point_of_an_installed_package_is_run(tmp_path: Path) -> None:
    runner = load_runner(python_package(tmp_path / "package", entry_point="constant"), "cpu")
    output = runner.run(ModelInput(np.zeros((2, 3, 4), np.float32), np.eye(4)))
    assert output.measurements == {"size": 4.0}


@pytest.mark.usefixtures("installed")
def test_entry_point_that_nobody_has_names_those_there_are(tmp_path: Path) -> None:
    package = python_package(tmp_path / "package", entry_point="constnat")
    with pytest.raises(RunnerError, match=r"has constnat .* use one of: constant"):
        load_runner(package, "cpu")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("class Other:\n    pass\n", "has no Broken; correct the name after the colon"),
        ("class Broken:\n    pass\n", "has no method load"),
        ("import a_module_of_nobody\n", "No module named 'a_module_of_nobody'"),
    ],
)
def test_python_class_that_does_not_fit_says_why(tmp_path: Path, text: str, reason: str) -> None:
    module = f"broken_{abs(hash(text))}"
    (tmp_path / f"{module}.py").write_text(text)
    package = python_package(tmp_path, entry=f"{module}:Broken")
    with pytest.raises(RunnerError, match=reason):
        load_runner(package, "cpu")
    sys.path.remove(str(tmp_path))


def test_python_model_that_gives_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gives_a_list.py").write_text(
        "class Model:\n    def load(self, folder, device):\n        pass\n\n"
        "    def predict(self, model_input):\n        return [1]\n"
    )
    package = python_package(tmp_path, entry="gives_a_list:Model")
    with pytest.raises(RunnerError, match=r"predict gave list; return a .*ModelOutput"):
        load_runner(package, "cpu").run(ModelInput(np.zeros((2, 3, 4), np.float32), np.eye(4)))
    sys.path.remove(str(tmp_path))


def test_what_was_not_said_does_not_cross_the_channel() -> None:
    assert ModelOutput().to_arrays() == {}
    assert ModelOutput.from_arrays({}).measurements == {}
