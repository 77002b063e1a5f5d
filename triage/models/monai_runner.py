"""Running a MONAI bundle on a volume in memory. Only hosts import this."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser
from monai.data.meta_tensor import MetaTensor

from triage.models.acceleration import PLAIN, AcceleratedNetwork, Acceleration
from triage.models.packages import ModelPackage
from triage.models.predictions import RunnerError, segmentation_of
from triage.models.tensors import ModelInput, ModelOutput

_IMAGE, _PREDICTION = "image", "pred"
_FILE_TRANSFORMS = frozenset({"LoadImage", "SaveImage"})
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class MonaiBundleRunner:
    """A MONAI bundle's own preprocessing, network and postprocessing, on a volume in memory.

    `configs/inference.json` is read as MONAI's bundles define it, with the keys "image" and
    "pred". Transforms that load or save files are left out: the volume comes as a MetaTensor of
    shape (columns, rows, slices) with the affine in MONAI's RAS convention, as LoadImaged would
    have given it, and the prediction goes back as an array. A bundle brings its prediction back to
    the source grid itself, with Invertd. Its `$` expressions are code: to register a package is to
    trust it.
    """

    def __init__(
        self,
        package: ModelPackage,
        device: torch.device,
        acceleration: Acceleration = PLAIN,
    ) -> None:
        self._device = device
        parser = _parser(package.path, device)
        self._preprocessing = parser.get_parsed_content("preprocessing")
        self._inferer = parser.get_parsed_content("inferer")
        self._postprocessing = parser.get_parsed_content("postprocessing")
        network: torch.nn.Module = parser.get_parsed_content("network_def")
        state = torch.load(package.weights, map_location="cpu", weights_only=True)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise RunnerError(
                f"{package.weights}: not a state dict of network_def: {error}"
            ) from None
        self._network = AcceleratedNetwork(network.to(device).eval(), acceleration, device)
        if package.manifest.runner.window_batch is not None:
            self.window_batch = package.manifest.runner.window_batch

    @property
    def window_batch(self) -> int:
        """How many windows go through the network at once; 1 where the inferer has no windows."""
        return int(getattr(self._inferer, "sw_batch_size", 1))

    @window_batch.setter
    def window_batch(self, count: int) -> None:
        if hasattr(self._inferer, "sw_batch_size"):
            self._inferer.sw_batch_size = count

    @torch.inference_mode()
    def run(self, model_input: ModelInput) -> ModelOutput:
        """Return labels or probabilities on the voxels of the volume.

        Raises:
            RunnerError: the prediction is not on the grid of the input.
        """
        data: dict[str, Any] = self._preprocessing({_IMAGE: _as_monai_loads(model_input)})
        batch = data[_IMAGE][None].to(self._device)
        data[_PREDICTION] = self._inferer(batch, self._network)[0]
        data = self._postprocessing(data)
        prediction = torch.as_tensor(data[_PREDICTION]).cpu()
        if prediction.ndim == 3:
            prediction = prediction[None]
        wanted = model_input.values.shape[::-1]
        if tuple(prediction.shape[1:]) != wanted:
            raise RunnerError(
                f"the prediction has the shape {tuple(prediction.shape[1:])} and the input "
                f"{wanted} (columns, rows, slices); add Invertd to the postprocessing"
            )
        return segmentation_of(prediction.numpy().transpose(0, 3, 2, 1))


def _parser(package: Path, device: torch.device) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(package / "configs" / "inference.json")
    metadata = package / "configs" / "metadata.json"
    if metadata.is_file():
        parser.read_meta(metadata)
    parser["bundle_root"] = str(package)
    parser["device"] = device
    for key in ("network_def", "inferer", "preprocessing", "postprocessing"):
        if key not in parser:
            raise RunnerError(f"{package}/configs/inference.json: the key {key} is required")
    for key in ("preprocessing", "postprocessing"):
        steps = parser[f"{key}#transforms"]
        parser[f"{key}#transforms"] = [step for step in steps if not _is_about_files(step)]
    return parser


def _is_about_files(step: Any) -> bool:
    target = str(step.get("_target_", "")) if isinstance(step, dict) else ""
    return target.rpartition(".")[2].removesuffix("d").removesuffix("Dict") in _FILE_TRANSFORMS


def _as_monai_loads(model_input: ModelInput) -> MetaTensor:
    assert model_input.affine is not None, "a volume needs its affine"
    values = torch.from_numpy(model_input.values).permute(2, 1, 0)
    affine = torch.from_numpy(_LPS_TO_RAS @ model_input.affine)
    return MetaTensor(values, affine=affine, meta={"original_channel_dim": "no_channel"})
