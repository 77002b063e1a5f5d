"""From the files of a series to findings: the one function that flows and commands call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from triage.core.analysis import Analysis
from triage.core.characteristics import values_of
from triage.core.manifest import ImageInput, VolumeInput
from triage.models.host import ModelHosts
from triage.models.interpret import (
    Interpretation,
    check_tissue,
    interpret_image,
    interpret_volume,
)
from triage.models.packages import ModelPackage
from triage.models.radiograph import Radiograph, load_radiograph, model_input
from triage.models.sources import Source
from triage.models.tensors import ModelInput, ModelOutput
from triage.models.volume import EvenGrid, Volume, load_volume


async def analyse(
    hosts: ModelHosts, package: ModelPackage, source_files: Sequence[tuple[str, Path]]
) -> Analysis:
    """Decode the images, run the model in its warm host, and read its output as findings.

    Args:
        hosts: where models are warm.
        package: the model.
        source_files: SOP Instance UID and file of each instance of the series, in any order.

    The event loop is never blocked: files are decoded and outputs read in threads.

    Raises:
        InputRefusedError: the images are out of the model's scope; the message says why.
        AnalysisFailedError: the model could not be run, or said something impossible.
    """
    if isinstance(package.manifest.runner.input, VolumeInput):
        return await _analyse_volume(hosts, package, source_files)
    return await _analyse_image(hosts, package, source_files, package.manifest.runner.input)


async def _analyse_volume(
    hosts: ModelHosts, package: ModelPackage, source_files: Sequence[Source]
) -> Analysis:
    clock = _Stopwatch()
    volume = await asyncio.to_thread(_decode_volume, package, source_files)
    grid = None if volume.is_even else EvenGrid.of(volume)
    prepared = ModelInput(volume.values, volume.affine)
    if grid is not None:
        values = await asyncio.to_thread(grid.values, volume.values)
        prepared = ModelInput(values, grid.affine(volume))
    input_values = await asyncio.to_thread(values_of, prepared.values)
    clock.note("decode")
    output = await hosts.infer(package, prepared)
    clock.note("infer")
    read = await asyncio.to_thread(_read_volume, package, volume, grid, output)
    clock.note("interpret")
    return Analysis(
        findings=read.findings,
        source_files=tuple(i.path for i in volume.instances),
        source_sop_instance_uids=volume.sop_instance_uids,
        input_sha256=volume.input_sha256,
        segmentation=read.segmentation,
        timings_s=clock.seconds,
        remarks=volume.remarks,
        input_values=input_values,
    )


async def _analyse_image(
    hosts: ModelHosts, package: ModelPackage, source_files: Sequence[Source], wanted: ImageInput
) -> Analysis:
    clock = _Stopwatch()
    radiograph: Radiograph = await asyncio.to_thread(
        load_radiograph, source_files, package.manifest.accepts
    )
    values = await asyncio.to_thread(model_input, radiograph, wanted)
    clock.note("decode")
    output = await hosts.infer(package, ModelInput(values))
    clock.note("infer")
    read = await asyncio.to_thread(interpret_image, output, radiograph, package.manifest)
    clock.note("interpret")
    return Analysis(
        findings=read.findings,
        source_files=(radiograph.instance.path,),
        source_sop_instance_uids=(radiograph.instance.sop_instance_uid,),
        input_sha256=radiograph.input_sha256,
        heat_maps=read.heat_maps,
        timings_s=clock.seconds,
        remarks=radiograph.remarks,
        input_values=values_of(values),
    )


def _decode_volume(package: ModelPackage, source_files: Sequence[Source]) -> Volume:
    volume = load_volume(source_files)
    wanted = package.manifest.runner.input
    assert isinstance(wanted, VolumeInput), "only models of volumes come here"
    check_tissue(volume, wanted.must_show)
    return volume


def _read_volume(
    package: ModelPackage, volume: Volume, grid: EvenGrid | None, output: ModelOutput
) -> Interpretation:
    if grid is not None:
        output = _on_source(output, grid)
    return interpret_volume(output, volume, package.manifest)


def _on_source(output: ModelOutput, grid: EvenGrid) -> ModelOutput:
    slices = len(grid.positions_mm)
    labels, probabilities = output.labels, output.probabilities
    if labels is not None and labels.ndim == 3 and len(labels) == slices:
        labels = grid.labels_on_source(labels)
    if probabilities is not None and probabilities.ndim == 4 and probabilities.shape[1] == slices:
        probabilities = grid.probabilities_on_source(probabilities)
    return ModelOutput(labels=labels, probabilities=probabilities)


class _Stopwatch:
    """Seconds between the notes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def note(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = round(now - self._last, 4)
        self._last = now
