"""From the files of a series to findings: the one function that flows and commands call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from triage.core.analysis import Analysis
from triage.core.input_characteristics import values_of
from triage.core.manifest import ImageInput, VolumeInput
from triage.core.progress import RunStep, run_progress
from triage.models.further_inputs import (
    OtherSources,
    load_further_images,
    load_further_volumes,
)
from triage.models.grids import Prepared, prepare
from triage.models.host import ModelHosts
from triage.models.interpret import (
    Interpretation,
    check_tissue,
    interpret_image,
    interpret_volume,
)
from triage.models.packages import ModelPackage
from triage.models.radiograph import Radiograph, load_radiograph, model_input
from triage.models.scope import check_scope
from triage.models.sources import Reader, Source, read_instance
from triage.models.tensors import ModelInput, ModelOutput
from triage.models.volume import Volume, load_volume


async def analyse(
    hosts: ModelHosts,
    package: ModelPackage,
    source_files: Sequence[tuple[str, Path]],
    others: Mapping[str, Sequence[tuple[str, Path]]] | None = None,
    read_with: Reader = read_instance,
    *,
    keep_probabilities: bool = False,
) -> Analysis:
    """Decode the images, run the model in its warm host, and read its output as findings.

    Args:
        hosts: where models are warm.
        package: the model.
        source_files: SOP Instance UID and file of each instance of the series, in any order; of
            the first series, where the model takes several.
        others: the same of the further ones, by the name of the input.
        read_with: how an instance comes into memory, such as `DecodedAhead.read`.
        keep_probabilities: whether `Analysis.probabilities` is wanted.

    The event loop is never blocked: files are decoded and outputs read in threads.

    Raises:
        InputRefusedError: the images are out of the model's scope; the message says why.
        AnalysisFailedError: the model could not be run, or said something impossible.
    """
    sources = _Sources(source_files, others or {}, read_with)
    if isinstance(package.manifest.runner.input, VolumeInput):
        analysis = await _analyse_volume(hosts, package, sources, keep_probabilities)
    else:
        analysis = await _analyse_image(hosts, package, sources)
    further = {name: tuple(path for _, path in files) for name, files in sources.others.items()}
    return replace(analysis, further_files=further)


@dataclass(frozen=True, slots=True)
class _Sources:
    first: Sequence[Source]
    others: OtherSources
    read_with: Reader


async def _analyse_volume(
    hosts: ModelHosts, package: ModelPackage, sources: _Sources, keep_probabilities: bool
) -> Analysis:
    clock = _Stopwatch()
    volume, prepared = await asyncio.to_thread(_decode_volume, package, sources)
    further = await asyncio.to_thread(
        load_further_volumes,
        package.manifest,
        sources.others,
        volume,
        prepared.model_input,
        sources.read_with,
    )
    input_values = await asyncio.to_thread(values_of, prepared.model_input.values)
    clock.note("decode")
    output = await hosts.infer(package, replace(prepared.model_input, others=further.images))
    clock.note("infer")
    read = await asyncio.to_thread(
        _read_volume, package, volume, prepared, output, keep_probabilities
    )
    clock.note("interpret")
    return Analysis(
        findings=read.findings,
        source_files=tuple(i.path for i in volume.instances),
        source_sop_instance_uids=tuple(i.sop_instance_uid for i in volume.instances),
        source_frames=volume.frame_numbers,
        input_sha256=further.input_sha256(volume.input_sha256),
        segmentation=read.segmentation,
        probabilities=read.probabilities,
        timings_s=clock.seconds,
        remarks=volume.remarks + further.remarks,
        input_values=input_values,
    )


async def _analyse_image(hosts: ModelHosts, package: ModelPackage, sources: _Sources) -> Analysis:
    clock = _Stopwatch()
    wanted = package.manifest.runner.input
    assert isinstance(wanted, ImageInput), "only models of single images come here"
    radiograph: Radiograph = await asyncio.to_thread(
        load_radiograph, sources.first, package.manifest.accepts, wanted, sources.read_with
    )
    values = await asyncio.to_thread(model_input, radiograph, wanted)
    further = await asyncio.to_thread(
        load_further_images, package.manifest, sources.others, wanted, sources.read_with
    )
    clock.note("decode")
    output = await hosts.infer(package, ModelInput(values, others=further.images))
    clock.note("infer")
    read = await asyncio.to_thread(interpret_image, output, radiograph, package.manifest)
    clock.note("interpret")
    return Analysis(
        findings=read.findings,
        source_files=(radiograph.instance.path,),
        source_sop_instance_uids=(radiograph.instance.sop_instance_uid,),
        source_frames=radiograph.frame_numbers,
        input_sha256=further.input_sha256(radiograph.input_sha256),
        heat_maps=read.heat_maps,
        timings_s=clock.seconds,
        remarks=radiograph.remarks + further.remarks,
        input_values=values_of(values),
    )


def _decode_volume(package: ModelPackage, sources: _Sources) -> tuple[Volume, Prepared]:
    wanted = package.manifest.runner.input
    assert isinstance(wanted, VolumeInput), "only models of volumes come here"
    volume = load_volume(sources.first, wanted, sources.read_with)
    check_scope(volume, package.manifest.accepts)
    check_tissue(volume, wanted.must_show)
    return volume, prepare(volume, wanted)


def _read_volume(
    package: ModelPackage,
    volume: Volume,
    prepared: Prepared,
    output: ModelOutput,
    keep_probabilities: bool,
) -> Interpretation:
    on_source = prepared.on_source(output)
    return interpret_volume(
        on_source, volume, package.manifest, keep_probabilities=keep_probabilities
    )


_AFTER = {
    "decode": RunStep.INFER,
    "infer": RunStep.INTERPRET,
    "interpret": RunStep.FLAG,
}


class _Stopwatch:
    """Seconds between the notes, each of which begins the next step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()
        self._progress = run_progress.get()

    def note(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = round(now - self._last, 4)
        self._last = now
        self._progress.step = _AFTER[step]
