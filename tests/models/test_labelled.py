"""Labelled sets of any kind: tables, figures by group, and the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.models.tiny import axial_series, head_with_lesion, write_all
from triage.models.evaluate import evaluate_model
from triage.models.evaluation import EvaluationError
from triage.models.evaluation_report import figures_of, roc_curve, write_report
from triage.models.labelled import LabelledCase, parse_cases
from triage.models.packages import ModelPackage
from triage.settings import WorkerSettings


def test_table_has_a_column_for_each_finding(classification: ModelPackage) -> None:
    lines = [
        "study,left,right,patient_id,site,scanner,slice_thickness",
        "1.2.1,1,0,P1,North,Maker A,1.0",
        "1.2.2,0,,P1,South,,4",
    ]
    first, second = parse_cases(lines, classification.manifest)
    assert first.labels == {"left": True, "right": False}
    assert first.groups == {
        "site": "North",
        "scanner": "Maker A",
        "slice_thickness": "up to 1.5 mm",
    }
    assert (second.labels, second.patient_id) == ({"left": False}, "P1")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["name,left", "a,1"], "no column study_instance_uid or study or image"),
        (["study,lung", "a,1"], "no column for a finding; add one of left, right"),
        (["study,left", "a,yes"], "Line 2 of the labels: left is 'yes'; write 1, 0 or nothing"),
        (["study,left", "a,1", "a,0"], "Two rows of the labels have the same study"),
        (["study,left", ",1"], "Line 2 of the labels: study is empty"),
        (["study,left,slice_thickness", "a,1,thin"], "slice_thickness is 'thin'"),
    ],
)
def test_mistake_in_a_table_is_named(
    classification: ModelPackage, lines: list[str], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        parse_cases(lines, classification.manifest)


def cases_and_predictions() -> tuple[list[LabelledCase], dict[str, dict[str, float]]]:
    cases, predictions = [], {}
    for number in range(40):
        is_left, site = number % 2 == 0, "North" if number < 20 else "South"
        score = 0.9 if is_left else 0.1
        if site == "South" and number % 8 == 0:
            score = 0.2  # missed
        cases.append(LabelledCase(str(number), f"P{number}", {"left": is_left}, {"site": site}))
        predictions[str(number)] = {"left": score, "right": 0.0}
    return cases, predictions


def test_figures_are_given_by_site(classification: ModelPackage, tmp_path: Path) -> None:
    cases, predictions = cases_and_predictions()
    figures = figures_of(classification.manifest, cases, predictions, replicates=20)
    assert figures["left.positives"] == 20
    assert figures["left.sensitivity"] == pytest.approx(0.9, abs=0.06)
    assert "right.auc" not in figures  # nobody said anything about it
    north, south = figures["groups"]
    assert (north["value"], north["sensitivity"], north["false_negatives"]) == ("North", 1.0, 0)
    assert (south["value"], south["false_negatives"]) == ("South", 2)
    written = write_report(figures, tmp_path / "report", "labels.csv")
    assert [p.name for p in written] == ["figures.json", "report.md", "roc.svg", "roc.png"]
    assert json.loads(written[0].read_text())["cases"] == 40
    report = written[1].read_text()
    assert "| left | 20 / 20 |" in report
    assert "| left | site | South |" in report
    assert written[3].read_bytes().startswith(b"\x89PNG")


def test_curve_goes_through_ties_in_one_step_and_stays_short() -> None:
    assert roc_curve(np.array([True, False]), np.array([0.5, 0.5])) == [(0.0, 0.0), (1.0, 1.0)]
    assert roc_curve(np.array([True]), np.array([0.5])) == []
    many = np.random.default_rng(1)
    points = roc_curve(many.random(5000) > 0.5, many.random(5000))
    assert len(points) <= 202
    assert points[-1] == (1.0, 1.0)


def test_studies_are_found_by_their_uid_or_their_folder(
    segmentation: ModelPackage, tmp_path: Path
) -> None:
    values, _ = head_with_lesion()
    quiet = np.minimum(values, 40)
    for name, uid, content in (("a", "1.2.71", values), ("b", "1.2.72", quiet)):
        series = axial_series(content)
        for number, image in enumerate(series):
            image.StudyInstanceUID, image.SeriesInstanceUID = uid, f"{uid}.1"
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{uid}.2.{number}"
            image.Manufacturer, image.ManufacturerModelName = "Maker", "One"
            image.SliceThickness = 5
        write_all(series, tmp_path / "images" / name)
    labels = tmp_path / "labels.csv"
    labels.write_text("study,hemorrhage\n1.2.71,1\nb,0\nmissing,1\n")
    figures = evaluate_model(
        segmentation,
        labels,
        tmp_path / "images",
        replicates=10,
        worker=WorkerSettings(device="cpu"),
    )
    assert (figures["cases"], figures["cases_without_prediction"]) == (2, 1)
    assert (figures["hemorrhage.true_positives"], figures["hemorrhage.true_negatives"]) == (1, 1)
    assert {row["value"] for row in figures["groups"]} == {"Maker One", "3 to 5 mm"}
