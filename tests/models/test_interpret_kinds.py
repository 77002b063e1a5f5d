"""Boxes, scores of images and measurements become findings, or nothing at all."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.test_interpret import CODE, manifest, segment
from tests.models.test_runners import turned_head
from tests.models.test_volume import ANGLES
from tests.models.tiny import axial_series, head_with_lesion, slice_dataset, write_all
from triage.core.analysis import AnalysisFailedError
from triage.core.manifest import ModelManifest, parse_manifest
from triage.models.interpret import interpret_image, interpret_volume
from triage.models.radiograph import Radiograph, load_radiograph
from triage.models.tensors import ModelOutput
from triage.models.volume import Volume, load_volume

MILLIMETRE = {"value": "mm", "scheme": "UCUM", "meaning": "millimeter"}


def box(key: str = "nodule", label: int = 1, size_mm: float = 0.0, **changes: Any) -> Any:
    source = {"box": {"label": label, "minimum_size_mm": size_mm}}
    return {"key": key, "code": CODE} | source | changes


def channel(index: int, **changes: Any) -> Any:
    return {"key": f"channel-{index}", "code": CODE, "channel": index} | changes


def measured(**present_when: float) -> Any:
    source = {"name": "diameter", "concept": CODE, "unit": MILLIMETRE}
    return {
        "key": "wide",
        "code": CODE,
        "measurement": source | {"present_when": present_when},
    }


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """Six slices of 24 rows and 20 columns, 0.5 mm apart in plane and 5 mm along z."""
    return load_volume(write_all(axial_series(head_with_lesion()[0]), tmp_path))


def boxes(*given: tuple[list[float], int, float]) -> ModelOutput:
    corners = [corner for corner, _, _ in given]
    return ModelOutput(
        boxes=np.array(corners, np.float64).reshape(len(corners), -1 if corners else 6),
        box_labels=np.array([label for _, label, _ in given], np.int64),
        box_scores=np.array([score for _, _, score in given], np.float32),
    )


def test_boxes_of_the_label_count_from_the_threshold_on(volume: Volume) -> None:
    # The volume begins at (-10, -20, 0); its pixels are 0.5 mm wide, its slices 5 mm apart.
    output = boxes(
        ([-8, -18, 9, -7, -17, 11], 1, 0.7),
        ([-6, -16, 14, -5, -15, 16], 1, 0.9),
        ([-6, -16, 14, -5, -15, 16], 1, 0.2),
        ([-6, -16, 0, -5, -15, 1], 2, 0.99),
    )
    said = interpret_volume(output, volume, manifest(box(priority="stat")))
    (finding,) = said.findings
    assert said.segmentation is None
    assert finding.present
    assert finding.confidence == pytest.approx(0.9)
    assert [b.score for b in finding.boxes] == pytest.approx([0.9, 0.7])
    assert finding.key_image_uids == (volume.sop_instance_uids[3], volume.sop_instance_uids[2])
    best = finding.boxes[0]
    assert (best.left, best.top, best.right, best.bottom) == pytest.approx((8.5, 8.5, 10.5, 10.5))
    assert best.lower_mm == (-6, -16, 14)


def test_no_box_of_the_label_is_nothing_found(volume: Volume) -> None:
    for output in (boxes(), boxes(([-8, -18, 9, -7, -17, 11], 2, 0.9))):
        (finding,) = interpret_volume(output, volume, manifest(box())).findings
        assert not finding.present
        assert finding.confidence == 0.0
        assert finding.boxes == ()


def test_box_that_is_too_small_is_dropped(volume: Volume) -> None:
    output = boxes(([-8, -18, 9, -7, -17, 11], 1, 0.7), ([-8, -18, 5, -7, -17, 12], 1, 0.6))
    (finding,) = interpret_volume(output, volume, manifest(box(size_mm=3.0))).findings
    assert [b.score for b in finding.boxes] == pytest.approx([0.6])


@settings(max_examples=25, deadline=None)
@given(
    angles=st.tuples(ANGLES, ANGLES, ANGLES),
    tilt=st.floats(-0.4, 0.4),
    lower=st.tuples(st.integers(0, 4), st.integers(0, 18), st.integers(0, 14)),
    size=st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 5)),
)
def test_box_in_the_patient_lies_around_its_voxels_for_any_affine(
    angles: tuple[float, float, float],
    tilt: float,
    lower: tuple[int, int, int],
    size: tuple[int, int, int],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        turned_head(angles, tilt, Path(folder))
        volume = load_volume([(p.name, p) for p in Path(folder).iterdir()])
    first, last = np.array(lower)[::-1], (np.array(lower) + size)[::-1]  # column, row, slice
    ends = np.array([first, last])
    corners = np.array([[ends[i, 0], ends[j, 1], ends[k, 2]] for i, j, k in np.ndindex(2, 2, 2)])
    placed = corners @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    known = [*placed.min(axis=0), *placed.max(axis=0)]
    (finding,) = interpret_volume(boxes((known, 1, 0.8)), volume, manifest(box())).findings
    (found,) = finding.boxes
    middle = (first[2] + last[2]) / 2
    assert abs(volume.sop_instance_uids.index(found.sop_instance_uid) - middle) <= 0.5
    edge = 0.5 + 1e-4
    assert found.left <= first[0] + edge
    assert found.top <= first[1] + edge
    assert found.right >= last[0] + 0.5 - 1e-4
    assert found.bottom >= last[1] + 0.5 - 1e-4


GOOD = boxes(([-8, -18, 9, -7, -17, 11], 1, 0.7))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"boxes": None}, r"of the shapes \[None, \(1,\), \(1,\)\]"),
        ({"boxes": np.zeros((1, 4))}, r"needed are \(boxes, 6\)"),
        ({"box_labels": np.zeros(2, np.int64)}, "of the shapes"),
        ({"boxes": np.array([[0, 0, 0, 1, 1, np.nan]])}, "values that are not numbers"),
        ({"box_scores": np.array([1.5], np.float32)}, r"from 1\.5 to 1\.5 where probabilities"),
        ({"boxes": np.array([[1.0, 0, 0, 0, 1, 1]])}, "whose first corner is not the lesser one"),
        ({"boxes": np.array([[500.0, 0, 9, 501, 1, 11]])}, "a box outside of the image"),
        ({"boxes": np.array([[-8.0, -18, 900, -7, -17, 911]])}, "a box outside of the image"),
    ],
)
def test_impossible_boxes_are_no_findings(
    volume: Volume, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AnalysisFailedError, match=reason):
        interpret_volume(replace(GOOD, **changes), volume, manifest(box()))


def test_best_images_of_a_series_are_its_key_images(volume: Volume) -> None:
    scores = np.array([[0.1, 0.6, 0.9, 0.2, 0.7, 0.8], [0.1] * 6], np.float32)
    specs = (channel(0, level="image"), channel(1, level="image"))
    output = ModelOutput(image_probabilities=scores)
    first, second = interpret_volume(output, volume, manifest(*specs)).findings
    assert first.present
    assert first.confidence == pytest.approx(0.9)
    assert first.key_image_uids == tuple(volume.sop_instance_uids[i] for i in (2, 5, 4))
    assert not second.present


def test_series_is_classified_as_a_whole(volume: Volume) -> None:
    output = ModelOutput(probabilities=np.array([0.2, 0.8], np.float32))
    findings = interpret_volume(output, volume, manifest(channel(0), channel(1))).findings
    assert [f.present for f in findings] == [False, True]
    assert findings[1].key_image_uids == ()


@pytest.mark.parametrize(
    ("output", "spec", "reason"),
    [
        (ModelOutput(), channel(0), "gave probabilities of the shape None"),
        (ModelOutput(), channel(0, level="image"), "gave image_probabilities of the shape None"),
        (
            ModelOutput(image_probabilities=np.zeros((1, 5), np.float32)),
            channel(0, level="image"),
            r"for \(5,\) images of a series of 6",
        ),
        (ModelOutput(probabilities=np.array([0.5])), channel(1), "reads channel-1 from channel 1"),
        (ModelOutput(probabilities=np.array([np.nan])), channel(0), "that are not numbers"),
        (ModelOutput(probabilities=np.array([1.5])), channel(0), "where probabilities lie"),
    ],
)
def test_scores_that_are_none_are_no_findings(
    volume: Volume, output: ModelOutput, spec: Any, reason: str
) -> None:
    with pytest.raises(AnalysisFailedError, match=reason):
        interpret_volume(output, volume, manifest(spec))


@pytest.mark.parametrize(("value", "present"), [(9.0, False), (10.0, True), (55.0, True)])
def test_measurement_is_present_in_its_range_and_reported_always(
    volume: Volume, value: float, present: bool
) -> None:
    output = ModelOutput(measurements={"diameter": value})
    (finding,) = interpret_volume(output, volume, manifest(measured(minimum=10))).findings
    assert finding.present is present
    assert finding.measurements[0].value == value
    assert finding.measurements[0].unit.value == "mm"


@pytest.mark.parametrize(
    ("given", "reason"),
    [({}, "gave the measurements none"), ({"diameter": np.inf}, "gave inf for diameter")],
)
def test_measurement_that_is_none_is_no_finding(
    volume: Volume, given: dict[str, float], reason: str
) -> None:
    output = ModelOutput(measurements=given)
    with pytest.raises(AnalysisFailedError, match=reason):
        interpret_volume(output, volume, manifest(measured(minimum=10)))


def test_one_model_may_say_several_kinds_at_once(volume: Volume) -> None:
    _, lesion = head_with_lesion()
    output = replace(
        GOOD,
        labels=lesion.astype(np.uint8),
        probabilities=np.array([0.9], np.float32),
        measurements={"diameter": 3.0},
    )
    specs = (segment(), channel(0), box(), measured(maximum=5))
    said = interpret_volume(output, volume, manifest(*specs))
    assert all(finding.present for finding in said.findings)
    assert said.segmentation is not None
    np.testing.assert_array_equal(said.segmentation == 1, lesion)


def image_manifest(*findings: Any) -> ModelManifest:
    content = manifest(channel(0)).model_dump(mode="json")
    content["runner"] |= {"kind": "monai-bundle", "input": {"kind": "image", "size": 32}}
    return parse_manifest(content | {"findings": list(findings)}, source="test")


@pytest.fixture
def radiograph(tmp_path: Path) -> Radiograph:
    pixels = np.arange(64 * 128, dtype=np.int16).reshape(64, 128)
    sources = write_all([slice_dataset(pixels, (0, 0, 0), 1)], tmp_path)
    return load_radiograph(sources, image_manifest(channel(0)).accepts)


def test_box_on_an_image_is_stretched_as_the_image_was(radiograph: Radiograph) -> None:
    output = boxes(([8, 16, 24, 40], 1, 0.7))
    (finding,) = interpret_image(output, radiograph, image_manifest(box())).findings
    (found,) = finding.boxes
    # 128 columns and 64 rows were made 32; what reaches beyond the edge is cut.
    assert (found.left, found.top, found.right, found.bottom) == (32, 32, 96, 64)
    assert found.lower_mm is None
    assert finding.key_image_uids == (radiograph.instance.sop_instance_uid,)


def test_manifest_says_where_a_finding_is_read(volume: Volume) -> None:
    with pytest.raises(Exception, match="level: image is for a channel"):
        manifest(box(level="image"))
    with pytest.raises(Exception, match="present_when needs minimum or maximum"):
        manifest(measured())
