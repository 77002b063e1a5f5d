"""Reading numbers that a model measures."""

from __future__ import annotations

import math

from triage.core.analysis import AnalysisFailedError
from triage.core.findings import Finding, Measurement
from triage.core.manifest import FindingSpec, ModelManifest
from triage.models.interpret.reading import finding_of
from triage.models.tensors import ModelOutput


def read_measurement(spec: FindingSpec, output: ModelOutput, manifest: ModelManifest) -> Finding:
    """Return the finding of a measurement: present if its value lies in the manifest's range.

    The value is reported whether the finding is present or not. A range is no probability, so
    the confidence is 1 or 0.

    Raises:
        AnalysisFailedError: the model did not give it, or it is not a finite number.
    """
    wanted = spec.measurement
    assert wanted is not None, "findings with a measurement come here"
    if wanted.name not in output.measurements:
        raise AnalysisFailedError(
            f"{manifest.identity} gave the measurements "
            f"{', '.join(output.measurements) or 'none'}; its manifest reads {spec.key} from "
            f"{wanted.name}"
        )
    value = output.measurements[wanted.name]
    if not math.isfinite(value):
        raise AnalysisFailedError(
            f"{manifest.identity} gave {value} for {wanted.name}, which is not a finite number"
        )
    present = wanted.present_when.holds(value)
    measured = Measurement(concept=wanted.concept, value=value, unit=wanted.unit)
    return finding_of(spec, present, float(present), measurements=(measured,))
