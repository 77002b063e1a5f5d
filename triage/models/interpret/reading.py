"""What every kind of output is read to, and what no output may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triage.core.analysis import AnalysisFailedError
from triage.core.findings import Box, Finding, Measurement
from triage.core.manifest import FindingSpec, ModelManifest
from triage.models.radiograph import Radiograph
from triage.models.volume import Volume

MOST_KEY_IMAGES = 3
_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Interpretation:
    """Findings with the arrays that their pictures are made of, as `Analysis` has them."""

    findings: tuple[Finding, ...]
    segmentation: NDArray[np.uint8] | None = None
    heat_maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    probabilities: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image that a finding may be shown on; `frame` is its Referenced Frame Number, if any."""

    sop_instance_uid: str
    frame: int | None = None


def images_of(source: Volume | Radiograph) -> tuple[SourceImage, ...]:
    """Return the image or frame that each slice of a volume, or a radiograph, was read from."""
    uids = (
        source.sop_instance_uids
        if isinstance(source, Volume)
        else (source.instance.sop_instance_uid,)
    )
    frames = source.frame_numbers or (None,) * len(uids)
    return tuple(SourceImage(uid, frame) for uid, frame in zip(uids, frames, strict=True))


def finding_of(
    spec: FindingSpec,
    present: bool,
    confidence: float,
    *,
    number: int | None = None,
    measurements: tuple[Measurement, ...] = (),
    boxes: tuple[Box, ...] = (),
    key_images: Sequence[SourceImage] = (),
) -> Finding:
    """Return the finding that `spec` describes, with what was read about it."""
    return Finding(
        key=spec.key,
        code=spec.code,
        site=spec.site,
        present=present,
        confidence=min(max(confidence, 0.0), 1.0),
        measurements=measurements,
        segment_number=number,
        boxes=boxes,
        key_image_uids=tuple(image.sop_instance_uid for image in key_images),
        key_image_frames=tuple(image.frame for image in key_images if image.frame is not None),
        priority=spec.priority,
    )


def check_probabilities(values: NDArray[Any], manifest: ModelManifest) -> None:
    """Refuse values that are not finite or not from 0 to 1.

    Raises:
        AnalysisFailedError: there are such; states the least and the greatest.
    """
    check_finite(values, manifest)
    if not values.size:
        return
    low, high = float(values.min()), float(values.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise AnalysisFailedError(
            f"{manifest.identity} gave values from {low:.3g} to {high:.3g} where probabilities "
            "lie from 0 to 1"
        )


def check_finite(values: NDArray[Any], manifest: ModelManifest) -> None:
    """Refuse values that are infinite or no numbers.

    Raises:
        AnalysisFailedError: there are such.
    """
    # A sum is not finite if any value is not, and takes no array of its own.
    if not np.isfinite(values.sum(dtype=np.float64)):
        raise AnalysisFailedError(f"{manifest.identity} gave values that are not numbers")
