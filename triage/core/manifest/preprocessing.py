"""`runner.preprocessing`: how a plain network gets its tensor, and its mask a way back.

A network that was exported has no code around it that resamples, windows and tiles. What it was
trained on is said here, so that it needs none.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from triage.core.manifest.parts import Part

Positive = Annotated[float, Field(gt=0)]


class IntensityWindow(Part):
    """Values within `width / 2` of `centre` become 0 to 1; what lies outside is clipped."""

    centre: float
    width: Positive


class Scale(Part):
    """What the least and the greatest value become: the ends of the window, or of the image."""

    minimum: float
    maximum: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.minimum >= self.maximum:
            raise ValueError("minimum must be below maximum")
        return self


class SlidingWindow(Part):
    """The network sees the volume in patches that overlap (MONAI's SlidingWindowInferer).

    Attributes:
        roi: voxels of a patch along the tensor's axes.
        overlap: the share of a patch that its neighbour covers too.
        batch: patches that are inferred at once.
        blend: "gaussian" gives the middle of a patch more weight than its rim.
    """

    roi: Annotated[tuple[int, ...], Field(min_length=3, max_length=3)]
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    batch: Annotated[int, Field(ge=1, le=64)] = 1
    blend: Literal["constant", "gaussian"] = "gaussian"

    @field_validator("roi")
    @classmethod
    def _positive(cls, roi: tuple[int, ...]) -> tuple[int, ...]:
        if min(roi) < 1:
            raise ValueError("must be three numbers of voxels, each at least 1")
        return roi


class Preprocessing(Part):
    """What happens to the values before the network; the steps in the order of the attributes.

    Attributes:
        orientation: for volumes: in which direction of the patient each spatial axis of the
            tensor counts up, such as "RAS" (MONAI's usual order) or "SPL" (slices, rows and
            columns of an axial series). Without it the axes are slices, rows and columns.
        spacing_mm: for volumes: distance of the voxels along these axes.
        window: the range of values, for CT in HU, that becomes 0 to 1.
        scale: what the least and the greatest value become.
        mean, std: subtracted, and then divided by; one number, or one for each channel.
        standardise: subtract the image's own mean and divide by its own standard deviation.
        channels: how many channels the network takes; one image is repeated to fill them.
        layout: where the channels are: (batch, channels, ...) or (batch, ..., channels).
        each_slice: for volumes: the network is for single images and gets each slice in turn.
        sliding_window: for volumes: the network gets patches.
    """

    orientation: str | None = None
    spacing_mm: tuple[Positive, Positive, Positive] | None = None
    window: IntensityWindow | None = None
    scale: Scale | None = None
    mean: tuple[float, ...] = ()
    std: tuple[Positive, ...] = ()
    standardise: bool = False
    channels: Annotated[int, Field(ge=1, le=64)] | None = None
    layout: Literal["channels-first", "channels-last"] = "channels-first"
    each_slice: bool = False
    sliding_window: SlidingWindow | None = None

    @field_validator("orientation")
    @classmethod
    def _names_three_directions(cls, orientation: str | None) -> str | None:
        pairs = ("RL", "AP", "SI")
        if orientation is not None and not (
            len(orientation) == 3 and all(any(c in p for c in orientation) for p in pairs)
        ):
            raise ValueError(
                "must be three letters, one of R and L, one of A and P and one of S and I, "
                "such as RAS"
            )
        return orientation

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.mean) != bool(self.std) or len(self.mean) != len(self.std):
            raise ValueError("mean and std go together and need as many numbers; give both")
        if self.standardise and self.mean:
            raise ValueError("standardise uses the image's own mean and std; remove mean and std")
        if self.each_slice and (self.sliding_window or self.orientation or self.spacing_mm):
            raise ValueError(
                "each_slice takes the slices as they are; remove sliding_window, orientation and "
                "spacing_mm"
            )
        return self

    @property
    def is_spatial(self) -> bool:
        """Whether anything is asked for that only a volume has."""
        return bool(self.orientation or self.spacing_mm or self.sliding_window or self.each_slice)
