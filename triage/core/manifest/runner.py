"""`runner`: how a model is run."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from triage.core.manifest.parts import Part
from triage.core.manifest.preprocessing import Preprocessing
from triage.core.manifest.tensors import ImageInput, VolumeInput

RunnerKind = Literal["monai-bundle", "torch-export", "torchscript", "onnx", "python"]
OutputName = Literal[
    "probabilities",
    "labels",
    "heat_maps",
    "image_probabilities",
    "boxes",
    "box_labels",
    "box_scores",
    "measurements",
]

NETWORKS = ("torch-export", "torchscript", "onnx")
_ENTRY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "config": ("monai-bundle",),
    "overrides": ("monai-bundle",),
    "entry": ("python",),
    "entry_point": ("python",),
    "preprocessing": NETWORKS,
    "outputs": NETWORKS,
    "activation": NETWORKS,
    "measurement_names": NETWORKS,
}


class RunnerSpec(Part):
    """How the model is run.

    Attributes:
        kind: "monai-bundle" runs a bundle as the MONAI Model Zoo publishes it; "torch-export" a
            program saved with `torch.export.save`; "torchscript" one saved with
            `torch.jit.save`; "onnx" an ONNX model; "python" a class of the package or of an
            installed one.
        weights: path of the weights inside the package; a Python model may have none.
        weights_sha256: digest of that file; a package whose weights differ is refused.
        time_limit_s: a run that takes longer is stopped and stated as failed.
        input: what the runner is given.
        config: for a bundle: path of its inference configuration; without it
            `configs/inference.json`, `.yaml` or `.yml`.
        overrides: for a bundle: values of its configuration that are replaced, by their MONAI
            path such as "inferer#roi_size", as `monai.bundle run` takes them.
        entry: for Python: "MODULE:CLASS", the module being a file of the package.
        entry_point: for Python: name in the entry point group `triage.models` of an installed
            package.
        preprocessing: for a network: how its tensor is made.
        outputs: for a network: what its outputs are, in order; "probabilities" and then
            "heat_maps" unless said otherwise.
        activation: for a network: what turns its probabilities' logits into probabilities.
        measurement_names: for a network with the output "measurements": the name of each number.
        precision: of the network's arithmetic; the answer is float32.
        channels_last: the memory layout; "auto" is true for volumes.
        compile: whether the network goes through `torch.compile` when it is loaded.
        tolerance: by how much an answer to the package's samples may differ from plain float32
            (a probability by its value, labels by the share of voxels). What makes a greater
            difference is not used.
        window_batch: how many windows or slices of a sliding-window or slice inferer go through
            the network at once; without it the bundle's own number. It is halved when the
            device's memory is full.
        cpu_fallback: whether a run for which the device's memory is too small is done on the CPU.
        keep_warm: whether the model stays loaded when memory is short.
        recycle_after_runs: after so many runs the model's process is started anew.
    """

    kind: RunnerKind
    weights: str = ""
    weights_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    time_limit_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool | Literal["auto"] = "auto"
    compile: bool = False
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.01
    window_batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    cpu_fallback: bool = False
    keep_warm: bool = False
    recycle_after_runs: Annotated[int, Field(ge=1)] = 1000
    input: Annotated[VolumeInput | ImageInput, Field(discriminator="kind")]
    config: str = ""
    overrides: dict[str, Any] = Field(default_factory=dict)
    entry: str = ""
    entry_point: str = ""
    preprocessing: Preprocessing = Preprocessing()
    outputs: tuple[OutputName, ...] = ()
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    measurement_names: tuple[str, ...] = ()

    @field_validator("weights", "config")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = path.replace("\\", "/").split("/")
        if path.startswith(("/", "\\")) or ".." in parts or ":" in path:
            raise ValueError("must be a path inside the package")
        return path

    @field_validator("entry")
    @classmethod
    def _names_a_class(cls, entry: str) -> str:
        if entry and not _ENTRY.fullmatch(entry):
            raise ValueError(f"must be MODULE:CLASS, such as predictor:Predictor (found {entry!r})")
        return entry

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        for key, kinds in _ONLY_FOR.items():
            default = type(self).model_fields[key].get_default(call_default_factory=True)
            if getattr(self, key) != default and self.kind not in kinds:
                raise ValueError(
                    f"{key} is for the kind {' or '.join(kinds)}; remove it, or change kind "
                    f"(found {self.kind})"
                )
        self._check_weights()
        if self.kind == "python" and bool(self.entry) == bool(self.entry_point):
            raise ValueError(
                "a python runner needs exactly one of entry (MODULE:CLASS in the package) and "
                "entry_point (name in the group triage.models)"
            )
        if self.preprocessing.is_spatial and not isinstance(self.input, VolumeInput):
            raise ValueError(
                "preprocessing: orientation, spacing_mm, sliding_window and each_slice are for "
                "volumes; remove them, or use input.kind volume"
            )
        if ("measurements" in self.outputs) != bool(self.measurement_names):
            raise ValueError(
                "measurement_names and the output measurements go together; give both or none"
            )
        return self

    def _check_weights(self) -> None:
        if bool(self.weights) != bool(self.weights_sha256):
            raise ValueError("weights and weights_sha256 go together; give both")
        if not self.weights and self.kind != "python":
            raise ValueError(f"weights is required for the kind {self.kind}; add it")
