"""What every kind of runner offers."""

from __future__ import annotations

from typing import Protocol

from triage.models.tensors import ModelInput, ModelOutput


class Runner(Protocol):
    """A loaded model."""

    def run(self, model_input: ModelInput) -> ModelOutput:
        """Return what the model says about `model_input`, on its grid."""
        ...
