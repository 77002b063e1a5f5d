"""`findings` and `results`: what a model's outputs mean, and the objects they become."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from triage.core.codes import MORPHOLOGICALLY_ABNORMAL_STRUCTURE, Code
from triage.core.manifest.parts import Part, PriorityName, Range
from triage.core.priority import Priority


class SegmentSpec(Part):
    """How a label of a segmentation output is written as a segment of the SEG (PS3.3 C.8.20.4)."""

    label: Annotated[int, Field(ge=1, le=65535)]
    category: Code = MORPHOLOGICALLY_ABNORMAL_STRUCTURE
    type: Code
    description: Annotated[str, Field(max_length=64)] = ""
    recommended_display_rgb: tuple[int, int, int] = (255, 64, 64)


class BoxSpec(Part):
    """Which boxes of a detector belong to a finding.

    Attributes:
        label: the number that the detector gives them.
        minimum_size_mm: boxes of a volume whose longest edge is shorter are dropped.
    """

    label: Annotated[int, Field(ge=0)]
    minimum_size_mm: Annotated[float, Field(ge=0)] = 0.0


class MeasurementSpec(Part):
    """A number that the model gives, as a coded measurement.

    Attributes:
        name: the model's name of the number.
        concept: what is measured.
        unit: its unit, in UCUM.
        present_when: the range in which the finding is present, such as what is abnormal.
    """

    name: Annotated[str, Field(min_length=1)]
    concept: Code
    unit: Code
    present_when: Range

    @model_validator(mode="after")
    def _states_a_range(self) -> Self:
        if self.present_when.minimum is None and self.present_when.maximum is None:
            raise ValueError("present_when needs minimum or maximum; every value lies in it")
        return self


_SOURCES = ("segment", "channel", "box", "measurement")


class FindingSpec(Part):
    """One thing that the model looks for, and what it means when it is there.

    Exactly one of `segment`, `channel`, `box` and `measurement` says where it is read from.

    Attributes:
        key: name within the model.
        code: the finding.
        site: where in the body.
        segment: the label in a segmentation output.
        channel: the index in a classification output, from 0.
        box: the label in a detection output.
        measurement: a number in a measuring output.
        level: for a channel: what the model classified. "image" means each image of the series
            by itself; the finding has the greatest probability of them, and the best are its key
            images.
        labels: names in a labels table any of which makes an image positive, for evaluations;
            without them the name that equals `key`.
        threshold: confidence from which on the finding is present, and a box counts.
        minimum_volume_ml: for a segment: connected components smaller than this are dropped.
        priority: reading priority that a present finding asks for.
    """

    key: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    code: Code
    site: Code | None = None
    segment: SegmentSpec | None = None
    channel: Annotated[int, Field(ge=0)] | None = None
    box: BoxSpec | None = None
    measurement: MeasurementSpec | None = None
    level: Literal["study", "series", "image"] = "series"
    labels: tuple[str, ...] = ()
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    minimum_volume_ml: Annotated[float, Field(ge=0)] = 0.0
    priority: PriorityName = Priority.ROUTINE

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [source for source in _SOURCES if getattr(self, source) is not None]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of segment, channel, box and measurement "
                f"(found {', '.join(given) or 'none'})"
            )
        if self.level == "image" and self.channel is None:
            raise ValueError("level: image is for a channel; remove level")
        return self


ResultKind = Literal[
    "seg",
    "sr",
    "heat-map",
    "key-objects",
    "presentation-state",
    "parametric-map",
    "secondary-capture",
    "rtstruct",
    "pdf",
]
"""The kinds of result objects, in the order of their series numbers."""


class ResultSpec(Part):
    """Which objects a run leaves, by their kinds.

    "heat-map" and "secondary-capture" are Secondary Capture images, "key-objects" a Key Object
    Selection, "presentation-state" a softcopy presentation state, "pdf" an Encapsulated PDF.
    """

    objects: Annotated[tuple[ResultKind, ...], Field(min_length=1)] = ("sr",)
