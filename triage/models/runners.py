"""The two ways in which a package's network is run. Only hosts import this: it needs torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from torch.export.passes import move_to_device_pass

from triage.models.packages import ModelPackage
from triage.models.tensors import ModelInput, ModelOutput

_IMAGE, _PREDICTION = "image", "pred"
_FILE_TRANSFORMS = frozenset({"LoadImage", "SaveImage"})
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class RunnerError(Exception):
    """A package cannot be loaded or run as its manifest says; the message says what to mend."""


class Runner(Protocol):
    """A loaded model."""

    def run(self, model_input: ModelInput) -> ModelOutput:
        """Return what the model says about `model_input`, on its grid."""
        ...


def load_runner(package: ModelPackage, device: str) -> Runner:
    """Load the network of `package` onto `device`: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        RunnerError: the package's configuration or weights do not fit together.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    chosen = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    )
    if package.manifest.runner.kind == "monai-bundle":
        return MonaiBundleRunner(package, chosen)
    return TorchExportRunner(package, chosen)


class MonaiBundleRunner:
    """A MONAI bundle's own preprocessing, network and postprocessing, on a volume in memory.

    `configs/inference.json` is read as MONAI's bundles define it, with the keys "image" and
    "pred". Transforms that load or save files are left out: the volume comes as a MetaTensor of
    shape (columns, rows, slices) with the affine in MONAI's RAS convention, as LoadImaged would
    have given it, and the prediction goes back as an array. A bundle brings its prediction back to
    the source grid itself, with Invertd. Its `$` expressions are code: to register a package is to
    trust it.
    """

    def __init__(self, package: ModelPackage, device: torch.device) -> None:
        self._device = device
        parser = _parser(package.path, device)
        self._preprocessing = parser.get_parsed_content("preprocessing")
        self._inferer = parser.get_parsed_content("inferer")
        self._postprocessing = parser.get_parsed_content("postprocessing")
        self._network: torch.nn.Module = parser.get_parsed_content("network_def")
        state = torch.load(package.weights, map_location=device, weights_only=True)
        try:
            self._network.load_state_dict(state)
        except RuntimeError as error:
            raise RunnerError(
                f"{package.weights}: not a state dict of network_def: {error}"
            ) from None
        # With the channels last, the CPU kernels of a 3D network take half the time.
        self._network.to(device, memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]

    @torch.inference_mode()
    def run(self, model_input: ModelInput) -> ModelOutput:
        """Return labels or probabilities on the voxels of the volume.

        Raises:
            RunnerError: the prediction is not on the grid of the input.
        """
        data: dict[str, Any] = self._preprocessing({_IMAGE: _as_monai_loads(model_input)})
        batch = data[_IMAGE][None].to(self._device, memory_format=torch.channels_last_3d)
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
        return _segmentation(prediction.numpy().transpose(0, 3, 2, 1))


class TorchExportRunner:
    """A program saved with `torch.export.save`, as it is.

    An image of shape (1, 1, size, size) gives probabilities of shape (1, channels), alone or
    followed by heat maps of shape (1, channels, height, width). A volume of shape
    (1, 1, slices, rows, columns) gives (1, channels, slices, rows, columns).
    """

    def __init__(self, package: ModelPackage, device: torch.device) -> None:
        self._device = device
        program = torch.export.load(package.weights)
        if device.type != "cpu":
            program = move_to_device_pass(program, device)
        self._module = program.module()

    @torch.inference_mode()
    def run(self, model_input: ModelInput) -> ModelOutput:
        """Return probabilities, and heat maps where the program gives them."""
        values = torch.from_numpy(model_input.values).to(self._device)
        if values.ndim == 3:
            volume = self._module(values[None, None])
            volume = volume[0] if isinstance(volume, (tuple, list)) else volume
            return _segmentation(volume[0].cpu().numpy())
        answer = self._module(values)
        answers: Sequence[torch.Tensor] = answer if isinstance(answer, (tuple, list)) else [answer]
        named = [a[0].float().cpu().numpy() for a in answers[:2]]
        return ModelOutput(
            probabilities=np.ascontiguousarray(named[0]),
            heat_maps=np.ascontiguousarray(named[1]) if len(named) > 1 else None,
        )


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


def _segmentation(prediction: NDArray[Any]) -> ModelOutput:
    # A bundle that ends in AsDiscreted gives labels as floating-point numbers.
    if prediction.dtype.kind in "biu" or _is_whole(prediction):
        return ModelOutput(labels=_labels(prediction))
    # Not made contiguous here: it is copied once, into the memory that the worker maps.
    return ModelOutput(probabilities=prediction.astype(np.float32, copy=False))


def _is_whole(values: NDArray[Any]) -> bool:
    # A few slices tell nearly always; a prediction that looks whole there is looked at in full.
    few = values[:, :: max(1, values.shape[1] // 4)]
    return bool((few == np.rint(few)).all()) and bool((values == np.rint(values)).all())


def _labels(prediction: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = float(prediction.min()), float(prediction.max())
    if low < 0 or high > 255:
        raise RunnerError(f"labels from {low:g} to {high:g}; a label map has 0 to 255")
    if len(prediction) == 1:
        return prediction[0].astype(np.uint8)
    labels = np.zeros(prediction.shape[1:], np.uint8)
    # One channel for each label. Where the first is the background it is 1 wherever no other is.
    has_background = bool((prediction.astype(bool).sum(axis=0) == 1).all())
    for number, channel in enumerate(prediction, start=0 if has_background else 1):
        labels[channel > 0] = number
    return labels
