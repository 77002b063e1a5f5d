"""`findings` and `results`: what a model's outputs mean, and the objects they become."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from triage.core.codes import MORPHOLOGICALLY_ABNORMAL_STRUCTURE, Code
from triage.core.manifest.parts import Part, PriorityName
from triage.core.priority import Priority


class SegmentSpec(Part):
    """How a label of a segmentation output is written as a segment of the SEG (PS3.3 C.8.20.4)."""

    label: Annotated[int, Field(ge=1, le=65535)]
    category: Code = MORPHOLOGICALLY_ABNORMAL_STRUCTURE
    type: Code
    description: Annotated[str, Field(max_length=64)] = ""
    recommended_display_rgb: tuple[int, int, int] = (255, 64, 64)


class FindingSpec(Part):
    """One thing that the model looks for, and what it means when it is there.

    Exactly one of `segment` and `channel` says where it is read from.

    Attributes:
        key: name within the model.
        code: the finding.
        site: where in the body.
        segment: the label in a segmentation output.
        channel: the index in a classification output, from 0.
        labels: names in a labels table any of which makes an image positive, for evaluations;
            without them the name that equals `key`.
        threshold: confidence from which on the finding is present.
        minimum_volume_ml: for a segment: connected components smaller than this are dropped.
        priority: reading priority that a present finding asks for.
    """

    key: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    code: Code
    site: Code | None = None
    segment: SegmentSpec | None = None
    channel: Annotated[int, Field(ge=0)] | None = None
    labels: tuple[str, ...] = ()
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    minimum_volume_ml: Annotated[float, Field(ge=0)] = 0.0
    priority: PriorityName = Priority.ROUTINE

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.segment is None) == (self.channel is None):
            raise ValueError("give exactly one of segment and channel")
        return self


ResultKind = Literal["seg", "sr", "heat-map"]


class ResultSpec(Part):
    """Which objects a run leaves: "seg", "sr", and "heat-map" as a Secondary Capture."""

    objects: Annotated[tuple[ResultKind, ...], Field(min_length=1)] = ("sr",)
