"""How a package's model is run: one module for each kind. Only hosts import this."""

from __future__ import annotations

import torch

from triage.models.acceleration import PLAIN, Acceleration
from triage.models.packages import ModelPackage
from triage.models.runners.runner import Runner

__all__ = ["Runner", "load_runner"]


def load_runner(package: ModelPackage, device: str, acceleration: Acceleration = PLAIN) -> Runner:
    """Load the model of `package` onto `device`: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        RunnerError: the package's configuration, code or weights do not fit together.
    """
    chosen = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    )
    # Each kind is imported where it is needed: MONAI takes seconds, and so does ONNX Runtime.
    match package.manifest.runner.kind:
        case "monai-bundle":
            from triage.models.runners.monai_bundle import MonaiBundleRunner  # noqa: PLC0415

            return MonaiBundleRunner(package, chosen, acceleration)
        case "python":
            from triage.models.runners.python_class import PythonRunner  # noqa: PLC0415

            return PythonRunner(package, chosen)
        case _:
            return _network_runner(package, chosen, acceleration)


def _network_runner(
    package: ModelPackage, device: torch.device, acceleration: Acceleration
) -> Runner:
    from triage.models.runners.network import NetworkRunner  # noqa: PLC0415
    from triage.models.runners.programs import load_program  # noqa: PLC0415

    return NetworkRunner(
        package.manifest.runner, load_program(package, device, acceleration), device
    )
