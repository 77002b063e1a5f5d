"""Which image a study is opened at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from triage.worklist.stacks import SeriesView


class OpeningView(BaseModel):
    """The image that is shown first, and the finding that it shows."""

    model_config = ConfigDict(frozen=True)

    series_instance_uid: str
    sop_instance_uid: str
    frame: int
    finding_id: int | None = None


class _Finding(Protocol):
    @property
    def finding_id(self) -> int: ...
    @property
    def present(self) -> bool: ...
    @property
    def withdrawn(self) -> str: ...
    @property
    def key_image_uids(self) -> tuple[str, ...]: ...
    @property
    def key_image_frames(self) -> tuple[int, ...]: ...


def opening_of(series: Sequence[SeriesView], findings: Iterable[_Finding]) -> OpeningView | None:
    """Return the key image of the most urgent finding, or the middle of the longest series.

    `findings` are in the order of their urgency. Without an image there is none.
    """
    series_of = {image.sop_instance_uid: one for one in series for image in one.images}
    for finding in findings:
        uid = finding.key_image_uids[0] if finding.key_image_uids else ""
        if finding.present and not finding.withdrawn and uid in series_of:
            return OpeningView(
                series_instance_uid=series_of[uid].series_instance_uid,
                sop_instance_uid=uid,
                frame=finding.key_image_frames[0] if finding.key_image_frames else 1,
                finding_id=finding.finding_id,
            )
    with_images = [one for one in series if one.images]
    received = [one for one in with_images if not one.is_result]
    longest = max(received or with_images, key=_length, default=None)
    return _middle(longest) if longest is not None else None


def _length(series: SeriesView) -> int:
    return sum(image.frames for image in series.images)


def _middle(series: SeriesView) -> OpeningView:
    rest = _length(series) // 2
    for image in series.images:
        if rest < image.frames:
            break
        rest -= image.frames
    return OpeningView(
        series_instance_uid=series.series_instance_uid,
        sop_instance_uid=image.sop_instance_uid,
        frame=rest + 1,
    )
