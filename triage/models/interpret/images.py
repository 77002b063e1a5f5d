"""Reading what a model says about a single image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triage.core.analysis import AnalysisFailedError
from triage.core.findings import Finding
from triage.core.manifest import FindingSpec, ModelManifest
from triage.models.interpret.boxes import read_boxes_of_image
from triage.models.interpret.measured import read_measurement
from triage.models.interpret.reading import Interpretation, check_finite, images_of
from triage.models.interpret.scores import read_channel
from triage.models.radiograph import Radiograph, heat_map_on_source
from triage.models.tensors import ModelOutput


def interpret_image(
    output: ModelOutput, radiograph: Radiograph, manifest: ModelManifest
) -> Interpretation:
    """Return the findings of a model of one image, and its heat maps on the image.

    Raises:
        AnalysisFailedError: the output is of the wrong shape, not finite, or impossible.
    """

    def read(spec: FindingSpec) -> Finding:
        if spec.box is not None:
            return read_boxes_of_image(spec, output, radiograph, manifest)
        if spec.measurement is not None:
            return read_measurement(spec, output, manifest)
        return read_channel(spec, output, images_of(radiograph), manifest)

    if output.probabilities is not None and output.probabilities.ndim != 1:
        raise AnalysisFailedError(
            f"{manifest.identity} gave probabilities of the shape {output.probabilities.shape} "
            "for one image; needed is one for each channel"
        )
    findings = tuple(read(spec) for spec in manifest.findings)
    return Interpretation(findings, heat_maps=_heat_maps(output, radiograph, manifest))


def _heat_maps(
    output: ModelOutput, radiograph: Radiograph, manifest: ModelManifest
) -> dict[str, NDArray[np.float32]]:
    heat_maps = output.heat_maps
    if heat_maps is None:
        return {}
    channels = {f.key: f.channel for f in manifest.findings if f.channel is not None}
    wanted = 1 + max(channels.values(), default=0)
    if heat_maps.ndim != 3 or len(heat_maps) < wanted:
        raise AnalysisFailedError(
            f"{manifest.identity} gave heat maps of the shape {heat_maps.shape}; its manifest "
            f"reads {wanted} channels"
        )
    check_finite(heat_maps, manifest)
    return {key: heat_map_on_source(heat_maps[c], radiograph) for key, c in channels.items()}
