"""The images that a model gets beside its first: decoded, and brought onto its grid where asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from triage.core.analysis import InputRefusedError
from triage.core.manifest import ImageInput, ModelManifest, NamedInput, VolumeInput
from triage.models.grids import prepare
from triage.models.radiograph import load_radiograph, model_input
from triage.models.sources import Reader, Source, read_instance
from triage.models.tensors import ModelImage, ModelInput
from triage.models.volume import Volume, load_volume

OtherSources = Mapping[str, Sequence[Source]]
"""The files of each further input, by its name in the manifest."""

_AIR_HU = -1000.0


@dataclass(frozen=True, slots=True, eq=False)
class FurtherInputs:
    """What `ModelInput.others` gets, the digest of each image by name, and remarks for people."""

    images: dict[str, ModelImage]
    digests: dict[str, str]
    remarks: tuple[str, ...]

    def input_sha256(self, first: str) -> str:
        """Return the digest of all inputs, `first` being that of the first one."""
        if not self.digests:
            return first
        lines = [first, *(f"{name} {digest}" for name, digest in self.digests.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def load_further_volumes(
    manifest: ModelManifest,
    sources: OtherSources,
    first: Volume,
    prepared: ModelInput,
    read_with: Reader = read_instance,
) -> FurtherInputs:
    """Return the further volumes of a run.

    Args:
        manifest: the model's.
        sources: their files.
        first: the first volume, for its frame of reference.
        prepared: what the model gets of it: the grid on which aligned volumes are to be.
        read_with: how an instance comes into memory.

    Raises:
        InputRefusedError: one is no volume, or cannot be aligned; the message names the input.
    """
    images: dict[str, ModelImage] = {}
    digests: dict[str, str] = {}
    remarks: list[str] = []
    grid = manifest.runner.input
    assert isinstance(grid, VolumeInput), "only models of volumes come here"
    for wanted in _given(manifest, sources):
        try:
            volume = load_volume(sources[wanted.name], grid, read_with)
            own = prepare(volume, grid).model_input
            image = ModelImage(own.values, own.affine)
            images[wanted.name] = (
                _aligned(image, volume, first, prepared) if wanted.align else image
            )
        except InputRefusedError as refusal:
            raise InputRefusedError(f"input {wanted.name}: {refusal}") from refusal
        digests[wanted.name] = volume.input_sha256
        remarks += [f"input {wanted.name}: {remark}" for remark in volume.remarks]
    return FurtherInputs(images, digests, tuple(remarks))


def load_further_images(
    manifest: ModelManifest,
    sources: OtherSources,
    wanted: ImageInput,
    read_with: Reader = read_instance,
) -> FurtherInputs:
    """Return the further single images of a run, prepared like the first.

    Raises:
        InputRefusedError: one cannot be decoded; the message names the input.
    """
    images: dict[str, ModelImage] = {}
    digests: dict[str, str] = {}
    remarks: list[str] = []
    for one in _given(manifest, sources):
        try:
            radiograph = load_radiograph(sources[one.name], one.accepts, wanted, read_with)
            images[one.name] = ModelImage(model_input(radiograph, wanted))
        except InputRefusedError as refusal:
            raise InputRefusedError(f"input {one.name}: {refusal}") from refusal
        digests[one.name] = radiograph.input_sha256
        remarks += [f"input {one.name}: {remark}" for remark in radiograph.remarks]
    return FurtherInputs(images, digests, tuple(remarks))


def _given(manifest: ModelManifest, sources: OtherSources) -> list[NamedInput]:
    missing = [
        one.name for one in manifest.inputs[1:] if not one.optional and one.name not in sources
    ]
    if missing:
        raise InputRefusedError(f"input {missing[0]}: no series was given")
    return [one for one in manifest.inputs[1:] if one.name in sources]


def _aligned(image: ModelImage, volume: Volume, first: Volume, prepared: ModelInput) -> ModelImage:
    """Return `image` on the grid of the first input; what lies outside of it becomes air."""
    _check_frames_of_reference(volume, first)
    assert image.affine is not None, "volumes have a grid"
    assert prepared.affine is not None, "volumes have a grid"
    to_own = np.linalg.inv(image.affine) @ prepared.affine
    # Affines take (column, row, slice), arrays are indexed by (slice, row, column).
    matrix = to_own[:3, :3][::-1, ::-1]
    offset = to_own[:3, 3][::-1]
    if not _overlap(prepared.values.shape, image.values.shape, matrix, offset):
        raise InputRefusedError("it shows no part of what the first input shows")
    outside = _AIR_HU if volume.modality == "CT" else float(image.values.min())
    values = affine_transform(
        image.values,
        matrix,
        offset,
        output_shape=prepared.values.shape,
        output=np.float32,
        order=1,
        cval=outside,
    )
    return ModelImage(values, prepared.affine)


def _check_frames_of_reference(volume: Volume, first: Volume) -> None:
    own, wanted = (
        {str(i.dataset.get("FrameOfReferenceUID") or "") for i in each.instances}
        for each in (volume, first)
    )
    if "" in own | wanted:
        raise InputRefusedError("it cannot be aligned: its Frame of Reference UID is not stated")
    if own != wanted:
        raise InputRefusedError(
            "it cannot be aligned: its Frame of Reference UID is not the first input's"
        )


def _overlap(
    shape: tuple[int, ...],
    own_shape: tuple[int, ...],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
) -> bool:
    """Return whether the boxes around both grids meet, in indices of the further volume."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1)
    own = matrix @ corners + offset[:, None]
    return bool((own.max(axis=1) >= 0).all() and (own.min(axis=1) <= np.array(own_shape) - 1).all())
