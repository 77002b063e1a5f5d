"""What counts as code in a package."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tools import PROJECT
from triage.models.code import code_in
from triage.models.exported_code import code_in_program
from triage.models.packages import ModelPackage, load_package
from triage.models.shipped import digests_in, shipped_list

_MEAN = "torch.ops.aten.mean.dim"
PLAIN: dict[str, Any] = {
    "network_def": {"_target_": "monai.networks.nets.UNet", "channels": [1, 2], "@act": "@relu"},
    "relu": {"_target_": "torch.nn.ReLU"},
    "network": "$@network_def",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
            {"_target_": "monai.transforms.Orientationd", "keys": "image", "axcodes": "RAS"},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "%#network_def#channels"},
    "postprocessing": {"_target_": "Compose", "transforms": [{"_target_": "SaveImaged"}]},
    "price": "5 $",
}


def found_in(tmp_path: Path, package: ModelPackage, config: Any) -> list[str]:
    """Return what is found in the package with this as its configuration."""
    folder = Path(shutil.copytree(package.path, tmp_path / "package", dirs_exist_ok=True))
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    return [found.in_words() for found in code_in(load_package(folder))]


def test_bundle_of_known_parts_holds_no_code(segmentation: ModelPackage, tmp_path: Path) -> None:
    assert found_in(tmp_path, segmentation, PLAIN) == []


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("imports", ["$import os"], "imports#0: $import os"),
        ("network", "$@network_def.to(@device)", "network: $@network_def.to(@device)"),
        ("x", {"y": ["$open('/etc/passwd').read()"]}, "x#y#0: $open("),
        ("x", {"_target_": "os.system", "command": "id"}, "x#_target_: _target_ os.system"),
        ("x", {"_target_": "torch.load"}, "_target_ torch.load"),
        ("x", {"_target_": "torch.hub.load"}, "_target_ torch.hub.load"),
        ("x", {"_target_": "torch.nn.utils.init.subprocess.Popen"}, "_target_ torch.nn.utils"),
        ("x", {"_target_": "monai.transforms.utils.os.system"}, "_target_ monai.transforms"),
        ("x", {"_target_": "monai.bundle.ConfigParser"}, "_target_ monai.bundle"),
        ("x", {"_target_": "optional_import"}, "_target_ optional_import"),
        ("x", {"_target_": "CheckpointLoader"}, "_target_ CheckpointLoader"),
        ("x", {"_target_": "PersistentDataset"}, "_target_ PersistentDataset"),
        ("x", {"_target_": "TorchVisiond", "name": "x"}, "_target_ TorchVisiond"),
        ("x", {"_target_": "LoadImaged", "reader": "NumpyReader"}, "_target_ LoadImaged"),
        ("x", {"_target_": "@relu"}, "_target_ @relu"),
        ("x", {"_target_": "%name"}, "_target_ %name"),
        ("x", {"_target_": {"a": 1}}, "_target_ {'a': 1}"),
        ("x", "%/tmp/other.json::key", "x: %/tmp/other.json::key"),
    ],
)
def test_what_runs_is_code(
    segmentation: ModelPackage, tmp_path: Path, key: str, value: Any, shown: str
) -> None:
    (line,) = found_in(tmp_path, segmentation, PLAIN | {key: value})
    assert line.startswith("configs/inference.json, ")
    assert shown in line


def test_python_files_are_code_but_for_the_recipe(
    classification: ModelPackage, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(classification.path, tmp_path / "package"))
    for name in ("recipe/train.py", "scripts/net.py", "lib/fast.so"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    assert [found.file for found in code_in(load_package(folder))] == [
        "lib/fast.so",
        "scripts/net.py",
    ]


def test_exported_program_is_data(classification: ModelPackage) -> None:
    assert code_in(classification) == ()


def forged(program: Path, target: Path, change: Callable[[str, bytes], bytes], added: str) -> Path:
    """Write the program anew with its entries changed, and with one more."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
        if added:
            new.writestr(added, b"x")
    return target


@pytest.mark.parametrize(
    ("operator", "added", "why"),
    [
        ("torch.os.system", "", "operator torch.os.system"),
        ("torch.ops.load_library", "", "operator torch.ops.load_library"),
        ("_operator.methodcaller", "", "operator _operator.methodcaller"),
        (_MEAN, "archive/data/constants/opaque_obj_0", "a pickled object"),
        (_MEAN, "archive/data/aotinductor/model/model.wrapper.so", "compiled code"),
        (_MEAN, "archive/models/other.txt", "cannot be read"),
    ],
)
def test_exported_program_that_does_more_is_code(
    classification: ModelPackage, tmp_path: Path, operator: str, added: str, why: str
) -> None:
    def change(name: str, content: bytes) -> bytes:
        is_graph = "models/" in name
        return content.replace(_MEAN.encode(), operator.encode()) if is_graph else content

    program = forged(classification.weights, tmp_path / "model.pt2", change, added)
    assert any(why in text for _, text in code_in_program(program))


@pytest.mark.parametrize(
    ("expression", "is_code"),
    [
        ("Max(1, 2*FloorDiv(s77 + 1, 2))", False),
        ("s0 <= 512", False),
        ("exec('1')", True),
        ("s0.__class__", True),
        ("open(s0)", True),
    ],
)
def test_sizes_are_arithmetic_or_code(tmp_path: Path, expression: str, is_code: bool) -> None:
    program = tmp_path / "model.pt2"
    with zipfile.ZipFile(program, "w") as archive:
        archive.writestr("m/models/model.json", json.dumps({"a": [{"expr_str": expression}]}))
    assert bool(list(code_in_program(program))) is is_code


def test_configuration_that_cannot_be_read_is_taken_for_code(
    segmentation: ModelPackage, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(segmentation.path, tmp_path / "package"))
    (folder / "configs" / "inference.json").write_text('{"a": [')
    (found,) = code_in(load_package(folder))
    assert "cannot be read" in found.in_words()


def test_list_of_shipped_packages_is_current() -> None:
    assert shipped_list() == digests_in(PROJECT / "model_registry"), "run `make shipped`"
