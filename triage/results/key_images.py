"""The few images that show what was found: the ones that a person would open first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from triage.core.findings import Finding
from triage.results.context import ResultContext

MOST_KEY_IMAGES = 12


@dataclass(frozen=True, slots=True)
class KeyImage:
    """An image, or a frame of one, and the present findings that it shows.

    Attributes:
        index: its place on the first axis of the segmentation.
        source: the header of the image.
        frame: its Referenced Frame Number where the source is a multi-frame image.
        findings: the most urgent first.
    """

    index: int
    source: Dataset
    frame: int | None
    findings: tuple[Finding, ...]


def key_images(context: ResultContext) -> tuple[KeyImage, ...]:
    """Return the key images of the present findings, those of the most urgent finding first.

    A finding that names none is shown by the image with most of its outline, or by the only image
    there is; one of a whole series without an outline has none.
    """
    shown: dict[int, list[Finding]] = {}
    for finding in context.present_by_urgency:
        for index in _indices(context, finding):
            shown.setdefault(index, []).append(finding)
    return tuple(
        KeyImage(
            index=index,
            source=context.reference if context.is_multi_frame else context.sources[index],
            frame=context.frames[index] if context.is_multi_frame else None,
            findings=tuple(findings),
        )
        for index, findings in list(shown.items())[:MOST_KEY_IMAGES]
    )


def index_of(context: ResultContext, sop_instance_uid: str, frame: int | None) -> int | None:
    """Return the place of an image, or of a frame of the only one, or None: it was not analysed."""
    uids: Sequence[object] = context.analysis.source_sop_instance_uids
    if not context.is_multi_frame:
        return uids.index(sop_instance_uid) if sop_instance_uid in uids else None
    return context.frames.index(frame) if frame in context.frames else None


def _indices(context: ResultContext, finding: Finding) -> list[int]:
    frames = finding.key_image_frames or (None,) * len(finding.key_image_uids)
    named = [
        index_of(context, uid, frame)
        for uid, frame in zip(finding.key_image_uids, frames, strict=False)
    ]
    named += [index_of(context, box.sop_instance_uid, box.frame) for box in finding.boxes]
    found = list(dict.fromkeys(index for index in named if index is not None))
    if found:
        return found
    for outlined in context.outlined_findings:
        if outlined.finding.key == finding.key:
            return [int(context.mask_of(outlined).sum(axis=(1, 2)).argmax())]
    return [0] if context.expected_shape[0] == 1 else []
