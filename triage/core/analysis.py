"""What an inference leaves: findings, and the arrays that their pictures are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triage.core.errors import TriageError
from triage.core.findings import Finding


class InputRefusedError(TriageError):
    """The images are not what the model may be used on; the message is the stated reason.

    No retry can help: the run ends as "not analysed, because …".
    """


class AnalysisFailedError(TriageError):
    """The model could not be run, or said something impossible; the message says what.

    Another attempt may help (a crashed host, a full memory), so the run is tried again.
    """


class NotTheModelsFaultError(AnalysisFailedError):
    """The analysis failed, and not by its model: it does not count against it."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """The outcome of one model on one series.

    Attributes:
        findings: one for each finding of the manifest, present or absent.
        source_files: the image files, in the order of the first axis of `segmentation`; one
            multi-frame image where `source_frames` says which of its frames.
        source_sop_instance_uids: their SOP Instance UIDs, in the same order.
        input_sha256: digest of what went in (the SOP Instance UIDs and file digests in order).
        segmentation: labels on the source voxels, uint8 of shape (slices, rows, columns), where
            the value is `FindingSpec.segment.label`; None for models that do not segment.
        heat_maps: for each finding key a float32 array of shape (rows, columns) from 0 to 1 on
            the source pixels; empty for models that draw none.
        probabilities: for the key of each present finding with a segment a float32 array of the
            shape of `segmentation`, the model's probability on the source voxels, 0 in components
            that were dropped; empty unless it was asked for, and for models that give labels.
        source_frames: the frames of a multi-frame image that were analysed, as Referenced Frame
            Number counts them from 1, in the order of the first axis of `segmentation`.
        timings_s: seconds for each step: "decode", "infer", "interpret".
        remarks: what a reader should know of the input, such as a tilted gantry, slices at
            uneven distances, or images that were left out.
        further_files: the image files of the further inputs (a second sequence, a prior), by the
            name of the input.
        input_values: mean and percentiles of the array that the model was given, see
            `triage.core.input_characteristics.values_of`.
    """

    findings: tuple[Finding, ...]
    source_files: tuple[Path, ...]
    source_sop_instance_uids: tuple[str, ...]
    input_sha256: str
    segmentation: NDArray[np.uint8] | None = None
    heat_maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    probabilities: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    timings_s: Mapping[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    source_frames: tuple[int, ...] = ()
    input_values: Mapping[str, float] = field(default_factory=dict)
    further_files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
