"""The samples of a package as its runner gets them: what a model's answers are compared on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from triage.core.analysis import InputRefusedError
from triage.core.manifest import ImageInput
from triage.models.grids import prepare
from triage.models.packages import ModelPackage
from triage.models.radiograph import load_radiograph, model_input
from triage.models.sources import Source
from triage.models.tensors import ModelInput
from triage.models.volume import load_volume


def sample_inputs(package: ModelPackage) -> Iterator[ModelInput]:
    """Yield the input of each folder below `samples/` that the package can be run on."""
    by_folder: dict[Path, list[Source]] = defaultdict(list)
    for path in sorted((package.path / "samples").rglob("*.dcm")):
        try:
            dataset = dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
        except (InvalidDicomError, OSError):
            continue
        by_folder[path.parent].append((str(dataset.SOPInstanceUID), path))
    for sources in by_folder.values():
        try:
            yield _input_of(package, sources)
        except InputRefusedError:
            continue


def _input_of(package: ModelPackage, sources: list[Source]) -> ModelInput:
    wanted = package.manifest.runner.input
    if isinstance(wanted, ImageInput):
        radiograph = load_radiograph(sources, package.manifest.accepts, wanted)
        return ModelInput(model_input(radiograph, wanted))
    return prepare(load_volume(sources, wanted), wanted).model_input
