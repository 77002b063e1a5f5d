"""`runner.input`: how the images of a series become the array that a model is given."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from triage.core.manifest.parts import Part, Range

_OPPOSITES = ("RL", "AP", "SI")


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


class FrameSelection(Part):
    """Which images of a series are taken, where it holds several volumes. Not given, not asked.

    Attributes:
        stack: Stack ID (0020,9056).
        temporal_position: Temporal Position Index (0020,9128), or Identifier (0020,0100).
        diffusion_b_value: Diffusion b-value (0018,9087) in s/mm2.
        echo_time_ms: Effective Echo Time (0018,9082), or Echo Time (0018,0081).
        cardiac_phase_percent: Nominal Percentage of Cardiac Phase (0020,9241).
    """

    stack: str | None = None
    temporal_position: Range | None = None
    diffusion_b_value: Range | None = None
    echo_time_ms: Range | None = None
    cardiac_phase_percent: Range | None = None


class VolumeInput(Part):
    """The runner gets a volume of rescaled values, for CT in HU.

    Attributes:
        must_show: tissues without which the volume is refused.
        units: "rescaled" is what the Modality LUT gives; "real-world" what the Real World Value
            Mapping with the unit `real_world_unit` gives; "suvbw" the standardized uptake value
            by body weight, in g/mL, of PET.
        real_world_unit: UCUM code of the unit, such as "mm2/s".
        select: which images are taken, where the series holds several volumes.
        several_volumes: what to do where images still differ in stack, temporal position, b-value,
            echo time, cardiac phase or component: take the "first" volume, or "refuse".
        orientation: where the axes of the model's array point to, one letter each: "RAS" is an
            array (left to right, posterior to anterior, inferior to superior). Oblique volumes
            are turned by the nearest. Without it the array is (slices, rows, columns) as acquired.
        tilted_gantry: "state" gives the model the sheared volume, "shear-correct" shifts the
            slices by whole pixels to where they belong, "refuse" refuses it.
        uneven_slices: "resample" brings slices at uneven distances to an even grid, "refuse"
            refuses them.
        missing_slices: "refuse" refuses a gap; "interpolate" fills one of up to two slices.
    """

    kind: Literal["volume"] = "volume"
    must_show: tuple[TissueGate, ...] = ()
    units: Literal["rescaled", "real-world", "suvbw"] = "rescaled"
    real_world_unit: Annotated[str, Field(max_length=16)] = ""
    select: FrameSelection = FrameSelection()
    several_volumes: Literal["first", "refuse"] = "first"
    orientation: str | None = None
    tilted_gantry: Literal["state", "shear-correct", "refuse"] = "state"
    uneven_slices: Literal["resample", "refuse"] = "resample"
    missing_slices: Literal["refuse", "interpolate"] = "refuse"

    @field_validator("orientation")
    @classmethod
    def _names_each_axis_once(cls, letters: str | None) -> str | None:
        if letters is not None:
            axes = sorted(
                index
                for letter in letters
                for index, pair in enumerate(_OPPOSITES)
                if letter in pair
            )
            if len(letters) != len(_OPPOSITES) or axes != [0, 1, 2]:
                raise ValueError("give one letter each of R or L, A or P, S or I, such as RAS")
        return letters

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.units == "real-world") != bool(self.real_world_unit):
            raise ValueError("units: real-world and real_world_unit belong together; give both")
        if self.missing_slices == "interpolate" and self.uneven_slices == "refuse":
            raise ValueError("missing_slices: interpolate needs uneven_slices: resample")
        return self


class ImageInput(Part):
    """The runner gets one image of shape (1, 1, size, size), float32 from 0 to 1.

    Attributes:
        size: rows and columns that the image is resized to.
        scaling: "percentile" maps the values at `lower_percentile` and `upper_percentile` to
            0 and 1; "bits" divides by the greatest value that the stored bits can hold, after the
            VOI LUT. MONOCHROME1 is inverted in both.
        frame: which frame of a multi-frame image is taken: the "first", the "middle" one, the
            "representative" one that the image names (0028,6010), or the middle one where it
            names none; "refuse" refuses such images.
        colour: "grey" turns colour images into their luminance, "refuse" refuses them.
    """

    kind: Literal["image"]
    size: Annotated[int, Field(ge=16, le=4096)]
    scaling: Literal["percentile", "bits"] = "percentile"
    lower_percentile: Annotated[float, Field(ge=0, le=100)] = 0.0
    upper_percentile: Annotated[float, Field(ge=0, le=100)] = 100.0
    frame: Literal["refuse", "first", "middle", "representative"] = "refuse"
    colour: Literal["refuse", "grey"] = "refuse"
