"""What a model says about a study, in coded terms."""

from __future__ import annotations

import math
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from triage.core.codes import Code
from triage.core.priority import Priority


class Measurement(BaseModel):
    """A number with its concept and its UCUM unit, for example Volume 12.3 mL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concept: Code
    value: float
    unit: Code

    @model_validator(mode="after")
    def _value_is_finite(self) -> Self:
        if not math.isfinite(self.value):
            raise ValueError(f"measurement {self.concept.meaning} is not a finite number")
        return self


class Box(BaseModel):
    """Where a detector saw something: a rectangle on an image, and a cuboid where it is a volume.

    Attributes:
        score: 0 to 1.
        sop_instance_uid: the image; of a volume the slice nearest to the middle of the box.
        frame: where that is a frame of a multi-frame image, its Referenced Frame Number.
        left, top, right, bottom: the rectangle in pixels of that image. (0, 0) is the upper left
            corner of its first pixel, whose middle is (0.5, 0.5), as in the SR's SCOORD
            (DICOM PS3.3 C.18.6.1.1).
        lower_mm, upper_mm: for a volume: the corners with the least and the greatest patient
            coordinates (LPS); the edges are parallel to the patient's axes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: Annotated[float, Field(ge=0.0, le=1.0)]
    sop_instance_uid: str
    frame: Annotated[int, Field(ge=1)] | None = None
    left: float
    top: float
    right: float
    bottom: float
    lower_mm: tuple[float, float, float] | None = None
    upper_mm: tuple[float, float, float] | None = None


class Finding(BaseModel):
    """One statement of one model about one study, present or absent.

    Absent findings are results too: "analysed, nothing found" is said in the SR and shown.

    Attributes:
        key: the finding's key in the model's manifest.
        code: what was looked for.
        site: where in the body, if the manifest says.
        present: whether the model's confidence reached the manifest's threshold.
        confidence: 0 to 1.
        measurements: numbers about the finding.
        segment_number: the segment of the SEG that outlines it, starting at 1.
        boxes: where a detector saw it, best first; empty if it is absent.
        key_image_uids: SOP Instance UIDs of the few source images that show it, best first.
        key_image_frames: where these are frames of a multi-frame image, which ones, in the same
            order, as Referenced Frame Number counts them from 1.
        priority: the reading priority that the manifest asks for when it is present.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    code: Code
    site: Code | None = None
    present: bool
    confidence: Annotated[float, Field(ge=0.0, le=1.0)]
    measurements: tuple[Measurement, ...] = ()
    segment_number: Annotated[int, Field(ge=1)] | None = None
    boxes: tuple[Box, ...] = ()
    key_image_uids: tuple[str, ...] = ()
    key_image_frames: tuple[int, ...] = ()
    priority: Priority = Priority.ROUTINE

    def in_words(self) -> str:
        """Return the finding as the worklist says it.

        >>> from triage.core.codes import HEMORRHAGE_MORPHOLOGY, MILLILITRE, VOLUME
        >>> Finding(key="h", code=HEMORRHAGE_MORPHOLOGY, present=True, confidence=0.974,
        ...         measurements=(Measurement(concept=VOLUME, value=12.3, unit=MILLILITRE),)
        ...         ).in_words()
        'Hemorrhage, 12.3 mL, confidence 0.97'
        """
        if not self.present:
            return f"No {self.code.meaning.lower()} found"
        numbers = [f"{m.value:.3g} {m.unit.value}" for m in self.measurements]
        return ", ".join([self.code.meaning, *numbers, f"confidence {self.confidence:.2f}"])
