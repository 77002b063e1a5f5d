"""From what a model says to coded findings, through gates that let nothing impossible pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from triage.core.analysis import AnalysisFailedError, InputRefusedError
from triage.core.codes import MILLILITRE, VOLUME
from triage.core.findings import Finding, Measurement
from triage.core.manifest import FindingSpec, ModelManifest, TissueGate
from triage.models.radiograph import Radiograph, heat_map_on_source
from triage.models.tensors import ModelOutput
from triage.models.volume import Volume

VOXEL_PROBABILITY = 0.5
"""From which probability on a voxel belongs to a segment."""

_MOST_KEY_IMAGES = 3
_GREATEST_BODY_SHARE = 0.5
_BODY_FROM_HU = -500.0
_ROUNDING = 1e-3

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]
Probabilities = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Interpretation:
    """Findings with the arrays that their pictures are made of, as `Analysis` has them."""

    findings: tuple[Finding, ...]
    segmentation: Labels | None = None
    heat_maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def check_tissue(volume: Volume, gates: Sequence[TissueGate]) -> None:
    """Refuse a volume that shows too little of a tissue to be what the model is made for.

    Raises:
        InputRefusedError: names the tissue and both volumes.
    """
    for gate in gates:
        found_ml = 0.0
        for values, voxel_ml in zip(volume.values, volume.voxel_volumes_ml, strict=True):
            smooth = ndimage.uniform_filter(values, 3)[::2, ::2]  # every fourth pixel tells enough
            low, high = gate.values.minimum, gate.values.maximum
            holds = np.ones(smooth.shape, np.bool_)
            if low is not None:
                holds &= smooth >= low
            if high is not None:
                holds &= smooth <= high
            found_ml += float(holds.sum()) * 4 * voxel_ml
        if found_ml < gate.minimum_ml:
            raise InputRefusedError(
                f"only {found_ml:.0f} mL look like {gate.name}, at least {gate.minimum_ml:g} mL "
                "are needed: perhaps a phantom, or another part of the body"
            )


def interpret_volume(
    output: ModelOutput, volume: Volume, manifest: ModelManifest
) -> Interpretation:
    """Return the findings of a model that segments; `output` is on the slices of `volume`.

    A voxel belongs to a segment from a probability of 0.5 on. Connected components (by faces)
    below `minimum_volume_ml` are dropped. A component's confidence is the mean probability of its
    voxels, the finding's is the greatest of its components, and the finding is present if that
    reaches `threshold`. Its volume is that of all components that were not dropped. Without any,
    the confidence is 0. Where a model gives labels alone, each labelled voxel counts as 1.

    Raises:
        AnalysisFailedError: the output is of the wrong shape, not finite, or impossible.
    """
    labels, probabilities = _checked_segmentation(output, volume, manifest)
    segmentation = np.zeros(volume.values.shape, np.uint8)
    taken_with = np.zeros((), np.float32)
    findings: list[Finding] = []
    several = len(manifest.findings) > 1 and probabilities is not None
    if several:
        taken_with = np.zeros(volume.values.shape, np.float32)
    for number, spec in enumerate(manifest.findings, start=1):
        channel = _channel_of(spec, probabilities, manifest)
        mask = labels == spec.segment.label if labels is not None and spec.segment else None
        finding, found = _read_segment(spec, number, mask, channel, volume)
        if found is not None and spec.segment is not None:
            if several and channel is not None:
                # Where two findings claim a voxel, it goes to the more probable one.
                found &= channel > taken_with
                taken_with[found] = channel[found]
            segmentation[found] = spec.segment.label
        findings.append(finding)
    return Interpretation(tuple(findings), segmentation)


def interpret_image(
    output: ModelOutput, radiograph: Radiograph, manifest: ModelManifest
) -> Interpretation:
    """Return the findings of a model that classifies one image, and its heat maps on the image.

    The confidence is the probability of the finding's channel; the finding is present if it
    reaches `threshold`.

    Raises:
        AnalysisFailedError: the output is of the wrong shape, not finite, or no probability.
    """
    probabilities, heat_maps = output.probabilities, output.heat_maps
    wanted = 1 + max(f.channel or 0 for f in manifest.findings)
    if probabilities is None or probabilities.ndim != 1 or len(probabilities) < wanted:
        shape = None if probabilities is None else probabilities.shape
        raise AnalysisFailedError(
            f"{manifest.identity} gave probabilities of the shape {shape}; its manifest reads "
            f"{wanted} channels"
        )
    _check_probabilities(probabilities, manifest)
    drawn: dict[str, NDArray[np.float32]] = {}
    if heat_maps is not None:
        if heat_maps.ndim != 3 or len(heat_maps) < wanted:
            raise AnalysisFailedError(
                f"{manifest.identity} gave heat maps of the shape {heat_maps.shape}; its manifest "
                f"reads {wanted} channels"
            )
        _check_finite(heat_maps, manifest)
        for spec in manifest.findings:
            assert spec.channel is not None, "packages of images are read by channel"
            drawn[spec.key] = heat_map_on_source(heat_maps[spec.channel], radiograph)
    uid = radiograph.instance.sop_instance_uid
    findings = tuple(
        _shown_on_frames(_read_channel(spec, probabilities, uid), radiograph.frame_numbers)
        for spec in manifest.findings
    )
    return Interpretation(findings, heat_maps=drawn)


def _read_channel(spec: FindingSpec, probabilities: Probabilities, uid: str) -> Finding:
    assert spec.channel is not None, "packages of images are read by channel"
    confidence = float(np.clip(probabilities[spec.channel], 0.0, 1.0))
    present = confidence >= spec.threshold
    return _finding(spec, present, confidence, key_image_uids=(uid,) if present else ())


def _read_segment(
    spec: FindingSpec,
    number: int,
    mask: Mask | None,
    channel: Probabilities | None,
    volume: Volume,
) -> tuple[Finding, Mask | None]:
    """Return the finding, and its voxels if it is present."""
    if spec.segment is None:  # a channel of a segmentation says whether it is there anywhere
        assert channel is not None, "a channel is read from probabilities"
        confidence = float(np.clip(channel.max(), 0.0, 1.0))
        present = confidence >= spec.threshold
        return _finding(spec, present, confidence), None
    if mask is None:
        assert channel is not None, "the output has labels or probabilities"
        mask = channel >= VOXEL_PROBABILITY
    _check_volume(mask, volume, spec)
    kept, confidence = _large_components(mask, channel, volume.voxel_volumes_ml, spec)
    present = bool(kept.any()) and confidence >= spec.threshold
    if not present:
        return _finding(spec, False, confidence), None
    areas = kept.sum(axis=(1, 2))
    volume_ml = float(areas @ volume.voxel_volumes_ml)
    best = [int(i) for i in np.argsort(-areas, kind="stable")[:_MOST_KEY_IMAGES] if areas[i]]
    uids = tuple(volume.sop_instance_uids[i] for i in best)
    frames = tuple(volume.frame_numbers[i] for i in best) if volume.frame_numbers else ()
    measured = (Measurement(concept=VOLUME, value=round(volume_ml, 3), unit=MILLILITRE),)
    finding = _finding(
        spec, True, confidence, number=number, measurements=measured, key_image_uids=uids
    )
    return _shown_on_frames(finding, frames), kept


def _shown_on_frames(finding: Finding, frames: tuple[int, ...]) -> Finding:
    return finding.model_copy(update={"key_image_frames": frames if finding.key_image_uids else ()})


def _finding(
    spec: FindingSpec,
    present: bool,
    confidence: float,
    *,
    number: int | None = None,
    measurements: tuple[Measurement, ...] = (),
    key_image_uids: tuple[str, ...] = (),
) -> Finding:
    return Finding(
        key=spec.key,
        code=spec.code,
        site=spec.site,
        present=present,
        confidence=confidence,
        measurements=measurements,
        segment_number=number,
        key_image_uids=key_image_uids,
        priority=spec.priority,
    )


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
    confidence = float((sums[large] / sizes[large]).max())
    return kept, min(max(confidence, 0.0), 1.0)


def _bounding_box(mask: Mask) -> tuple[slice, slice, slice] | None:
    slices = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        if not len(hit):
            return None
        slices.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return slices[0], slices[1], slices[2]


def _checked_segmentation(
    output: ModelOutput, volume: Volume, manifest: ModelManifest
) -> tuple[Labels | None, Probabilities | None]:
    arrays = (output.labels, output.probabilities)
    spatial = [a.shape[-3:] for a in arrays if a is not None]
    if not spatial or any(shape != volume.values.shape for shape in spatial):
        raise AnalysisFailedError(
            f"{manifest.identity} gave an output of the shape {spatial or None} for a volume of "
            f"{volume.values.shape} (slices, rows, columns)"
        )
    if output.probabilities is not None:
        _check_probabilities(output.probabilities, manifest)
    elif any(spec.segment is None for spec in manifest.findings):
        raise AnalysisFailedError(
            f"{manifest.identity} gave labels alone; its manifest reads a channel"
        )
    return output.labels, output.probabilities


def _channel_of(
    spec: FindingSpec, probabilities: Probabilities | None, manifest: ModelManifest
) -> Probabilities | None:
    """Return the channel of a finding: label 1 is the first, or the second after a background."""
    if probabilities is None:
        return None
    labels = [f.segment.label for f in manifest.findings if f.segment is not None]
    index = spec.channel
    if spec.segment is not None:
        has_background = len(probabilities) > max(labels)
        index = spec.segment.label - (0 if has_background else 1)
    if index is None or index >= len(probabilities):
        raise AnalysisFailedError(
            f"{manifest.identity} gave {len(probabilities)} channels; its manifest reads "
            f"{spec.key} from another"
        )
    return np.asarray(probabilities[index])


def _check_probabilities(values: Probabilities, manifest: ModelManifest) -> None:
    _check_finite(values, manifest)
    low, high = float(values.min()), float(values.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise AnalysisFailedError(
            f"{manifest.identity} gave values from {low:.3g} to {high:.3g} where probabilities "
            "lie from 0 to 1"
        )


def _check_finite(values: NDArray[np.float32], manifest: ModelManifest) -> None:
    # A sum is not finite if any value is not, and takes no array of its own.
    if not np.isfinite(values.sum(dtype=np.float64)):
        raise AnalysisFailedError(f"{manifest.identity} gave values that are not numbers")


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
