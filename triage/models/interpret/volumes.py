"""Reading what a model says about a volume."""

from __future__ import annotations

from triage.core.findings import Finding
from triage.core.manifest import FindingSpec, ModelManifest
from triage.models.interpret.boxes import read_boxes_of_volume
from triage.models.interpret.measured import read_measurement
from triage.models.interpret.reading import Interpretation, images_of
from triage.models.interpret.scores import read_channel
from triage.models.interpret.segments import Segments
from triage.models.tensors import ModelOutput
from triage.models.volume import Volume


def interpret_volume(
    output: ModelOutput,
    volume: Volume,
    manifest: ModelManifest,
    *,
    keep_probabilities: bool = False,
) -> Interpretation:
    """Return the findings of a model of volumes; `output` is on the slices of `volume`.

    Each finding is read from the output that its part of the manifest names; a model may give
    several kinds at once. The probabilities of its segments, an array of floats as large as the
    volume for each, outlive the output only with `keep_probabilities`.

    Raises:
        AnalysisFailedError: the output is of the wrong shape, not finite, or impossible.
    """
    segments = Segments(output, volume, manifest, keep_probabilities=keep_probabilities)

    def read(spec: FindingSpec, number: int) -> Finding:
        if spec.segment is not None:
            return segments.read(spec, number)
        if spec.box is not None:
            return read_boxes_of_volume(spec, output, volume, manifest)
        if spec.measurement is not None:
            return read_measurement(spec, output, manifest)
        return read_channel(spec, output, images_of(volume), manifest)

    findings = tuple(read(spec, n) for n, spec in enumerate(manifest.findings, start=1))
    return Interpretation(findings, segments.outlined, probabilities=segments.probabilities)
