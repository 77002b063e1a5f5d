"""Figures of an evaluation by finding and by group, and the report that a person reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from triage.core.manifest import ModelManifest
from triage.core.proportions import Interval
from triage.models.evaluation import (
    EvaluationError,
    LabelledImage,
    OperatingPoint,
    evaluate_predictions,
    operating_point,
)
from triage.models.labelled import GROUPS, LabelledCase

_MOST_POINTS = 200
Predictions = Mapping[str, Mapping[str, float]]


def figures_of(
    manifest: ModelManifest,
    cases: Sequence[LabelledCase],
    predictions: Predictions,
    *,
    replicates: int = 2000,
) -> dict[str, Any]:
    """Return the figures of a model on labelled cases, ready for JSON.

    Beside those of `evaluate_predictions` for each finding: under "roc" the points of its curve
    as (1 - specificity, sensitivity), and under "groups" the counts by site, scanner and slice
    thickness. Cases whose label is not known are left out of that finding.

    Raises:
        EvaluationError: no case has a prediction.
    """
    answered = [case for case in cases if case.identifier in predictions]
    if not answered:
        raise EvaluationError("No labelled case has a prediction; compare the identifiers.")
    figures: dict[str, Any] = {
        "model": manifest.identity,
        "cases": len(answered),
        "cases_without_prediction": len(cases) - len(answered),
        "patients": len({case.patient_id for case in answered}),
    }
    curves: dict[str, list[tuple[float, float]]] = {}
    groups: list[dict[str, Any]] = []
    for finding in manifest.findings:
        known = [case for case in answered if finding.key in case.labels]
        if not known:
            continue
        images = [_as_image(case, finding.key) for case in known]
        measured = evaluate_predictions(
            images,
            predictions,
            {finding.key: finding.threshold},
            {finding.key: (finding.key,)},
            replicates=replicates,
        )
        figures |= {name: v for name, v in measured.items() if name.startswith(f"{finding.key}.")}
        truth = np.array([case.labels[finding.key] for case in known])
        scores = np.array([predictions[case.identifier][finding.key] for case in known])
        curves[finding.key] = roc_curve(truth, scores)
        groups += _groups(finding.key, known, truth, scores, finding.threshold)
    return {**figures, "roc": curves, "groups": groups}


def _as_image(case: LabelledCase, key: str) -> LabelledImage:
    return LabelledImage(
        case.identifier, case.patient_id, frozenset({key} if case.labels[key] else ())
    )


def roc_curve(truth: Any, scores: Any) -> list[tuple[float, float]]:
    """Return the ROC curve as points (1 - specificity, sensitivity), from (0, 0) to (1, 1).

    Empty without at least one case of each kind.

    >>> roc_curve(np.array([True, False, True]), np.array([0.9, 0.4, 0.3]))
    [(0.0, 0.0), (0.0, 0.5), (1.0, 0.5), (1.0, 1.0)]
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return []
    order = np.argsort(-scores, kind="stable")
    ordered, values = truth[order], scores[order]
    last_of_ties = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    sensitivity = np.cumsum(ordered)[last_of_ties] / positives
    fall_out = np.cumsum(~ordered)[last_of_ties] / negatives
    if len(last_of_ties) > _MOST_POINTS:
        few = np.linspace(0, len(last_of_ties) - 1, _MOST_POINTS).astype(int)
        sensitivity, fall_out = sensitivity[few], fall_out[few]
    points = zip(fall_out.round(4).tolist(), sensitivity.round(4).tolist(), strict=True)
    return [(0.0, 0.0), *points]


def _groups(
    key: str, cases: Sequence[LabelledCase], truth: Any, scores: Any, threshold: float
) -> list[dict[str, Any]]:
    rows = []
    for by in GROUPS:
        for value in sorted({case.groups[by] for case in cases if by in case.groups}):
            chosen = np.array([case.groups.get(by) == value for case in cases])
            point = operating_point(truth[chosen], scores[chosen], threshold)
            rows.append({"finding": key, "by": by, "value": value, **_counts(point)})
    return rows


def _counts(point: OperatingPoint) -> dict[str, Any]:
    return {
        "true_positives": point.true_positives,
        "false_positives": point.false_positives,
        "true_negatives": point.true_negatives,
        "false_negatives": point.false_negatives,
        "sensitivity": point.sensitivity,
        "sensitivity_interval": _ends(point.sensitivity_interval()),
        "specificity": point.specificity,
        "specificity_interval": _ends(point.specificity_interval()),
    }


def _ends(interval: Interval | None) -> tuple[float, float] | None:
    return (interval.low, interval.high) if interval else None


def write_report(figures: Mapping[str, Any], folder: Path, labels_name: str) -> list[Path]:
    """Write `figures.json`, `report.md` and the ROC curves as `roc.svg` and `roc.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "figures.json"
    table.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    report = folder / "report.md"
    report.write_text("\n".join(_report(figures, labels_name)) + "\n", encoding="utf-8")
    return [table, report, *_draw(figures, folder)]


def _report(figures: Mapping[str, Any], labels_name: str) -> list[str]:
    lines = [
        f"# {figures['model']} on {labels_name}",
        "",
        f"{figures['cases']} cases of {figures['patients']} patients; "
        f"{figures['cases_without_prediction']} without a prediction. Intervals are 95 %.",
        "",
        "![ROC curves](roc.svg)",
        "",
        "| finding | positive / negative | AUC | threshold | sensitivity | specificity |",
        "|---|---|---|---|---|---|",
    ]
    for key in figures["roc"]:
        of = {name.removeprefix(f"{key}."): value for name, value in figures.items()}
        lines.append(
            f"| {key} | {of['positives']} / {of['negatives']} | {_with_ends(of, 'auc')} "
            f"| {of['threshold']:g} | {_with_ends(of, 'sensitivity')} "
            f"| {_with_ends(of, 'specificity')} |"
        )
    if figures["groups"]:
        lines += [
            "",
            "| finding | by | value | TP | FP | TN | FN | sensitivity | specificity |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
    for row in figures["groups"]:
        counts = " | ".join(
            str(row[f"{kind}s"])
            for kind in ("true_positive", "false_positive", "true_negative", "false_negative")
        )
        rates = " | ".join(_number(row[rate]) for rate in ("sensitivity", "specificity"))
        by = row["by"].replace("_", " ")
        value = str(row["value"]).replace("|", "/")
        lines.append(f"| {row['finding']} | {by} | {value} | {counts} | {rates} |")
    return lines


def _with_ends(figures: Mapping[str, Any], name: str) -> str:
    value, low, high = (figures.get(n) for n in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return "–"
    ends = f" ({_number(low)} to {_number(high)})" if low is not None else ""
    return f"{_number(value)}{ends}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _draw(figures: Mapping[str, Any], folder: Path) -> list[Path]:
    from matplotlib.figure import Figure  # noqa: PLC0415 (it takes a second)

    drawing = Figure(figsize=(5, 5), layout="constrained")
    axes = drawing.add_subplot(xlabel="1 − specificity", ylabel="sensitivity", aspect="equal")
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for key, points in figures["roc"].items():
        if not points:
            continue
        area = figures.get(f"{key}.auc")
        (line,) = axes.plot(*zip(*points, strict=True), label=f"{key}, AUC {_number(area)}")
        sensitivity, specificity = (
            figures.get(f"{key}.{rate}") for rate in ("sensitivity", "specificity")
        )
        if sensitivity is not None and specificity is not None:
            axes.plot(1 - specificity, sensitivity, "o", color=line.get_color())
    if any(figures["roc"].values()):
        axes.legend(loc="lower right")
    paths = [folder / "roc.svg", folder / "roc.png"]
    for path in paths:
        drawing.savefig(path, dpi=150)
    return paths
