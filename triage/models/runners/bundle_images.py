"""What stands in a bundle's preprocessing where it would load its image from a file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform

from triage.models.predictions import RunnerError

IN_MEMORY = "in_memory"


class InMemoryImaged(MapTransform):
    """Gives each key what LoadImaged would have given it.

    A single key gets all images of the run stacked as channels, as LoadImaged stacks a list of
    files; several keys get an image each, in order. A transform of its name and place in a bundle
    is made from the configuration of a LoadImaged.
    """

    def __init__(self, keys: str | Sequence[str], ensure_channel_first: bool = False) -> None:
        super().__init__(keys)
        self._channel_first = ensure_channel_first

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        loaded: dict[Hashable, Any] = dict(data)
        images: list[MetaTensor] = loaded.pop(IN_MEMORY)
        if len(self.keys) > 1 and len(images) > len(self.keys):
            raise RunnerError(
                f"the run has {len(images)} images and the bundle loads {len(self.keys)}: "
                f"{', '.join(map(str, self.keys))}"
            )
        if len(self.keys) == 1:
            loaded[self.keys[0]] = self._loaded(images)
        else:
            # A key without an image is one of training, such as the label.
            for key, image in zip(self.keys, images, strict=False):
                loaded[key] = self._loaded([image])
        return loaded

    def _loaded(self, images: Sequence[MetaTensor]) -> MetaTensor:
        first = images[0]
        if len(images) > 1:
            stacked = torch.cat([i.as_tensor() for i in images])
            return _stated(stacked, first, channel_dim=0)
        if self._channel_first:
            return _stated(first.as_tensor(), first, channel_dim=0)
        if len(first) == 1:
            return _stated(first.as_tensor()[0], first, channel_dim="no_channel")
        return _stated(first.as_tensor().movedim(0, -1), first, channel_dim=-1)


def _stated(values: torch.Tensor, like: MetaTensor, channel_dim: int | str) -> MetaTensor:
    meta: dict[str, Any] = {
        "original_channel_dim": channel_dim,
        "filename_or_obj": "",
        "spatial_shape": (),
    }
    meta["spatial_shape"] = tuple(like.shape[1:])
    return MetaTensor(values, affine=like.affine, meta=meta)
