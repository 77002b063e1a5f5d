"""The whole way: files in, findings and masks on the source images out."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.models.tiny import (
    NAN_HU,
    WRONG_SHAPE_SLICES,
    axial_series,
    head_with_lesion,
    make_segmentation,
    write_all,
    write_manifest,
)
from triage.core.analysis import AnalysisFailedError, InputRefusedError
from triage.core.priority import Priority
from triage.models.engine import analyse
from triage.models.evaluate import evaluate_model
from triage.models.evaluation import EvaluationError
from triage.models.host import ModelHosts
from triage.models.packages import ModelPackage
from triage.models.previews import write_previews
from triage.models.try_model import try_model
from triage.simulator.radiograph import Examination, Subject, radiograph

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


async def test_series_becomes_findings_with_a_mask_on_its_images(
    hosts: ModelHosts, segmentation: ModelPackage, tmp_path: Path
) -> None:
    values, lesion = head_with_lesion()
    series = axial_series(values)
    analysis = await analyse(hosts, segmentation, write_all(series, tmp_path))
    assert analysis.source_sop_instance_uids == tuple(ds.SOPInstanceUID for ds in series)
    assert analysis.segmentation is not None
    np.testing.assert_array_equal(analysis.segmentation, lesion)
    (finding,) = analysis.findings
    assert (finding.present, finding.priority) == (True, Priority.STAT)
    assert finding.confidence == pytest.approx(1.0)
    expected_ml = lesion.sum() * 0.5 * 0.5 * 5 / 1000
    assert finding.measurements[0].value == pytest.approx(expected_ml, abs=0.001)
    assert finding.key_image_uids[0] == series[3].SOPInstanceUID
    assert set(analysis.timings_s) == {"decode", "infer", "interpret"}
    assert len(analysis.input_sha256) == 64
    assert analysis.probabilities == {}


async def test_probabilities_of_the_mask_come_where_they_are_asked_for(
    hosts: ModelHosts, segmentation: ModelPackage, tmp_path: Path
) -> None:
    values, lesion = head_with_lesion()
    sources = write_all(axial_series(values), tmp_path)
    analysis = await analyse(hosts, segmentation, sources, keep_probabilities=True)
    [finding] = analysis.findings
    np.testing.assert_array_equal(analysis.probabilities[finding.key] >= 0.5, lesion)


async def test_uneven_slices_get_their_own_mask(
    hosts: ModelHosts, segmentation: ModelPackage, tmp_path: Path
) -> None:
    values, lesion = head_with_lesion(slices=7)
    depths = [0.0, 4, 8, 12, 13, 20, 27]
    series = axial_series(values, depths_mm=depths)
    for ds in series:
        ds.SliceThickness = "7"
    analysis = await analyse(hosts, segmentation, write_all(series, tmp_path))
    assert analysis.segmentation is not None
    found = analysis.segmentation > 0
    assert found[lesion].all()
    # Only the slice that lies 1 mm beside the lesion may have caught some of it.
    assert set(np.flatnonzero((found & ~lesion).any(axis=(1, 2)))) <= {4}
    assert analysis.remarks == ("slices at uneven distances, 1 to 7 mm",)


async def test_nan_and_wrong_shape_are_no_findings(
    hosts: ModelHosts, segmentation: ModelPackage, tmp_path: Path
) -> None:
    values, _ = head_with_lesion()
    values[0, 0, 0] = int(NAN_HU)
    with pytest.raises(AnalysisFailedError, match="values that are not numbers"):
        await analyse(hosts, segmentation, write_all(axial_series(values), tmp_path / "nan"))
    values, _ = head_with_lesion(slices=WRONG_SHAPE_SLICES)
    with pytest.raises(AnalysisFailedError, match="the prediction has the shape"):
        await analyse(hosts, segmentation, write_all(axial_series(values), tmp_path / "shape"))


async def test_tissue_that_must_be_shown(hosts: ModelHosts, tmp_path: Path) -> None:
    gate = {"name": "brain", "values": {"minimum": 10, "maximum": 60}, "minimum_ml": 500}
    package = make_segmentation(tmp_path / "package")
    content = package.manifest.model_dump(mode="json")
    content["runner"]["input"]["must_show"] = [gate]
    demanding = write_manifest(package.path, content)
    sources = write_all(axial_series(head_with_lesion()[0]), tmp_path / "series")
    with pytest.raises(InputRefusedError, match="mL look like brain, at least 500 mL are needed"):
        await analyse(hosts, demanding, sources)


async def test_radiograph_becomes_findings_with_heat_maps_on_its_pixels(
    hosts: ModelHosts, classification: ModelPackage, tmp_path: Path
) -> None:
    pixels = np.zeros((60, 80), np.uint8)
    pixels[:, :40] = 153  # 0.6 of full scale
    ds = radiograph(pixels, Subject("P1"), Examination("A1", WHEN))
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    analysis = await analyse(hosts, classification, [(ds.SOPInstanceUID, tmp_path / "a.dcm")])
    left, right = analysis.findings
    assert (left.present, right.present) == (True, False)
    assert left.confidence == pytest.approx(0.6, abs=0.01)
    assert left.key_image_uids == (ds.SOPInstanceUID,)
    assert right.key_image_uids == ()
    assert set(analysis.heat_maps) == {"left", "right"}
    assert analysis.heat_maps["left"].shape == (60, 80)
    assert analysis.heat_maps["left"][30, 10] == pytest.approx(0.6, abs=0.01)
    paths = write_previews(analysis, classification.manifest, tmp_path / "out", window=None)
    assert [p.name for p in paths] == ["left.png"]


def test_model_is_tried_on_a_folder(segmentation: ModelPackage, tmp_path: Path) -> None:
    values, _ = head_with_lesion()
    study = axial_series(values)
    for ds in study:
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.7", "1.2.7.1"
    write_all(study, tmp_path / "dicom" / "deep")
    (tmp_path / "dicom" / "notes.txt").write_text("no DICOM")
    analysis = try_model(segmentation, tmp_path / "dicom")
    paths = write_previews(analysis, segmentation.manifest, tmp_path / "out", window=(40.0, 80.0))
    assert [p.name for p in paths] == ["hemorrhage-1.png", "hemorrhage-2.png"]
    with Image.open(paths[0]) as picture:
        reddest = np.asarray(picture, np.int64)
    assert (reddest[..., 0] - reddest[..., 2] > 40).any()  # the overlay is there


def test_folder_that_the_model_does_not_accept_says_why(
    segmentation: ModelPackage, tmp_path: Path
) -> None:
    with pytest.raises(InputRefusedError, match="has no DICOM instance"):
        try_model(segmentation, tmp_path)
    study = axial_series(head_with_lesion()[0])
    for ds in study:
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "1.2.7", "1.2.7.1", "MR"
    write_all(study, tmp_path)
    with pytest.raises(InputRefusedError, match="modality MR, model accepts CT"):
        try_model(segmentation, tmp_path)


def labelled_folder(tmp_path: Path) -> tuple[Path, Path]:
    """Twelve images, PNG and DICOM in turn, whose left half is bright where the label says so."""
    images = tmp_path / "images"
    images.mkdir()
    rows = []
    for number in range(12):
        is_left = number % 2 == 0
        pixels = np.full((40, 40), 30, np.uint8)
        pixels[:, :20] = 200 if is_left else 20 + number
        name = f"{number:03d}.png"
        if number % 3:
            Image.fromarray(pixels).save(images / name)
        else:
            ds = radiograph(pixels, Subject(f"P{number}"), Examination(f"A{number}", WHEN))
            ds.save_as(images / f"{number:03d}.dcm", enforce_file_format=True)
        rows.append((name, "Left" if is_left else "No Finding", f"P{number}"))
    (images / "011.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "finding_labels", "patient_id"])
        writer.writerows(rows)
    return labels, images


def test_model_is_evaluated_on_labelled_images(
    classification: ModelPackage, tmp_path: Path
) -> None:
    labels, images = labelled_folder(tmp_path)
    seen: list[tuple[int, int]] = []
    figures = evaluate_model(
        classification, labels, images, replicates=50, on_progress=lambda *at: seen.append(at)
    )
    assert figures["cases"] == 11
    assert figures["cases_without_prediction"] == 1  # the broken one is counted, not hidden
    assert figures["left.auc"] == 1.0
    assert figures["left.sensitivity"] == 1.0
    assert "right.auc" not in figures  # the table says nothing about it
    assert seen[-1] == (12, 12)
    with pytest.raises(EvaluationError, match=r"split\.csv is missing"):
        evaluate_model(classification, labels, images, held_out_only=True)
