"""What a manifest accepts, held against what only the frames of a multi-frame image say."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from triage.core.analysis import InputRefusedError
from triage.core.manifest import InputSpec, Range
from triage.models.volume import Volume


def check_scope(volume: Volume, accepts: InputSpec) -> None:
    """Refuse a multi-frame volume whose slices or pixels are not of an accepted size.

    Routing does it for single-frame images, whose headers it has. What a functional group says is
    known only here.

    Raises:
        InputRefusedError: names the size and what the model accepts.
    """
    if not volume.frame_numbers:
        return
    thick = [frame.floats("SliceThickness", 1) for frame in volume.frames]
    _check(
        "slices", (float(each[0]) for each in thick if each is not None), accepts.slice_thickness_mm
    )
    _check("pixels", volume.spacing_mm[1:], accepts.pixel_spacing_mm)
    largest = float(np.diff(volume.slice_positions_mm).max())
    _check("a slice distance", (largest,), accepts.slice_spacing_mm)


def _check(what: str, sizes_mm: Iterable[float], accepted: Range) -> None:
    for size in sizes_mm:
        if not accepted.holds(size):
            least, most = accepted.minimum, accepted.maximum
            ends = [f"from {least:g}"] if least is not None else []
            ends += [f"up to {most:g}"] if most is not None else []
            raise InputRefusedError(f"{what} of {size:.3g} mm, model accepts {' '.join(ends)} mm")
