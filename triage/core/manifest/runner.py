"""`runner`: how a model is run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from triage.core.manifest.parts import Part
from triage.core.manifest.tensors import ImageInput, VolumeInput


class RunnerSpec(Part):
    """How the model is run.

    Attributes:
        kind: "monai-bundle" runs `configs/inference.json` of the package; "torch-export" runs a
            program saved with `torch.export.save`.
        weights: path of the weights inside the package.
        weights_sha256: digest of that file; a package whose weights differ is refused.
        time_limit_s: a run that takes longer is stopped and stated as failed.
        input: what the runner is given.
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

    kind: Literal["monai-bundle", "torch-export"]
    weights: str
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
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

    @field_validator("weights")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = path.replace("\\", "/").split("/")
        if path.startswith(("/", "\\")) or ".." in parts or ":" in path:
            raise ValueError("must be a path inside the package")
        return path
