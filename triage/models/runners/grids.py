"""Volumes as MONAI's tensors with an affine, and back to the voxels they came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.spatial.array import SpatialResample
from numpy.typing import NDArray

from triage.models.predictions import RunnerError
from triage.models.tensors import ModelImage, ModelInput

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_REVERSED_AXES = np.eye(4)[[2, 1, 0, 3]]
_SAME = 1e-4


def volumes_of(model_input: ModelInput) -> list[MetaTensor]:
    """Return all volumes of the input as (1, slices, rows, columns), on the grid of the first.

    The affine of each takes these axes, in this order, to MONAI's RAS coordinates in mm.
    """
    first = ModelImage(model_input.values, model_input.affine)
    volumes = [_as_meta_tensor(image) for image in (first, *model_input.others.values())]
    return [volumes[0], *(onto(volume, volumes[0], smooth=True) for volume in volumes[1:])]


def _as_meta_tensor(image: ModelImage) -> MetaTensor:
    assert image.affine is not None, "a volume needs its affine"
    affine = torch.from_numpy(_LPS_TO_RAS @ image.affine @ _REVERSED_AXES)
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(image.values))[None], affine=affine)


def in_loading_order(volume: MetaTensor) -> MetaTensor:
    """Return (channels, slices, rows, columns) as files are loaded: columns, rows, slices."""
    values = volume.as_tensor().permute(0, 3, 2, 1)
    affine = volume.affine @ torch.from_numpy(_REVERSED_AXES).to(volume.affine)
    return MetaTensor(values, affine=affine)


def are_on_one_grid(volume: MetaTensor, other: MetaTensor) -> bool:
    """Return whether both (channels, ...) have the same voxels at the same places."""
    return volume.shape[1:] == other.shape[1:] and np.allclose(
        np.asarray(volume.affine), np.asarray(other.affine), atol=_SAME
    )


def onto(volume: MetaTensor, reference: MetaTensor, *, smooth: bool) -> MetaTensor:
    """Return `volume` (channels, ...) on the grid of `reference`, through both affines.

    Where the grids are the same, or `smooth` is off, no new values appear. What lies outside of
    `volume` is 0.
    """
    if are_on_one_grid(volume, reference):
        return volume
    resample = SpatialResample(
        mode="bilinear" if smooth else "nearest", padding_mode="zeros", align_corners=False
    )
    moved = resample(volume.float(), dst_affine=reference.affine, spatial_size=reference.shape[1:])
    assert isinstance(moved, MetaTensor), "a tensor with an affine stays one"
    return moved


def boxes_in_patient(boxes: NDArray[Any], affine: Any) -> NDArray[np.float64]:
    """Return boxes (boxes, 6) in voxels as boxes in patient coordinates (LPS) in mm.

    Args:
        boxes: the least index along each axis, then the greatest; whole numbers are the middles
            of voxels.
        affine: (4, 4), takes indices to RAS coordinates in mm.

    A box whose edges are not along the patient's axes becomes the box around its eight corners.

    Raises:
        RunnerError: the boxes do not have six numbers each.
    """
    if boxes.size and boxes.shape[-1] != 6:
        raise RunnerError(
            f"boxes of the shape {boxes.shape} for a volume; needed is (boxes, 6): the least index "
            "along each axis, then the greatest"
        )
    boxes = np.asarray(boxes, np.float64).reshape(-1, 6)
    to_lps = _LPS_TO_RAS @ np.asarray(affine, np.float64)
    lower, upper = boxes[:, :3], boxes[:, 3:]
    choices = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, 8).T.astype(bool)
    corners = np.where(choices[None], upper[:, None], lower[:, None])  # (boxes, 8, 3)
    placed = corners @ to_lps[:3, :3].T + to_lps[:3, 3]
    return np.concatenate([placed.min(axis=1), placed.max(axis=1)], axis=1)
