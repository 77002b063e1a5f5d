"""A finding that a person sees and no model said."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from triage.core.codes import Code

LONGEST_WORDS = 200

Pixel = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]


class MissedFinding(BaseModel):
    """What it is, by code or in words, and where it lies, as far as that was said.

    Attributes:
        code: what it is; one that a model looks for counts as missed by that model.
        words: the same in free words, or more about it; no patient data.
        sop_instance_uid: the image that shows it.
        frame: of a multi-frame image, from 1 on.
        mark: [column, row] of a point or [left, top, right, bottom] of a box on that image, in
            pixels from the upper left corner of the first one, whose middle is (0.5, 0.5)
            (DICOM PS3.3 C.18.6.1.1).

    >>> MissedFinding(words="rib fracture", laterality="left").in_words()
    'rib fracture, left'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: Code | None = None
    words: Annotated[str, StringConstraints(strip_whitespace=True, max_length=LONGEST_WORDS)] = ""
    laterality: Literal["", "left", "right", "both"] = ""
    sop_instance_uid: Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)*)?$", max_length=64)] = ""
    frame: Annotated[int, Field(ge=1)] | None = None
    mark: tuple[Pixel, Pixel] | tuple[Pixel, Pixel, Pixel, Pixel] | None = None

    @model_validator(mode="after")
    def _says_what_and_where(self) -> Self:
        if self.code is None and not self.words:
            raise ValueError("choose a code or say in words what was missed")
        if self.mark is not None and not self.sop_instance_uid:
            raise ValueError("a mark needs the image that it is on (sop_instance_uid)")
        if self.mark is not None and len(self.mark) == 4:
            left, top, right, bottom = self.mark
            if left >= right or top >= bottom:
                raise ValueError("a box is [left, top, right, bottom], with left before right")
        return self

    def in_short(self) -> str:
        """Return what it is without the free words, which may tell too much for a history."""
        return f"missed {self.code.meaning}" if self.code else "a missed finding in free words"

    def in_words(self) -> str:
        """Return what it is, and on which side."""
        what = self.code.meaning if self.code else self.words
        more = self.words if self.code else ""
        sides = {"both": "both sides"}
        return ", ".join(filter(None, (what, sides.get(self.laterality, self.laterality), more)))
