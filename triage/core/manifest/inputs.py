"""`accepts`: which series a model gets."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from triage.core.manifest.parts import Part, Range


class InputSpec(Part):
    """Which series a model accepts. What is not given is not asked.

    Attributes:
        modalities: Modality (0008,0060) values.
        sop_class_uids: SOP Class UIDs; empty means every image of the modality.
        body_parts: Body Part Examined (0018,0015) values. A series that states none of them is
            still accepted if `description_pattern` matches, because the attribute is often empty
            or wrong.
        description_pattern: regular expression, ignoring case, over Study Description,
            Series Description and Protocol Name.
        excluded_description_pattern: the same, for what is refused.
        view_positions: View Position (0018,5101) values, for projection radiographs; a series
            that states none is accepted.
        images: how many images the series must have.
        slice_thickness_mm: Slice Thickness (0018,0050).
        slice_spacing_mm: distance between neighbouring slices, from their positions.
        pixel_spacing_mm: Pixel Spacing (0028,0030), both values.
    """

    modalities: Annotated[tuple[str, ...], Field(min_length=1)]
    sop_class_uids: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    description_pattern: str | None = None
    excluded_description_pattern: str | None = None
    view_positions: tuple[str, ...] = ()
    images: Range = Range()
    slice_thickness_mm: Range = Range()
    slice_spacing_mm: Range = Range()
    pixel_spacing_mm: Range = Range()

    @field_validator("description_pattern", "excluded_description_pattern")
    @classmethod
    def _is_regular_expression(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return pattern
