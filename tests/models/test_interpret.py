"""What a model says becomes findings by the manifest's rules, or nothing at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.tiny import axial_series, head_with_lesion, write_all
from triage.core.analysis import AnalysisFailedError, InputRefusedError
from triage.core.manifest import ModelManifest, Range, TissueGate, parse_manifest
from triage.core.priority import Priority
from triage.models.interpret import check_tissue, interpret_volume
from triage.models.tensors import ModelOutput
from triage.models.volume import Volume, load_volume

CODE = {"value": "50960005", "scheme": "SCT", "meaning": "Hemorrhage"}
VOXEL_ML = 0.5 * 0.5 * 5 / 1000


def manifest(*findings: dict[str, Any]) -> ModelManifest:
    content = {
        "name": "tiny",
        "version": "1.0.0",
        "title": "Tiny",
        "intended_use": "Tests.",
        "licence": "Apache-2.0",
        "accepts": {"modalities": ["CT"]},
        "runner": {
            "kind": "monai-bundle",
            "weights": "w",
            "weights_sha256": "0" * 64,
            "input": {"kind": "volume"},
        },
        "findings": list(findings),
    }
    return parse_manifest(content, source="test")


def segment(key: str = "bleed", label: int = 1, **changes: Any) -> dict[str, Any]:
    return {"key": key, "code": CODE, "segment": {"label": label, "type": CODE}} | changes


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return load_volume(write_all(axial_series(head_with_lesion()[0]), tmp_path))


def probabilities(volume: Volume, *blocks: tuple[tuple[slice, ...], float]) -> ModelOutput:
    values = np.full((1, *volume.values.shape), 0.1, np.float32)
    for where, probability in blocks:
        values[0][where] = probability
    return ModelOutput(probabilities=values)


BIG = np.s_[2:4, 5:9, 5:9]  # 32 voxels
SMALL = np.s_[0:1, 15:16, 10:12]  # 2 voxels


def test_present_finding_has_its_volume_confidence_and_key_images(volume: Volume) -> None:
    output = probabilities(volume, (BIG, 0.9), (np.s_[3:4, 9:10, 5:6], 0.7), (SMALL, 0.99))
    spec = segment(minimum_volume_ml=3 * VOXEL_ML, priority="stat")
    read = interpret_volume(output, volume, manifest(spec))
    (finding,) = read.findings
    assert finding.present
    assert finding.confidence == pytest.approx((32 * 0.9 + 0.7) / 33)
    assert finding.measurements[0].value == pytest.approx(33 * VOXEL_ML, abs=0.001)
    assert finding.measurements[0].unit.value == "mL"
    assert finding.segment_number == 1
    assert finding.priority is Priority.STAT
    assert finding.key_image_uids == (
        volume.sop_instance_uids[3],  # the larger area first
        volume.sop_instance_uids[2],
    )
    assert read.segmentation is not None
    assert int((read.segmentation == 1).sum()) == 33


def test_probabilities_are_kept_where_they_are_wanted_and_only_there(volume: Volume) -> None:
    output = probabilities(volume, (BIG, 0.9), (SMALL, 0.99), (np.s_[1:2, 2:3, 3:4], 0.3))
    spec = segment(minimum_volume_ml=3 * VOXEL_ML)
    assert interpret_volume(output, volume, manifest(spec)).probabilities == {}
    read = interpret_volume(output, volume, manifest(spec), keep_probabilities=True)
    [(key, kept)] = read.probabilities.items()
    assert key == read.findings[0].key
    assert kept.dtype == np.float32
    assert kept[1, 2, 3] == np.float32(0.3)
    assert not kept[SMALL].any()  # its component was dropped
    assert read.segmentation is not None
    np.testing.assert_array_equal(kept >= 0.5, read.segmentation == 1)


def test_what_is_absent_or_labelled_alone_has_no_probabilities(volume: Volume) -> None:
    labels = np.zeros(volume.values.shape, np.uint8)
    labels[BIG] = 1
    for output in (probabilities(volume, (SMALL, 0.4)), ModelOutput(labels=labels)):
        read = interpret_volume(output, volume, manifest(segment()), keep_probabilities=True)
        assert read.probabilities == {}


def test_nothing_found_is_a_finding_too(volume: Volume) -> None:
    read = interpret_volume(probabilities(volume), volume, manifest(segment()))
    (finding,) = read.findings
    assert (finding.present, finding.confidence) == (False, 0.0)
    assert finding.measurements == ()
    assert finding.key_image_uids == ()
    assert read.segmentation is not None
    assert not read.segmentation.any()


def test_component_below_the_smallest_volume_is_dropped(volume: Volume) -> None:
    spec = segment(minimum_volume_ml=3 * VOXEL_ML)
    read = interpret_volume(probabilities(volume, (SMALL, 0.99)), volume, manifest(spec))
    assert not read.findings[0].present


def test_confidence_below_the_threshold_is_absent_and_stated(volume: Volume) -> None:
    output = probabilities(volume, (BIG, 0.6))
    read = interpret_volume(output, volume, manifest(segment(threshold=0.7)))
    assert not read.findings[0].present
    assert read.findings[0].confidence == pytest.approx(0.6)
    assert read.segmentation is not None
    assert not read.segmentation.any()


def test_volume_counts_what_each_uneven_slice_stands_for(tmp_path: Path) -> None:
    series = axial_series(head_with_lesion(slices=4)[0], depths_mm=[0, 5, 6, 13])
    for ds in series:
        ds.SliceThickness = "7"
    uneven = load_volume(write_all(series, tmp_path))
    labels = np.zeros(uneven.values.shape, np.uint8)
    labels[1:3, 5, 5] = 1  # half way to their neighbours: 3 mm and 4 mm
    read = interpret_volume(ModelOutput(labels=labels), uneven, manifest(segment()))
    assert read.findings[0].measurements[0].value == pytest.approx(7 * 0.25 / 1000, abs=0.0005)
    assert read.findings[0].confidence == 1.0


def test_two_segments_and_a_background_channel(volume: Volume) -> None:
    values = np.zeros((3, *volume.values.shape), np.float32)
    values[0] = 1.0
    values[1][BIG], values[2][BIG] = 0.6, 0.9
    values[1][SMALL] = 0.8
    read = interpret_volume(
        ModelOutput(probabilities=values), volume, manifest(segment("a", 1), segment("b", 2))
    )
    assert [f.present for f in read.findings] == [True, True]
    assert [f.segment_number for f in read.findings] == [1, 2]
    assert read.segmentation is not None
    assert (read.segmentation[BIG] == 2).all()  # the more probable one has the voxel
    assert (read.segmentation[SMALL] == 1).all()


def _spoiled(volume: Volume, value: float) -> NDArray[np.float32]:
    values = np.full((1, *volume.values.shape), 0.1, np.float32)
    values[0, 1, 1, 1] = value
    return values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_no_finding(volume: Volume, value: float) -> None:
    with pytest.raises(AnalysisFailedError, match=r"tiny 1\.0\.0 gave values that are not numbers"):
        interpret_volume(
            ModelOutput(probabilities=_spoiled(volume, value)), volume, manifest(segment())
        )


def test_logits_are_no_probabilities(volume: Volume) -> None:
    with pytest.raises(AnalysisFailedError, match=r"from 0\.1 to 7 where probabilities"):
        interpret_volume(
            ModelOutput(probabilities=_spoiled(volume, 7.0)), volume, manifest(segment())
        )


@pytest.mark.parametrize(
    "output",
    [
        ModelOutput(),
        ModelOutput(labels=np.zeros((1, 2, 3), np.uint8)),
        ModelOutput(probabilities=np.zeros(4, np.float32)),
    ],
)
def test_output_of_the_wrong_shape_is_no_finding(volume: Volume, output: ModelOutput) -> None:
    with pytest.raises(AnalysisFailedError, match="gave an output of the shape"):
        interpret_volume(output, volume, manifest(segment()))


def test_channel_that_is_not_there_is_no_finding(volume: Volume) -> None:
    with pytest.raises(AnalysisFailedError, match="gave 1 channels; its manifest reads b from"):
        interpret_volume(probabilities(volume), volume, manifest(segment("a", 1), segment("b", 2)))


def test_lesion_that_fills_the_head_is_impossible(volume: Volume) -> None:
    with pytest.raises(AnalysisFailedError, match=r"impossible volume: Hemorrhage of .* of the bo"):
        interpret_volume(
            probabilities(volume, (np.s_[:, 2:18, 2:-2], 0.9)), volume, manifest(segment())
        )


BRAIN = TissueGate(name="brain", values=Range(minimum=10, maximum=60), minimum_ml=100)


def test_phantom_is_refused_by_what_its_pixels_show(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "head-phantom-multiseries" / "S2010"
    phantom = load_volume([(p.name, p) for p in folder.iterdir()])
    with pytest.raises(InputRefusedError, match=r"only \d+ mL look like brain, at least 100 mL"):
        check_tissue(phantom, [BRAIN])


def test_real_head_passes_the_tissue_gate(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "head-ct-ge"
    head = load_volume([(p.name, p) for p in folder.iterdir()])
    check_tissue(head, [BRAIN.model_copy(update={"minimum_ml": 500})])
