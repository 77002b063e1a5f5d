"""`accepts` and `inputs`: which series a model gets."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from triage.core.expressions import Expression
from triage.core.manifest.parts import Part, Range


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


def _upper(values: Any) -> Any:
    if isinstance(values, (list, tuple)):
        return [v.upper() if isinstance(v, str) else v for v in values]
    return values


Pattern = Annotated[str, AfterValidator(_check_pattern)]
"""A regular expression; it is searched for ignoring case."""

UpperCase = Annotated[tuple[str, ...], BeforeValidator(_upper)]

Orientation = Literal["axial", "coronal", "sagittal", "oblique"]
MayBeUnstated = Literal[
    "b_values",
    "contrast",
    "kernels",
    "lateralities",
    "manufacturer_pattern",
    "model_name_pattern",
    "orientations",
    "patient_age_years",
    "patient_sexes",
    "pixel_spacing_mm",
    "sequence_name_pattern",
    "slice_spacing_mm",
    "slice_thickness_mm",
    "view_positions",
]


class Preference(Part):
    """Points for a series of which `when` is true; negative ones speak against it."""

    when: Expression
    score: Annotated[float, Field(ge=-1000, le=1000)]


class InputSpec(Part):
    """Which series a model accepts. What is not given is not asked.

    What no image states is held against a series only where `must_state` names the condition.

    Attributes:
        modalities: Modality (0008,0060) values.
        sop_class_uids: SOP Class UIDs; empty means every image of the modality.
        body_parts: Body Part Examined (0018,0015) values. A series that states none of them is
            still accepted if `description_pattern` matches, because the attribute is often empty
            or wrong.
        description_pattern: regular expression, ignoring case, over Study Description,
            Series Description and Protocol Name; without `body_parts` it must match.
        excluded_description_pattern: the same, for what is refused.
        image_types: Image Type (0008,0008) values; each image must have one of them. Derived,
            secondary, reformatted or projected images are only accepted by naming their values.
        orientations: of the slices, from Image Orientation (Patient).
        images: how many images the series must have.
        slice_thickness_mm: Slice Thickness (0018,0050).
        slice_spacing_mm: distance between neighbouring slices, from their positions.
        pixel_spacing_mm: Pixel Spacing (0028,0030), both values.
        contrast: "with" or "without" contrast agent. A series of which nothing says that agent was
            given counts as without.
        kernels: "soft" or "bone", by Convolution Kernel (0018,1210) or description.
        kernel_pattern: regular expression over Convolution Kernel, which must be stated.
        lateralities: Image, Frame or series Laterality values.
        view_positions: View Position (0018,5101) values, for projection radiographs.
        manufacturer_pattern, model_name_pattern: over Manufacturer, and its Model Name.
        patient_age_years: from Patient's Age, or birth date and study date.
        patient_sexes: Patient's Sex (0010,0040) values.
        b_values: in s/mm², from Diffusion b-value or the sequence's name; one must lie within.
        sequence_name_pattern: over Sequence Name or Pulse Sequence Name.
        must_state: those of the above whose attribute must be stated.
        when: a condition for what the others cannot say.
        prefer_thin_slices: whether, of several series, thinner slices are better.
        prefer: points for and against series that are accepted; the most points win.
    """

    modalities: Annotated[tuple[str, ...], Field(min_length=1)]
    sop_class_uids: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    description_pattern: Pattern | None = None
    excluded_description_pattern: Pattern | None = None
    image_types: UpperCase = ()
    orientations: tuple[Orientation, ...] = ()
    images: Range = Range()
    slice_thickness_mm: Range = Range()
    slice_spacing_mm: Range = Range()
    pixel_spacing_mm: Range = Range()
    contrast: Literal["with", "without"] | None = None
    kernels: tuple[Literal["soft", "bone"], ...] = ()
    kernel_pattern: Pattern | None = None
    lateralities: UpperCase = ()
    view_positions: tuple[str, ...] = ()
    manufacturer_pattern: Pattern | None = None
    model_name_pattern: Pattern | None = None
    patient_age_years: Range = Range()
    patient_sexes: tuple[Literal["F", "M", "O"], ...] = ()
    b_values: Range = Range()
    sequence_name_pattern: Pattern | None = None
    must_state: tuple[MayBeUnstated, ...] = ()
    when: Expression | None = None
    prefer_thin_slices: bool = False
    prefer: Annotated[tuple[Preference, ...], Field(max_length=32)] = ()


class NamedInput(Part):
    """One of the series that a model gets.

    Attributes:
        name: what the model's runner calls it; "image" is the only input of a model with `accepts`.
        accepts: which series it may be.
        source: written `from`: "study" is the study itself, "prior" the patient's most relevant
            earlier study that has such a series.
        optional: whether the model is run without it where there is none.
        same_frame_of_reference: whether it must share the first input's Frame of Reference UID.
        align: "first" resamples it onto the grid of the first input, through the coordinates of
            the patient, which both must share.
    """

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    accepts: InputSpec
    source: Annotated[Literal["study", "prior"], Field(alias="from")] = "study"
    optional: bool = False
    same_frame_of_reference: bool = False
    align: Literal["first"] | None = None
