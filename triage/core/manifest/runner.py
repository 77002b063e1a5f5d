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
