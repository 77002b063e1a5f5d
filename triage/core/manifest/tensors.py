"""`runner.input`: how the images of a series become the array that a model is given."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from triage.core.manifest.parts import Part, Range


class TissueGate(Part):
    """A plausibility check on the pixels: how much of a tissue the volume must show at least.

    It refuses what no header betrays, such as a phantom: an empty skull has next to no volume
    with the density of brain. Values are averaged over 3 by 3 pixels first, against noise.

    Attributes:
        name: the tissue in words, for the stated reason.
        values: rescaled values of that tissue, for CT in HU.
        minimum_ml: the volume that must lie in that range.
    """

    name: Annotated[str, Field(min_length=1, max_length=64)]
    values: Range
    minimum_ml: Annotated[float, Field(gt=0)]


class VolumeInput(Part):
    """The runner gets a volume (slices, rows, columns) of rescaled values, for CT in HU.

    Attributes:
        must_show: tissues without which the volume is refused.
    """

    kind: Literal["volume"] = "volume"
    must_show: tuple[TissueGate, ...] = ()


class ImageInput(Part):
    """The runner gets one image of shape (1, 1, size, size), float32 from 0 to 1.

    Attributes:
        size: rows and columns that the image is resized to.
        scaling: "percentile" maps the values at `lower_percentile` and `upper_percentile` to
            0 and 1; "bits" divides by the greatest value that the stored bits can hold, after the
            VOI LUT. MONOCHROME1 is inverted in both.
    """

    kind: Literal["image"]
    size: Annotated[int, Field(ge=16, le=4096)]
    scaling: Literal["percentile", "bits"] = "percentile"
    lower_percentile: Annotated[float, Field(ge=0, le=100)] = 0.0
    upper_percentile: Annotated[float, Field(ge=0, le=100)] = 100.0
