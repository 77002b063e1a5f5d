"""Reading segmentations: labels or probabilities of voxels, as outlined findings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from triage.core.analysis import AnalysisFailedError
from triage.core.codes import MILLILITRE, VOLUME
from triage.core.findings import Finding, Measurement
from triage.core.manifest import FindingSpec, ModelManifest
from triage.models.interpret.reading import (
    MOST_KEY_IMAGES,
    check_probabilities,
    finding_of,
    images_of,
)
from triage.models.tensors import ModelOutput
from triage.models.volume import Volume

VOXEL_PROBABILITY = 0.5
"""From which probability on a voxel belongs to a segment."""

_GREATEST_BODY_SHARE = 0.5
_BODY_FROM_HU = -500.0

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]
Probabilities = NDArray[np.float32]


class Segments:
    """The findings with outlines that one output holds, read one after the other.

    A voxel belongs to a segment from a probability of 0.5 on. Connected components (by faces)
    below `minimum_volume_ml` are dropped. A component's confidence is the mean probability of its
    voxels, the finding's is the greatest of its components, and the finding is present if that
    reaches `threshold`. Its volume is that of all components that were not dropped. Without any,
    the confidence is 0. Where a model gives labels alone, each labelled voxel counts as 1.

    Attributes:
        outlined: labels on the voxels of what was read so far; None for a model whose manifest
            has no segment.
        probabilities: with `keep_probabilities`, of each present finding by its key, where no
            component was dropped: from 0.5 on where it is outlined.

    Raises:
        AnalysisFailedError: the output is of the wrong shape, not finite, or impossible.
    """

    def __init__(
        self,
        output: ModelOutput,
        volume: Volume,
        manifest: ModelManifest,
        *,
        keep_probabilities: bool = False,
    ) -> None:
        self._keeps_probabilities = keep_probabilities
        self.probabilities: dict[str, Probabilities] = {}
        self._volume = volume
        self._manifest = manifest
        self._numbers = [f.segment.label for f in manifest.findings if f.segment is not None]
        self._labels = output.labels
        # A vector of probabilities classifies; the segments of such an output are its labels.
        spatial = output.probabilities is not None and output.probabilities.ndim > 1
        self._probabilities = output.probabilities if spatial else None
        self.outlined: Labels | None = None
        # Where two findings claim a voxel, it goes to the more probable one.
        self._taken_with: Probabilities | None = None
        if self._numbers or spatial:
            self._check_shapes()
        if self._numbers:
            self.outlined = np.zeros(volume.values.shape, np.uint8)
            if len(self._numbers) > 1 and self._probabilities is not None:
                self._taken_with = np.zeros(volume.values.shape, np.float32)

    def read(self, spec: FindingSpec, number: int) -> Finding:
        """Return the finding of a segment, and outline it if it is present."""
        assert spec.segment is not None, "findings with a segment come here"
        assert self.outlined is not None, "a manifest with a segment has outlines"
        channel = self._channel_of(spec)
        if self._labels is not None:
            mask = self._labels == spec.segment.label
        else:
            assert channel is not None, "the output has labels or probabilities"
            mask = channel >= VOXEL_PROBABILITY
        _check_volume(mask, self._volume, spec)
        kept, confidence = _large_components(mask, channel, self._volume.voxel_volumes_ml, spec)
        if not kept.any() or confidence < spec.threshold:
            return finding_of(spec, False, confidence)
        finding = self._present(spec, number, kept, confidence)
        if self._keeps_probabilities and channel is not None:
            self.probabilities[spec.key] = np.where(mask & ~kept, np.float32(0), channel)
        if self._taken_with is not None and channel is not None:
            kept &= channel > self._taken_with
            self._taken_with[kept] = channel[kept]
        self.outlined[kept] = spec.segment.label
        return finding

    def _present(self, spec: FindingSpec, number: int, kept: Mask, confidence: float) -> Finding:
        areas = kept.sum(axis=(1, 2))
        volume_ml = float(areas @ self._volume.voxel_volumes_ml)
        best = [int(i) for i in np.argsort(-areas, kind="stable")[:MOST_KEY_IMAGES] if areas[i]]
        images = images_of(self._volume)
        return finding_of(
            spec,
            True,
            confidence,
            number=number,
            measurements=(Measurement(concept=VOLUME, value=round(volume_ml, 3), unit=MILLILITRE),),
            key_images=[images[i] for i in best],
        )

    def _check_shapes(self) -> None:
        arrays = (self._labels, self._probabilities)
        spatial = [a.shape[-3:] for a in arrays if a is not None]
        if not spatial or any(shape != self._volume.values.shape for shape in spatial):
            raise AnalysisFailedError(
                f"{self._manifest.identity} gave an output of the shape {spatial or None} for a "
                f"volume of {self._volume.values.shape} (slices, rows, columns)"
            )
        if self._probabilities is not None:
            check_probabilities(self._probabilities, self._manifest)

    def _channel_of(self, spec: FindingSpec) -> Probabilities | None:
        """Return a finding's channel: label 1 is the first, or the second after a background."""
        if self._probabilities is None or spec.segment is None:
            return None
        count = len(self._probabilities)
        has_background = count > max(self._numbers)
        index = spec.segment.label - (0 if has_background else 1)
        if index >= count:
            raise AnalysisFailedError(
                f"{self._manifest.identity} gave {count} channels; its manifest reads {spec.key} "
                "from another"
            )
        return np.asarray(self._probabilities[index])


def _large_components(
    mask: Mask, channel: Probabilities | None, voxel_ml: NDArray[np.float64], spec: FindingSpec
) -> tuple[Mask, float]:
    """Return the voxels of all components that are large enough, and the greatest confidence."""
    kept = np.zeros_like(mask)
    box = _bounding_box(mask)
    if box is None:
        return kept, 0.0
    # Labelling the box alone takes milliseconds where the whole volume takes a second.
    labelled, count = ndimage.label(mask[box])
    weights = np.broadcast_to(voxel_ml[box[0], None, None], labelled.shape)
    volumes = np.bincount(labelled.ravel(), weights.ravel(), minlength=count + 1)
    large = volumes >= max(spec.minimum_volume_ml, 0.0)
    large[0] = False
    if not large.any():
        return kept, 0.0
    kept[box] = large[labelled]
    if channel is None:
        return kept, 1.0
    sums = np.bincount(labelled.ravel(), channel[box].ravel(), minlength=count + 1)
    sizes = np.bincount(labelled.ravel(), minlength=count + 1)
    return kept, float((sums[large] / sizes[large]).max())


def _bounding_box(mask: Mask) -> tuple[slice, slice, slice] | None:
    slices = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        if not len(hit):
            return None
        slices.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return slices[0], slices[1], slices[2]


def _check_volume(mask: Mask, volume: Volume, spec: FindingSpec) -> None:
    """Refuse a segment that fills more of the body than any lesion does."""
    marked = int(np.count_nonzero(mask))
    if not marked:
        return
    is_ct = volume.modality == "CT"
    threshold = _BODY_FROM_HU if is_ct else float(volume.values.mean())
    body = int(np.count_nonzero(volume.values > threshold))
    if marked > _GREATEST_BODY_SHARE * body:
        marked_ml = float(mask.sum(axis=(1, 2)) @ volume.voxel_volumes_ml)
        raise AnalysisFailedError(
            f"impossible volume: {spec.code.meaning} of {marked_ml:.0f} mL would fill "
            f"{100 * marked / max(body, 1):.0f} % of the body"
        )
