"""`model.yaml`: what a model package says of itself.

The manifest is all that the rest of Triage knows about a model: what it accepts, how it is run,
what its outputs mean as coded findings and how urgent each finding is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from triage.core.codes import HEMORRHAGE_MORPHOLOGY, MORPHOLOGICALLY_ABNORMAL_STRUCTURE, Code
from triage.core.errors import TriageError
from triage.core.priority import Priority

__all__ = [
    "HEMORRHAGE_MORPHOLOGY",
    "MORPHOLOGICALLY_ABNORMAL_STRUCTURE",
    "FindingSpec",
    "ImageInput",
    "InputSpec",
    "ManifestError",
    "ModelManifest",
    "ResultSpec",
    "RunnerSpec",
    "SegmentSpec",
    "TissueGate",
    "VolumeInput",
    "parse_manifest",
]


class ManifestError(TriageError):
    """A manifest is invalid; the message names each key and what it should be."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _parse_priority(value: Any) -> Any:
    return Priority.parse(value) if isinstance(value, str) else value


PriorityName = Annotated[
    Priority,
    BeforeValidator(_parse_priority),
    PlainSerializer(lambda p: Priority(p).name.lower(), return_type=str),
]


class Range(_Part):
    """A closed range; an end that is not given is open."""

    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is greater than maximum")
        return self

    def holds(self, value: float) -> bool:
        """Return whether `value` lies in the range, its ends included."""
        return (self.minimum is None or value >= self.minimum) and (
            self.maximum is None or value <= self.maximum
        )


class InputSpec(_Part):
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


class TissueGate(_Part):
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


class VolumeInput(_Part):
    """The runner gets a volume (slices, rows, columns) of rescaled values, for CT in HU.

    Attributes:
        must_show: tissues without which the volume is refused.
    """

    kind: Literal["volume"] = "volume"
    must_show: tuple[TissueGate, ...] = ()


class ImageInput(_Part):
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


class RunnerSpec(_Part):
    """How the model is run.

    Attributes:
        kind: "monai-bundle" runs `configs/inference.json` of the package; "torch-export" runs a
            program saved with `torch.export.save`.
        weights: path of the weights inside the package.
        weights_sha256: digest of that file; a package whose weights differ is refused.
        time_limit_s: a run that takes longer is stopped and stated as failed.
        input: what the runner is given.
    """

    kind: Literal["monai-bundle", "torch-export"]
    weights: str
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    time_limit_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    input: Annotated[VolumeInput | ImageInput, Field(discriminator="kind")]

    @field_validator("weights")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = path.replace("\\", "/").split("/")
        if path.startswith(("/", "\\")) or ".." in parts or ":" in path:
            raise ValueError("must be a path inside the package")
        return path


class SegmentSpec(_Part):
    """How a label of a segmentation output is written as a segment of the SEG (PS3.3 C.8.20.4)."""

    label: Annotated[int, Field(ge=1, le=65535)]
    category: Code = MORPHOLOGICALLY_ABNORMAL_STRUCTURE
    type: Code
    description: Annotated[str, Field(max_length=64)] = ""
    recommended_display_rgb: tuple[int, int, int] = (255, 64, 64)


class FindingSpec(_Part):
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


class ResultSpec(_Part):
    """Which objects a run leaves: "seg", "sr", and "heat-map" as a Secondary Capture."""

    objects: Annotated[tuple[ResultKind, ...], Field(min_length=1)] = ("sr",)


class ModelManifest(_Part):
    """The whole of `model.yaml`."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    title: Annotated[str, Field(min_length=1, max_length=120)]
    intended_use: Annotated[str, Field(min_length=1)]
    notice: str = ""
    licence: str
    contact: str = ""
    accepts: InputSpec
    runner: RunnerSpec
    findings: Annotated[tuple[FindingSpec, ...], Field(min_length=1)]
    results: ResultSpec = ResultSpec()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _require_unique("findings.key", [f.key for f in self.findings])
        labels = [f.segment.label for f in self.findings if f.segment is not None]
        _require_unique("findings.segment.label", labels)
        if "seg" in self.results.objects and not labels:
            raise ValueError("results.objects asks for seg, but no finding has a segment")
        return self

    @property
    def identity(self) -> str:
        """Name and version as people say them: "head-ct-hemorrhage 1.0.0"."""
        return f"{self.name} {self.version}"


def _require_unique(key: str, values: Sequence[object]) -> None:
    repeated = {value for value in values if values.count(value) > 1}
    if repeated:
        raise ValueError(
            f"{key} must differ; repeated: {', '.join(map(str, sorted(map(str, repeated))))}"
        )


def parse_manifest(content: Any, *, source: str) -> ModelManifest:
    """Return the manifest that `content`, a mapping read from `source`, describes.

    Raises:
        ManifestError: one line for each key that is wrong, with the fix.
    """
    if not isinstance(content, dict):
        raise ManifestError(f"{source}: expected a mapping of keys, found {type(content).__name__}")
    try:
        return ModelManifest.model_validate(content)
    except ValidationError as error:
        lines = [
            f"{source}: {'.'.join(map(str, e['loc'])) or 'manifest'}: {_advice(e)}"
            for e in error.errors()
        ]
        raise ManifestError("\n".join(lines)) from None


def _advice(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return "this key is unknown; remove it or correct its spelling"
    if error["type"] == "missing":
        return "this key is required; add it"
    return f"{message} (found {error['input']!r})" if error["type"] != "value_error" else message
