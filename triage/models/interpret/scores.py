"""Reading classifications: of a study or series as a whole, or of each of its images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from triage.core.analysis import AnalysisFailedError
from triage.core.findings import Finding
from triage.core.manifest import FindingSpec, ModelManifest
from triage.models.interpret.reading import (
    MOST_KEY_IMAGES,
    SourceImage,
    check_probabilities,
    finding_of,
)
from triage.models.tensors import ModelOutput


def read_channel(
    spec: FindingSpec, output: ModelOutput, images: Sequence[SourceImage], manifest: ModelManifest
) -> Finding:
    """Return the finding of a channel.

    The confidence is the channel's probability; of a channel of a segmentation it is the greatest
    of its voxels. With `level: image` it is the greatest of the images' probabilities, and the
    best images that reach the threshold are the key images. Where there is a single image it is
    the key image of what is present.

    Raises:
        AnalysisFailedError: the output has no such channel, or no probabilities.
    """
    if spec.level == "image" and len(images) > 1:
        return _of_each_image(spec, output, images, manifest)
    channel = _channel(spec, output.probabilities, manifest)
    confidence = float(channel.max())
    present = confidence >= spec.threshold
    shown = images if present and len(images) == 1 else ()
    return finding_of(spec, present, confidence, key_images=shown)


def _of_each_image(
    spec: FindingSpec, output: ModelOutput, images: Sequence[SourceImage], manifest: ModelManifest
) -> Finding:
    scores = _channel(spec, output.image_probabilities, manifest, name="image_probabilities")
    if scores.shape != (len(images),):
        raise AnalysisFailedError(
            f"{manifest.identity} gave image_probabilities for {scores.shape} images of a series "
            f"of {len(images)}"
        )
    best = [int(i) for i in np.argsort(-scores, kind="stable")[:MOST_KEY_IMAGES]]
    shown = [images[i] for i in best if scores[i] >= spec.threshold]
    return finding_of(spec, bool(shown), float(scores.max()), key_images=shown)


def _channel(
    spec: FindingSpec,
    values: NDArray[np.float32] | None,
    manifest: ModelManifest,
    *,
    name: str = "probabilities",
) -> NDArray[np.float32]:
    index = spec.channel
    assert index is not None, "findings with a channel come here"
    if values is None or values.ndim < 1 or len(values) <= index or not values[index].size:
        shape = None if values is None else values.shape
        raise AnalysisFailedError(
            f"{manifest.identity} gave {name} of the shape {shape}; its manifest reads {spec.key} "
            f"from channel {index}"
        )
    channel = np.asarray(values[index])
    check_probabilities(channel, manifest)
    return channel
