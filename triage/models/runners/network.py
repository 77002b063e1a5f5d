"""Running a network that has no code around it: the manifest says what surrounds it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import SlidingWindowInferer
from monai.transforms.compose import Compose
from monai.transforms.post.dictionary import Invertd
from monai.transforms.spatial.dictionary import Orientationd, Spacingd

from triage.core.manifest import Preprocessing, RunnerSpec
from triage.models.predictions import RunnerError, segmentation_of
from triage.models.runners.grids import boxes_in_patient, volumes_of
from triage.models.runners.programs import Program
from triage.models.tensors import ModelInput, ModelOutput

_DEFAULT_OUTPUTS = ("probabilities", "heat_maps")
_SLICES_AT_ONCE = 16
_VOLUMETRIC = frozenset({"probabilities", "labels"})


class NetworkRunner:
    """A program, `runner.preprocessing` before it and the way back to the source voxels after.

    The program is given a tensor (1, channels, ...), for images (1, channels, rows, columns).
    Each further image of the input is a further channel, a volume resampled to the first one's
    grid. It gives what `runner.outputs` names, each with the leading 1:
    probabilities (1, channels, ...) or (1, channels), labels (1, ...), heat_maps
    (1, channels, height, width), image_probabilities (1, channels, slices), boxes (1, boxes, 4
    or 6) in indices of the tensor's axes (all least ones, then all greatest ones),
    box_labels and box_scores (1, boxes), measurements (1, numbers).

    `window_batch` is how many windows or slices go through the program at once.
    """

    def __init__(self, spec: RunnerSpec, program: Program, device: torch.device) -> None:
        self._spec = spec
        self._program = program
        self._device = device
        self.window_batch = spec.window_batch or _at_once(spec.preprocessing)
        self._steps = _spatial_steps(spec.preprocessing)
        self._back = {
            smooth: Invertd("pred", self._steps, "image", nearest_interp=not smooth)
            for smooth in (True, False)
        }

    @torch.inference_mode()
    def run(self, model_input: ModelInput) -> ModelOutput:
        """Return what the network says, on the grid of the input.

        Raises:
            RunnerError: the network gives fewer outputs than named, or of another shape.
        """
        if model_input.values.ndim == 3:
            return self._run_volume(model_input)
        images = [model_input.values, *(o.values for o in model_input.others.values())]
        image = torch.from_numpy(np.concatenate(images, axis=1))
        tensor = prepared(image, self._spec.preprocessing).to(self._device)
        named = self._named(_in_layout(self._program, self._spec.preprocessing)(tensor))
        return self._collected({name: _array(answer[0]) for name, answer in named.items()})

    def _run_volume(self, model_input: ModelInput) -> ModelOutput:
        wanted = self._spec.preprocessing
        volume = torch.cat(tuple(volumes_of(model_input)))
        assert isinstance(volume, MetaTensor), "volumes have an affine"
        image = self._steps({"image": volume})["image"]
        tensor = prepared(image.as_tensor()[None], wanted).to(self._device)
        program = _in_layout(self._program, wanted)
        if wanted.each_slice:
            return self._collected(
                _of_slices(self._named(_for_each_slice(program, tensor, self.window_batch)))
            )
        named = self._named(_inferer(wanted, self.window_batch)(tensor, program))
        arrays = {}
        for name, answer in named.items():
            if name in _VOLUMETRIC and answer.ndim > 2:
                arrays[name] = self._on_source(name, answer, image)
            else:
                arrays[name] = _array(answer[0])
        if "boxes" in arrays:
            arrays["boxes"] = boxes_in_patient(arrays["boxes"], image.affine)
        return self._collected(arrays)

    def _named(self, answers: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        names = self._spec.outputs or _DEFAULT_OUTPUTS[: len(answers)]
        if len(answers) < len(names):
            raise RunnerError(
                f"the network gave {len(answers)} outputs and runner.outputs names {len(names)}"
            )
        named = dict(zip(names, answers, strict=False))
        for name in ("probabilities", "image_probabilities"):
            if name in named:
                named[name] = _activated(named[name].float(), self._spec.activation)
        return named

    def _on_source(self, name: str, answer: torch.Tensor, image: MetaTensor) -> Any:
        """Return (channels, slices, rows, columns) of the source for a tensor of the network."""
        values = answer if name == "probabilities" else answer.reshape(1, -1, *answer.shape[-3:])
        if values.shape[2:] != image.shape[1:]:
            raise RunnerError(
                f"the network gave {name} of the shape {tuple(values.shape[2:])} for a tensor of "
                f"{tuple(image.shape[1:])}; its output must be on the grid of its input"
            )
        smooth = name == "probabilities"
        if not self._steps.transforms:
            return _array(values[0])
        data: dict[Hashable, Any] = {
            "image": image,
            "pred": MetaTensor(values[0].cpu().float(), meta=image.meta),
        }
        return _array(self._back[smooth](data)["pred"])

    def _are_labels(self, name: str) -> bool | None:
        said = bool(self._spec.outputs) or self._spec.activation != "none"
        return name == "labels" if said else None

    def _collected(self, arrays: dict[str, Any]) -> ModelOutput:
        """Return the arrays as what a model said; a segmentation may turn out to be labels."""
        kept: dict[str, Any] = {
            "heat_maps": _as_type(arrays.get("heat_maps"), np.float32),
            "image_probabilities": _as_type(arrays.get("image_probabilities"), np.float32),
            "boxes": _as_type(arrays.get("boxes"), np.float64),
            "box_labels": _as_type(arrays.get("box_labels"), np.int64),
            "box_scores": _as_type(arrays.get("box_scores"), np.float32),
        }
        for name in ("probabilities", "labels"):
            values = arrays.get(name)
            if values is None:
                continue
            if values.ndim == 4:
                read = segmentation_of(values, are_labels=self._are_labels(name))
                found = {"labels": read.labels, "probabilities": read.probabilities}
                kept |= {key: array for key, array in found.items() if array is not None}
            else:
                kept[name] = np.ascontiguousarray(values, np.float32)
        if "measurements" in arrays:
            numbers = arrays["measurements"].ravel()
            names = self._spec.measurement_names
            if len(numbers) != len(names):
                raise RunnerError(
                    f"the network gave {len(numbers)} measurements and runner.measurement_names "
                    f"has {len(names)}"
                )
            kept["measurements"] = dict(zip(names, map(float, numbers), strict=True))
        return ModelOutput(**kept)


def prepared(values: torch.Tensor, wanted: Preprocessing) -> torch.Tensor:
    """Return values (1, channels, ...) with the intensities and channels that are asked for."""
    values = values.float()
    if wanted.window is not None:
        low = wanted.window.centre - wanted.window.width / 2
        values = ((values - low) / wanted.window.width).clamp(0.0, 1.0)
    if wanted.scale is not None:
        low, high = (0.0, 1.0) if wanted.window else (float(values.min()), float(values.max()))
        share = (values - low) / max(high - low, 1e-9)
        values = wanted.scale.minimum + share * (wanted.scale.maximum - wanted.scale.minimum)
    if wanted.channels is not None and values.shape[1] == 1:
        values = values.expand(-1, wanted.channels, *values.shape[2:])
    if wanted.channels is not None and values.shape[1] != wanted.channels:
        raise RunnerError(
            f"preprocessing.channels is {wanted.channels} and the run has {values.shape[1]} images"
        )
    if wanted.standardise:
        values = (values - values.mean()) / values.std().clamp_min(1e-9)
    if wanted.mean:
        shape = (1, -1, *([1] * (values.ndim - 2)))
        mean, std = (torch.tensor(v).reshape(shape) for v in (wanted.mean, wanted.std))
        if mean.shape[1] not in (1, values.shape[1]):
            raise RunnerError(
                f"preprocessing.mean has {mean.shape[1]} numbers for {values.shape[1]} channels"
            )
        values = (values - mean) / std
    return values.contiguous()


def _spatial_steps(wanted: Preprocessing) -> Compose:
    steps: list[Callable[..., Any]] = []
    if wanted.orientation is not None:
        steps.append(Orientationd("image", axcodes=wanted.orientation, labels=None))
    if wanted.spacing_mm is not None:
        steps.append(Spacingd("image", pixdim=wanted.spacing_mm, mode="bilinear"))
    return Compose(steps)


def _at_once(wanted: Preprocessing) -> int:
    """Return how many windows or slices go through the network at once."""
    if wanted.each_slice:
        return _SLICES_AT_ONCE
    return wanted.sliding_window.batch if wanted.sliding_window else 1


def _inferer(wanted: Preprocessing, batch: int) -> Callable[[torch.Tensor, Program], Any]:
    patches = wanted.sliding_window
    if patches is None:
        return lambda tensor, program: program(tensor)
    sliding = SlidingWindowInferer(
        roi_size=patches.roi,
        sw_batch_size=batch,
        overlap=patches.overlap,
        mode=patches.blend,
    )

    def infer(tensor: torch.Tensor, program: Program) -> Sequence[torch.Tensor]:
        answer: Any = sliding(tensor, lambda patch: tuple(program(patch)))
        return list(answer) if isinstance(answer, (tuple, list)) else [answer]

    return infer


def _in_layout(program: Program, wanted: Preprocessing) -> Program:
    """Return the program as one whose channels are the second axis, whatever they are for it."""
    if wanted.layout == "channels-first":
        return program

    def run(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
        answers = program(tensor.movedim(1, -1).contiguous())
        return [a.movedim(-1, 1) if a.ndim == tensor.ndim else a for a in answers]

    return run


def _for_each_slice(program: Program, tensor: torch.Tensor, batch: int) -> list[torch.Tensor]:
    """Return the program's outputs for all slices of (1, channels, slices, rows, columns)."""
    slices = tensor[0].movedim(1, 0)
    parts = [program(some.contiguous()) for some in torch.split(slices, batch)]
    return [torch.cat([torch.as_tensor(a) for a in each]) for each in zip(*parts, strict=True)]


def _of_slices(named: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return what the slices of a volume gave, as what the volume gave."""
    arrays: dict[str, Any] = {}
    for name, answer in named.items():
        if name in {"probabilities", "image_probabilities"} and answer.ndim == 2:
            arrays["image_probabilities"] = _array(answer).T
        elif name in _VOLUMETRIC:
            values = answer if answer.ndim == 4 else answer[:, None]
            arrays[name] = _array(values.movedim(0, 1))
        elif name != "heat_maps":
            raise RunnerError(f"with each_slice a network gives no {name}; run it on the volume")
    return arrays


def _activated(values: torch.Tensor, activation: str) -> torch.Tensor:
    if activation == "sigmoid":
        return values.sigmoid()
    return values.softmax(dim=1) if activation == "softmax" else values


def _array(values: torch.Tensor) -> Any:
    return torch.as_tensor(values).detach().cpu().numpy()


def _as_type(values: Any, kind: type[np.generic]) -> Any:
    return None if values is None else np.ascontiguousarray(values, kind)
