"""Which frames of a series make one volume, where they may make several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from triage.core.analysis import InputRefusedError
from triage.core.manifest import VolumeInput
from triage.core.manifest.parts import Range
from triage.core.manifest.tensors import FrameSelection
from triage.models.sources import Frame

_Place = tuple[float, ...]
_Value = tuple[int, float, str]
"""A value to sort by: numbers before texts, what is not stated last."""


@dataclass(frozen=True, slots=True)
class _Dimension:
    """Something in which images of one place may differ, and the attributes that state it."""

    name: str
    keywords: tuple[str, ...]
    unit: str = ""

    def of(self, frame: Frame) -> _Value:
        for keyword in self.keywords:
            value = frame.value(keyword)
            if value not in (None, "", []):
                return _sortable(value)
        return 2, 0.0, "not stated"


_STACK = _Dimension("stack", ("StackID",))
_TEMPORAL = _Dimension("temporal position", ("TemporalPositionIndex", "TemporalPositionIdentifier"))
_B_VALUE = _Dimension("b-value", ("DiffusionBValue",), " s/mm2")
_ECHO_TIME = _Dimension("echo time", ("EffectiveEchoTime", "EchoTime"), " ms")
_CARDIAC_PHASE = _Dimension("cardiac phase", ("NominalPercentageOfCardiacPhase",), " %")
_DIMENSIONS = (
    _STACK,
    _TEMPORAL,
    _B_VALUE,
    _Dimension("diffusion directionality", ("DiffusionDirectionality",)),
    _ECHO_TIME,
    _CARDIAC_PHASE,
    _Dimension("complex image component", ("ComplexImageComponent",)),
    _Dimension("frame type", ("FrameType",)),
)


def frames_of_one_volume(
    frames: Sequence[Frame], wanted: VolumeInput, remarks: list[str]
) -> list[Frame]:
    """Return the frames that the manifest means, of one volume.

    Raises:
        InputRefusedError: none is meant, or several volumes are and the manifest refuses that.
    """
    meant = _of_one_source(_selected(frames, wanted.select), remarks)
    volumes: dict[tuple[_Value, ...], list[Frame]] = {}
    for frame in meant:
        volumes.setdefault(tuple(d.of(frame) for d in _DIMENSIONS), []).append(frame)
    if len(volumes) == 1 or not _overlap(volumes):
        return meant
    differing = _differences(list(volumes))
    said = f"{len(volumes)} volumes that differ in {differing}"
    if wanted.several_volumes == "refuse":
        raise InputRefusedError(
            f"the series holds {said}; the model's runner.input.select does not say which is meant"
        )
    remarks.append(f"the series holds {said}; the first is analysed")
    return volumes[min(volumes)]


def _selected(frames: Sequence[Frame], select: FrameSelection) -> list[Frame]:
    kept = list(frames)
    asked: tuple[tuple[_Dimension, Range | None], ...] = (
        (_TEMPORAL, select.temporal_position),
        (_B_VALUE, select.diffusion_b_value),
        (_ECHO_TIME, select.echo_time_ms),
        (_CARDIAC_PHASE, select.cardiac_phase_percent),
    )
    for dimension, accepted in asked:
        if accepted is None:
            continue
        stated = [(frame, dimension.of(frame)) for frame in kept]
        kept = [frame for frame, (kind, n, _) in stated if kind == 0 and accepted.holds(n)]
        if not kept:
            raise InputRefusedError(f"no image has a {dimension.name} that the model accepts")
    if select.stack is not None:
        kept = [f for f in kept if str(f.value("StackID") or "").strip() == select.stack]
        if not kept:
            raise InputRefusedError(f"no image belongs to stack {select.stack}")
    return kept


def _of_one_source(frames: list[Frame], remarks: list[str]) -> list[Frame]:
    """Return the frames of the single-frame images, or of one multi-frame image.

    A segmentation refers to one multi-frame image (PS3.3 A.51), so a volume is never put together
    from several. The one with the most frames is taken, of equal ones the first.
    """
    by_uid: dict[str, list[Frame]] = {}
    for frame in frames:
        key = frame.instance.sop_instance_uid if frame.is_of_several else ""
        by_uid.setdefault(key, []).append(frame)
    if len(by_uid) < 2:
        return frames
    taken = min(by_uid.values(), key=lambda group: (-len(group), group[0].rank))
    if len(taken) < 2:
        raise InputRefusedError(
            f"the slices are spread over {len(by_uid)} multi-frame images; a volume is taken "
            "from one"
        )
    remarks.append(f"{len(frames) - len(taken)} frames of other images of the series left out")
    return taken


def _overlap(volumes: dict[tuple[_Value, ...], list[Frame]]) -> bool:
    """Return whether the groups are volumes of their own and not parts of one.

    Stacks are by definition (PS3.3 C.7.6.16.2.2.7); others where two show the same place. An echo
    time that differs a little from slice to slice makes no volumes.
    """
    if len({key[0] for key in volumes}) > 1:
        return True
    seen: set[_Place] = set()
    for group in volumes.values():
        places = {_place(frame) for frame in group}
        if places & seen:
            return True
        seen |= places
    return False


def _place(frame: Frame) -> _Place:
    position = frame.floats("ImagePositionPatient", 3)
    orientation = frame.floats("ImageOrientationPatient", 6)
    if position is None or orientation is None:
        return ()
    return tuple(np.round([*position, *orientation], 2))


def _differences(keys: list[tuple[_Value, ...]]) -> str:
    said = []
    for dimension, values in zip(_DIMENSIONS, zip(*keys, strict=True), strict=True):
        if len(set(values)) > 1:
            words = ", ".join(text for _, _, text in sorted(set(values))[:6])
            more = ", …" if len(set(values)) > 6 else ""
            said.append(f"{dimension.name} ({words}{more}{dimension.unit})")
    return " and ".join(said)


def _sortable(value: Any) -> _Value:
    try:
        number = float(value)
    except (TypeError, ValueError):
        parts = [value] if isinstance(value, str) else list(value)
        return 1, 0.0, "\\".join(map(str, parts))
    return 0, number, f"{number:g}"
