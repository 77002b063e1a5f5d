"""Running a class that the package, or an installed one, brings along."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import torch

from triage.models.packages import ModelPackage
from triage.models.predictions import RunnerError
from triage.models.tensors import ModelInput, ModelOutput

ENTRY_POINT_GROUP = "triage.models"


class PythonModel(Protocol):
    """What a Python model has to offer. It is made without arguments, once in each host."""

    def load(self, folder: Path, device: str) -> None:
        """Get ready: read weights from the package's `folder`, onto `device` ("cpu", "cuda:0")."""
        ...

    def predict(self, model_input: ModelInput) -> ModelOutput:
        """Return what the model says, on the grid of its input. What it raises fails the run."""
        ...


class PythonRunner:
    """A Python model in its host process. It is code: to register a package is to trust it."""

    def __init__(self, package: ModelPackage, device: torch.device) -> None:
        spec = package.manifest.runner
        found = (
            _of_entry_point(spec.entry_point)
            if spec.entry_point
            else _of_package(package.path, spec.entry)
        )
        self._name = spec.entry_point or spec.entry
        self._model: PythonModel = found()
        for method in ("load", "predict"):
            if not callable(getattr(self._model, method, None)):
                raise RunnerError(
                    f"{self._name} has no method {method}; a Python model has load(folder, device) "
                    "and predict(model_input)"
                )
        self._model.load(package.path, str(device))

    @torch.inference_mode()
    def run(self, model_input: ModelInput) -> ModelOutput:
        """Return what the model says.

        Raises:
            RunnerError: it is no ModelOutput.
        """
        output = self._model.predict(model_input)
        if not isinstance(output, ModelOutput):
            raise RunnerError(
                f"{self._name}.predict gave {type(output).__name__}; return a "
                "triage.models.tensors.ModelOutput"
            )
        return output


def _of_entry_point(name: str) -> Any:
    known = entry_points(group=ENTRY_POINT_GROUP)
    if name not in known.names:
        raise RunnerError(
            f"runner.entry_point: no installed package has {name} in the group "
            f"{ENTRY_POINT_GROUP}; install it here, or use one of: "
            f"{', '.join(sorted(known.names)) or 'none'}"
        )
    return known[name].load()


def _of_package(folder: Path, entry: str) -> Any:
    module_name, _, class_name = entry.partition(":")
    # First, so that a module of the package may import the ones beside it, and no other of that
    # name is taken.
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise RunnerError(f"runner.entry: {entry}: {error}; is the file in the package?") from error
    if not Path(str(module.__file__)).is_relative_to(folder):
        raise RunnerError(
            f"runner.entry: {module_name} is the name of another module, {module.__file__}; "
            "rename the package's file"
        )
    try:
        return getattr(module, class_name)
    except AttributeError:
        raise RunnerError(
            f"runner.entry: {module_name} has no {class_name}; correct the name after the colon"
        ) from None
