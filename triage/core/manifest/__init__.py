"""`model.yaml`: what a model package says of itself.

The manifest is all that the rest of Triage knows about a model: what it accepts, how it is run,
what its outputs mean as coded findings and how urgent each finding is.
"""

from triage.core.manifest.findings import (
    BoxSpec,
    FindingSpec,
    MeasurementSpec,
    ResultKind,
    ResultSpec,
    SegmentSpec,
)
from triage.core.manifest.inputs import InputSpec, NamedInput, Preference
from triage.core.manifest.model import ONLY_INPUT, ManifestError, ModelManifest, parse_manifest
from triage.core.manifest.parts import PriorityName, Range
from triage.core.manifest.preprocessing import Preprocessing, SlidingWindow
from triage.core.manifest.runner import RunnerSpec
from triage.core.manifest.tensors import ImageInput, TissueGate, VolumeInput

__all__ = [
    "ONLY_INPUT",
    "BoxSpec",
    "FindingSpec",
    "ImageInput",
    "InputSpec",
    "ManifestError",
    "MeasurementSpec",
    "ModelManifest",
    "NamedInput",
    "Preference",
    "Preprocessing",
    "PriorityName",
    "Range",
    "ResultKind",
    "ResultSpec",
    "RunnerSpec",
    "SegmentSpec",
    "SlidingWindow",
    "TissueGate",
    "VolumeInput",
    "parse_manifest",
]
