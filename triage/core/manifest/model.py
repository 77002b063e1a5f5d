"""The whole of `model.yaml`, and how mistakes in it are answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from triage.core.errors import TriageError
from triage.core.manifest.findings import FindingSpec, ResultSpec
from triage.core.manifest.inputs import InputSpec, NamedInput
from triage.core.manifest.parts import Part
from triage.core.manifest.runner import NETWORKS, RunnerSpec
from triage.core.manifest.tensors import ImageInput, VolumeInput

ONLY_INPUT = "image"
"""The name of the only input of a model whose manifest has `accepts`."""


class ManifestError(TriageError):
    """A manifest is invalid; the message names each key and what it should be."""


class ModelManifest(Part):
    """The whole of `model.yaml`.

    `accepts` is the short form of `inputs` with one input named "image".
    """

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    title: Annotated[str, Field(min_length=1, max_length=120)]
    intended_use: Annotated[str, Field(min_length=1)]
    notice: str = ""
    licence: str
    contact: str = ""
    inputs: Annotated[tuple[NamedInput, ...], Field(min_length=1, max_length=8)]
    runner: RunnerSpec
    findings: Annotated[tuple[FindingSpec, ...], Field(min_length=1)]
    results: ResultSpec = ResultSpec()

    @model_validator(mode="before")
    @classmethod
    def _inputs_from_short_form(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "accepts" not in content:
            return content
        if "inputs" in content:
            raise ValueError("give either accepts or inputs, not both")
        others = {key: value for key, value in content.items() if key != "accepts"}
        return others | {"inputs": [{"name": ONLY_INPUT, "accepts": content["accepts"]}]}

    @model_validator(mode="after")
    def _consistent_inputs(self) -> Self:
        _require_unique("inputs.name", [one.name for one in self.inputs])
        first, *others = self.inputs
        if first.source != "study" or first.optional or first.align:
            raise ValueError("the first of inputs must be from the study, not optional nor aligned")
        if first.same_frame_of_reference:
            raise ValueError("same_frame_of_reference belongs to the inputs that follow the first")
        if any(one.align for one in others) and not isinstance(self.runner.input, VolumeInput):
            raise ValueError("inputs.align is for volumes; runner.input.kind is not volume")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _require_unique("findings.key", [f.key for f in self.findings])
        labels = [f.segment.label for f in self.findings if f.segment is not None]
        _require_unique("findings.segment.label", labels)
        self._require_makeable_objects(has_segment=bool(labels))
        for spec in self.findings:
            self._require_outputs(spec)
        return self

    def _require_makeable_objects(self, *, has_segment: bool) -> None:
        """Refuse objects that no finding can fill: only outlines and heat maps become pixels."""
        may_have_heat_map = isinstance(self.runner.input, ImageInput) and any(
            spec.channel is not None for spec in self.findings
        )
        for kind in self.results.objects:
            if kind == "rtstruct" and not has_segment:
                raise ValueError("results.objects asks for rtstruct, but no finding has a segment")
            if kind in ("seg", "parametric-map") and not (has_segment or may_have_heat_map):
                raise ValueError(
                    f"results.objects asks for {kind}, but no finding has a segment, nor a "
                    "channel of a single image, which may have a heat map"
                )

    def _require_outputs(self, spec: FindingSpec) -> None:
        """Refuse a network whose manifest does not name the output that `spec` is read from."""
        if self.runner.kind not in NETWORKS:
            return
        wanted: tuple[str, ...] = ()
        if spec.box is not None:
            wanted = ("boxes", "box_labels", "box_scores")
        elif spec.measurement is not None:
            wanted = ("measurements",)
        elif spec.level == "image" and not self.runner.preprocessing.each_slice:
            wanted = ("image_probabilities",)
        missing = [name for name in wanted if name not in self.runner.outputs]
        if missing:
            raise ValueError(
                f"finding {spec.key} is read from {', '.join(missing)}; name what the network "
                "gives, in order, in runner.outputs"
            )
        names = self.runner.measurement_names
        if spec.measurement is not None and spec.measurement.name not in names:
            raise ValueError(
                f"finding {spec.key} is read from {spec.measurement.name}, which is not in "
                f"runner.measurement_names ({', '.join(names)})"
            )

    @property
    def accepts(self) -> InputSpec:
        """What the first input accepts, the one that findings and results are about."""
        return self.inputs[0].accepts

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
        is_short = "accepts" in content
        lines = [f"{source}: {_key(e['loc'], is_short)}: {_advice(e)}" for e in error.errors()]
        raise ManifestError("\n".join(lines)) from None


def _key(location: Sequence[int | str], is_short: bool) -> str:
    if is_short and tuple(location[:2]) == ("inputs", 0):
        location = location[2:]
    return ".".join(map(str, location)) or "manifest"


def _advice(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return "this key is unknown; remove it or correct its spelling"
    if error["type"] == "missing" and error["loc"] == ("inputs",):
        return "add accepts, or inputs for a model that takes several series"
    if error["type"] == "missing":
        return "this key is required; add it"
    return f"{message} (found {error['input']!r})" if error["type"] != "value_error" else message
