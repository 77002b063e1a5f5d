"""Bundles in the layouts of the MONAI Model Zoo, with networks whose answer is known.

The Zoo's bundles differ in their keys, file formats, weights and in how a prediction comes back.
Each function writes one such layout, with a network of one convolution that answers "brighter
than LESION_FROM_HU". The published bundles that have the layout are named beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.models.tiny import LESION_FROM_HU, manifest_of, write_manifest
from triage.models.packages import ModelPackage

CODE = {"value": "50960005", "scheme": "SCT", "meaning": "Hemorrhage"}
Config = dict[str, Any]

_DETECTOR = '''
"""A detector that draws one box around all that is bright."""

import torch


class BrightDetector:
    def __init__(self, network):
        self.network = network
        self.pred_score_key = "label_scores"
        self.target_box_key = self.target_label_key = ""

    def set_target_keys(self, box_key, label_key):
        self.target_box_key, self.target_label_key = box_key, label_key


class BrightInferer:
    def __init__(self, detector):
        self.detector = detector

    def __call__(self, inputs, network):
        assert self.detector.network is network
        bright = torch.nonzero(network(inputs[0][None])[0, 0] > 0)
        box = torch.cat([bright.amin(dim=0), bright.amax(dim=0)]).float()[None]
        detector = self.detector
        return [{
            detector.target_box_key: box,
            detector.target_label_key: torch.zeros(1, dtype=torch.int64),
            detector.pred_score_key: torch.tensor([0.9]),
        }]
'''


def step(target: str, **arguments: Any) -> Config:
    """Return a component of a bundle's configuration."""
    return {"_target_": target, **arguments}


def steps(*transforms: Config) -> Config:
    """Return transforms one after the other."""
    return step("Compose", transforms=list(transforms))


def spleen_layout(folder: Path) -> ModelPackage:
    """Window, spacing and orientation; two channels, inverted before argmax; a loader on its own.

    So are spleen_ct_segmentation, swin_unetr_btcv_segmentation and pancreas_ct_dints_segmentation.
    """
    image, pred = {"keys": "image"}, {"keys": "pred"}
    config = _around(
        _comparing_network(),
        preprocessing=steps(
            step("LoadImaged", **image, reader="ITKReader"),
            step("EnsureChannelFirstd", **image, meta_key_postfix="meta_dict"),
            step("Orientationd", **image, axcodes="RAS"),
            step("Spacingd", **image, pixdim=[0.5, 0.5, 2.5], mode="bilinear"),
            step("EnsureTyped", **image),
        ),
        inferer=step("SlidingWindowInferer", roi_size=[16, 16, 16], sw_batch_size=4, overlap=0.5),
        postprocessing=steps(
            step("Activationsd", **pred, softmax=True),
            step("Invertd", **pred, transform="@preprocessing", orig_keys="image"),
            step("AsDiscreted", **pred, argmax=True),
            step("SaveImaged", **pred, output_dir="@output_dir", output_ext=".nii.gz"),
        ),
        output_dir="$@bundle_root + '/eval'",
        checkpointloader=_checkpoint_loader(),
        initialize=["$@checkpointloader(@evaluator)"],
    )
    return _write(folder, config, _comparing_weights())


def template_layout(folder: Path) -> ModelPackage:
    """YAML, transforms by an expression, weights below "model", nothing that inverts.

    So are segmentation_template and, but for YAML, spleen_deepedit_annotation.
    """
    config = _around(
        _comparing_network(),
        imports=["$import os", "$import a_module_that_is_not_installed"],
        image="$monai.utils.CommonKeys.IMAGE",
        pred="$monai.utils.CommonKeys.PRED",
        transforms=[
            step("LoadImaged", keys="@image", image_only=True),
            step("EnsureChannelFirstd", keys="@image"),
            step("Orientationd", keys="@image", axcodes="LPI"),
        ],
        preprocessing=step("Compose", transforms="$@transforms"),
        inferer=step("SimpleInferer"),
        postprocessing=steps(
            step("AsDiscreted", keys=["@pred", "label"], argmax=True),
            step("SaveImaged", keys="@pred", output_dir="./outputs"),
        ),
    )
    return _write(folder, config, {"model": _comparing_weights()}, name="inference.yaml")


def brats_layout(folder: Path) -> ModelPackage:
    """Four images in four channels, no orientation, several labels by an expression.

    So is brats_mri_segmentation.
    """
    network = step("torch.nn.Conv3d", in_channels=4, out_channels=3, kernel_size=1)
    weight = torch.zeros(3, 4, 1, 1, 1)
    weight[0, 3] = 1.0  # the first label is where the last image is bright
    config = _around(
        network,
        preprocessing=steps(step("LoadImaged", keys="image")),
        inferer=step("SlidingWindowInferer", roi_size=[240, 240, 160], overlap=0.5),
        postprocessing=steps(
            step("Activationsd", keys="pred", sigmoid=True),
            step("Invertd", keys="pred", transform="@preprocessing", orig_keys="image"),
            step("AsDiscreted", keys="pred", threshold=0.5),
            step("Lambdad", keys="pred", func="$lambda x: torch.where(x[[0]] > 0, 4, 0)"),
        ),
    )
    weights = {"weight": weight, "bias": torch.full((3,), -LESION_FROM_HU)}
    # The patch is larger than the test's volume, which would be padded to nine million voxels.
    overrides = {"inferer#roi_size": [16, 16, 16]}
    return _write(folder, config, weights, runner={"overrides": overrides}, label=4)


def classification_layout(folder: Path) -> ModelPackage:
    """A picture in three channels, logits that are only compared, a label that is not there.

    So are endoscopic_inbody_classification and classification_template.
    """
    config = _around(
        step("scripts.halves.Halves"),
        image_key="image",
        preprocessing=steps(
            step("LoadImaged", keys="@image_key", image_only=False),
            step("EnsureChannelFirstd", keys="@image_key", channel_dim=-1),
            step("Resized", keys="@image_key", spatial_size=[16, 16], mode="bilinear"),
        ),
        inferer=step("SimpleInferer"),
        postprocessing=steps(
            step("AsDiscreted", keys=["pred", "label"], argmax=[True, False], to_onehot=2),
            step("SaveClassificationd", keys="pred", output_dir="eval"),
        ),
    )
    _script(
        folder,
        "halves",
        "import torch\n\n\nclass Halves(torch.nn.Module):\n"
        '    """Compares the left and the right half of a picture (columns first)."""\n\n'
        "    def __init__(self):\n        super().__init__()\n"
        "        self.scale = torch.nn.Parameter(torch.zeros(1))\n\n"
        "    def forward(self, x):\n        assert x.shape[1] == 3\n"
        "        half = x.shape[2] // 2\n        left, right = x[:, :, :half], x[:, :, half:]\n"
        "        sides = [s.mean(dim=(1, 2, 3)) * self.scale for s in (left, right)]\n"
        "        return torch.stack(sides, dim=1)\n",
    )
    metadata = {"network_data_format": {"inputs": {"image": {"num_channels": 3}}}}
    (folder / "configs").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    channel = {"key": "left", "code": CODE, "channel": 0}
    runner = {"input": {"kind": "image", "size": 32, "scaling": "bits"}}
    weights = {"scale": torch.tensor([0.1])}
    return _write(folder, config, weights, runner=runner, findings=[channel])


def detection_layout(folder: Path) -> ModelPackage:
    """A detector with code of its own, set up by what the evaluator requires; boxes in the world.

    So is lung_nodule_ct_detection.
    """
    image = {"keys": "image"}
    box = {"box_keys": "box", "box_ref_image_keys": "image"}
    config = _around(
        step("torch.nn.Conv3d", in_channels=1, out_channels=1, kernel_size=1),
        is_raw=False,
        is_resampled="$(not @is_raw)",
        preprocessing=steps(
            step("LoadImaged", **image, _disabled_="@is_raw"),
            step("LoadImaged", **image, reader="itkreader", _disabled_="@is_resampled"),
            step("EnsureChannelFirstd", **image),
            step("Orientationd", **image, axcodes="RAS"),
        ),
        detector=step("scripts.bright.BrightDetector", network="@network"),
        detector_ops=["$@detector.set_target_keys(box_key='box', label_key='label')"],
        inferer=step("scripts.bright.BrightInferer", detector="@detector"),
        postprocessing=steps(
            step("ClipBoxToImaged", **box, label_keys="label", remove_empty=True),
            step("AffineBoxToWorldCoordinated", **box, affine_lps_to_ras=True),
            step("ConvertBoxModed", box_keys="box", src_mode="xyzxyz", dst_mode="cccwhd"),
            step("DeleteItemsd", **image),
        ),
        evaluator=step("scripts.evaluator.Evaluator", _requires_="@detector_ops"),
    )
    _script(folder, "bright", _DETECTOR)
    weights = {"weight": torch.ones(1, 1, 1, 1, 1), "bias": torch.tensor([-LESION_FROM_HU])}
    return _write(
        folder, config, weights, findings=[{"key": "n", "code": CODE, "box": {"label": 0}}]
    )


def scripted_layout(folder: Path) -> ModelPackage:
    """Weights as TorchScript, as `models/model.ts` of many bundles."""
    package = spleen_layout(folder)
    network = torch.nn.Conv3d(1, 2, 1)
    network.load_state_dict(_comparing_weights())
    weights = folder / "models" / "model.ts"
    torch.jit.save(torch.jit.script(network), str(weights))
    return write_manifest(package.path, manifest_of(weights))


def _comparing_network() -> Config:
    return step("torch.nn.Conv3d", in_channels=1, out_channels=2, kernel_size=1)


def _comparing_weights() -> dict[str, torch.Tensor]:
    weight = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1, 1)
    return {"weight": weight, "bias": torch.tensor([0.0, -LESION_FROM_HU])}


def _checkpoint_loader() -> Config:
    path = "$@bundle_root + '/models/model.pt'"
    return step("CheckpointLoader", load_path=path, load_dict={"model": "@network"})


def _around(network: Config, **keys: Any) -> Config:
    """Return a configuration with all that Triage has to pass over: data, handlers, evaluator."""
    return {
        "bundle_root": ".",
        "dataset_dir": "/workspace/data",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "dataset": step("Dataset", data="@no_such_list", transform="@preprocessing"),
        "handlers": [_checkpoint_loader(), step("StatsHandler", iteration_log=False)],
        "evaluator": step("SupervisedEvaluator", val_data_loader="@no_such_loader"),
        "run": ["$@evaluator.run()"],
    } | keys


def _script(folder: Path, name: str, text: str) -> None:
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "__init__.py").touch()
    (folder / "scripts" / f"{name}.py").write_text(text)


def _write(
    folder: Path,
    config: Config,
    weights: Mapping[str, Any],
    *,
    name: str = "inference.json",
    runner: Mapping[str, Any] | None = None,
    label: int = 1,
    findings: list[Config] | None = None,
) -> ModelPackage:
    for part in ("configs", "models"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    dump = json.dumps if name.endswith("json") else yaml.safe_dump
    (folder / "configs" / name).write_text(dump(config))
    path = folder / "models" / "model.pt"
    torch.save(dict(weights), path)
    content = manifest_of(path)
    content["runner"] |= dict(runner or {})
    content["findings"] = findings or [
        {"key": "lesion", "code": CODE, "segment": {"label": label, "type": CODE}}
    ]
    return write_manifest(folder, content)
