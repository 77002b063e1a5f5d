"""Running a MONAI bundle, as the Model Zoo publishes it, on images in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.post.dictionary import Activationsd, AsDiscreted, Invertd
from monai.transforms.transform import MapTransform

from triage.models.acceleration import PLAIN, AcceleratedNetwork, Acceleration
from triage.models.packages import ModelPackage
from triage.models.predictions import RunnerError, segmentation_of
from triage.models.runners.bundle_config import asked_channels, fulfil_requirements, read_bundle
from triage.models.runners.bundle_images import IN_MEMORY
from triage.models.runners.bundle_weights import load_weights, scripted_network
from triage.models.runners.grids import (
    are_on_one_grid,
    boxes_in_patient,
    in_loading_order,
    onto,
    volumes_of,
)
from triage.models.tensors import ModelInput, ModelOutput

_IMAGE, _PREDICTION = "image", "pred"
_GREATEST_PIXEL = 255.0
# Boxes are taken as the detector gives them and brought to the patient through the affine.
_BOX_CONVERSIONS = ("AffineBoxToWorldCoordinate", "ConvertBox", "DeleteItems")


class MonaiBundleRunner:
    """A bundle's own preprocessing, network, inferer and postprocessing, on images in memory.

    Everything but the package's `model.yaml` is as it was published: JSON or YAML, the network as
    `network_def`, weights as a state dict, as one below "model", or as TorchScript. A volume comes
    as LoadImaged would have given it: a MetaTensor of shape (columns, rows, slices) with its
    affine in MONAI's RAS convention; several images are its channels. What is predicted is
    brought back to the source's voxels by the bundle's Invertd, or else through its affine. A
    classifier's AsDiscreted is left out, so that a finding has a confidence. A bundle's `$`
    expressions and scripts are code: to register a package is to trust it.
    """

    def __init__(
        self,
        package: ModelPackage,
        device: torch.device,
        acceleration: Acceleration = PLAIN,
    ) -> None:
        self._device = device
        parser = read_bundle(package, device)
        scripted = scripted_network(package, device)
        if scripted is not None:
            parser["network_def"] = parser["network"] = scripted
        self._channels = asked_channels(parser)
        self._preprocessing: Compose = parser.get_parsed_content("preprocessing")
        network = _network(parser)
        if scripted is None:
            load_weights(network, package)
        network = network.to(device).eval()
        fulfil_requirements(parser)
        self._detector = _optional(parser, "detector")
        # A detector has taken hold of its network by now.
        self._network: torch.nn.Module = (
            network if self._detector else AcceleratedNetwork(network, acceleration, device)
        )
        self._inferer: Any = parser.get_parsed_content("inferer")
        self._postprocessing = _postprocessing(parser)
        self._scoring = _without(self._postprocessing, (AsDiscreted,))
        self._needs_softmax = _only_compares(self._postprocessing)
        self._inverts = any(isinstance(t, Invertd) for t in self._postprocessing.transforms)
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
        """Return what the bundle says: labels or probabilities on the voxels, scores, or boxes.

        Raises:
            RunnerError: the prediction cannot be brought to the grid of the input.
        """
        images = _as_loaded(model_input, self._channels)
        data: dict[Any, Any] = self._preprocessing({IN_MEMORY: images})
        image = data[_IMAGE if _IMAGE in data else next(iter(data))]
        if self._detector is not None:
            return self._detected(data, image)
        answer = self._inferer(image[None].to(self._device), self._network)
        if isinstance(answer, (tuple, list)):
            answer = answer[0]  # of a network with deep supervision the first is the result
        prediction = answer[0].float()
        if prediction.ndim == 1:
            return self._classified(data, prediction)
        if prediction.shape[1:] == image.shape[1:]:
            prediction = MetaTensor(torch.as_tensor(prediction), meta=image.meta)
        data[_PREDICTION] = prediction
        found = self._postprocessing(data)[_PREDICTION]
        return _segmented(found, images[0], image, inverts=self._inverts)

    def _classified(self, data: dict[Any, Any], scores: torch.Tensor) -> ModelOutput:
        scores = torch.as_tensor(scores)
        data[_PREDICTION] = scores.softmax(dim=0) if self._needs_softmax else scores
        scored = torch.as_tensor(self._scoring(data)[_PREDICTION]).flatten().cpu().numpy()
        return ModelOutput(probabilities=np.ascontiguousarray(scored, np.float32))

    def _detected(self, data: dict[Any, Any], image: MetaTensor) -> ModelOutput:
        answer: Any = self._inferer([image.to(self._device)], self._network)
        found: Mapping[Any, Any] = answer[0] if isinstance(answer, Sequence) else answer
        detector = self._detector
        keys = (detector.target_box_key, detector.target_label_key, detector.pred_score_key)
        on_cpu = {k: torch.as_tensor(v).cpu() for k, v in found.items()}
        found = self._postprocessing({**data, **on_cpu})
        boxes, labels, scores = (torch.as_tensor(found[k]).cpu().numpy() for k in keys)
        if image.ndim == 4:
            boxes = boxes_in_patient(boxes, image.affine)
        return ModelOutput(
            boxes=np.asarray(boxes, np.float64),
            box_labels=np.asarray(labels, np.int64).reshape(-1),
            box_scores=np.asarray(scores, np.float32).reshape(-1),
        )


def _as_loaded(model_input: ModelInput, channels: int | None) -> list[MetaTensor]:
    """Return the images channel first; axes and values are those of files that MONAI loads."""
    if model_input.values.ndim == 3:
        return [in_loading_order(volume) for volume in volumes_of(model_input)]
    arrays = [model_input.values, *(o.values for o in model_input.others.values())]
    images = [torch.from_numpy(values[0]).movedim(1, 2) * _GREATEST_PIXEL for values in arrays]
    if channels is not None and len(images) == 1 and len(images[0]) == 1:
        images = [images[0].expand(channels, -1, -1)]
    return [MetaTensor(image.contiguous()) for image in images]


def _network(parser: ConfigParser) -> torch.nn.Module:
    key = "network" if "network" in parser else "network_def"
    try:
        network: torch.nn.Module = parser.get_parsed_content(key)
    except Exception as error:
        wanted = parser.get("_meta_", {}).get("monai_version", "an unstated version")
        raise RunnerError(
            f"the bundle's network_def cannot be made by the installed MONAI; it was published "
            f"for {wanted}: {_root(error)}"
        ) from error
    return network


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def _optional(parser: ConfigParser, key: str) -> Any:
    return parser.get_parsed_content(key) if key in parser else None


def _postprocessing(parser: ConfigParser) -> Compose:
    steps: Compose = Compose(parser.get_parsed_content("postprocessing")).flatten()  # type: ignore[no-untyped-call]
    if "detector" in parser:
        steps = _without(steps, _BOX_CONVERSIONS)
    for step in steps.transforms:
        if isinstance(step, MapTransform):
            step.allow_missing_keys = True  # such as the label, which only training has
    return steps


def _without(steps: Compose, kinds: Sequence[Any]) -> Compose:
    def is_one(step: Any) -> bool:
        return any(
            type(step).__name__.startswith(k) if isinstance(k, str) else isinstance(step, k)
            for k in kinds
        )

    return Compose([step for step in steps.transforms if not is_one(step)])


def _only_compares(steps: Compose) -> bool:
    """Return whether a classifier's logits are compared (argmax) without being activated."""
    has_activation = any(isinstance(step, Activationsd) for step in steps.transforms)
    discrete = [step for step in steps.transforms if isinstance(step, AsDiscreted)]
    return not has_activation and any(any(step.argmax) for step in discrete)


def _segmented(found: Any, source: MetaTensor, image: MetaTensor, *, inverts: bool) -> ModelOutput:
    """Return a prediction on the voxels of `source`; `image` is what the network was given."""
    prediction = torch.as_tensor(found) if not isinstance(found, MetaTensor) else found
    prediction = (prediction if prediction.ndim == 4 else prediction[None]).cpu()
    # Without Invertd it is where the network saw its image, and has that affine unless it was
    # moved since; with Invertd it is on the source.
    expected = source if inverts else image
    has_affine = isinstance(prediction, MetaTensor) and not inverts
    if prediction.shape[1:] != expected.shape[1:] and not has_affine:
        raise RunnerError(
            f"the prediction has the shape {tuple(prediction.shape[1:])} and the "
            f"{'input' if inverts else 'tensor of the network'} {tuple(expected.shape[1:])} "
            "(columns, rows, slices); add Invertd as the last spatial step of the postprocessing"
        )
    if not isinstance(prediction, MetaTensor):
        prediction = MetaTensor(prediction, affine=expected.affine)
    if not are_on_one_grid(prediction, source):
        is_discrete = bool((prediction == prediction.round()).all())
        prediction = onto(prediction, source, smooth=not is_discrete)
    return segmentation_of(prediction.as_tensor().numpy().transpose(0, 3, 2, 1))
