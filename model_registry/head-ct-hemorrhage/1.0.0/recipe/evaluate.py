"""Measure the head CT hemorrhage model on held-out simulated studies.

Run as `python recipe/evaluate.py [--studies N] [--json FILE]`. A study counts as called positive
when a connected component of voxels of probability 0.5 or more has at least the manifest's
`minimum_volume_ml` and a mean probability of at least its `threshold`. Intervals are 95 % Wilson
intervals. `--dicom FOLDER` runs the model on the CT images of a folder instead.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import torch
import yaml
from bundle import PACKAGE, Bundle
from numpy.typing import NDArray
from scipy import ndimage
from studies import Part, draw_plan, make

from triage.models.interpret import interpret_volume
from triage.models.packages import load_package
from triage.models.runners import load_runner
from triage.models.tensors import ModelInput, ModelOutput
from triage.models.volume import EvenGrid, load_volume
from triage.simulator.head_ct import HemorrhageKind

VOXEL_PROBABILITY = 0.5
LARGE_ML = 2.0  # what the model is asked to find reliably


@dataclass(frozen=True)
class OperatingPoint:
    """When a component of bleeding is believed."""

    threshold: float
    minimum_volume_ml: float

    @classmethod
    def of_manifest(cls, package: Path = PACKAGE) -> "OperatingPoint":
        finding = yaml.safe_load((package / "model.yaml").read_text())["findings"][0]
        return cls(float(finding["threshold"]), float(finding["minimum_volume_ml"]))


@dataclass(frozen=True)
class Component:
    """A connected component of probable bleeding; `label` is its number in the labelled volume."""

    label: int
    volume_ml: float
    confidence: float


@dataclass(frozen=True)
class Outcome:
    """What is in a study and what the model made of it; `dice` is over all its bleeding."""

    kind: HemorrhageKind | None  # of the largest bleeding
    volume_ml: float
    components: tuple[Component, ...]
    dice: float

    def confidence(self, minimum_volume_ml: float) -> float:
        big = [c.confidence for c in self.components if c.volume_ml >= minimum_volume_ml]
        return max(big, default=0.0)

    def is_called(self, point: OperatingPoint) -> bool:
        return self.confidence(point.minimum_volume_ml) >= max(point.threshold, 1e-9)

    def called_volume_ml(self, point: OperatingPoint) -> float:
        """Return the volume reported: all components that are large enough, if one is believed."""
        big = [c.volume_ml for c in self.components if c.volume_ml >= point.minimum_volume_ml]
        return sum(big) if self.is_called(point) else 0.0


def components_of(
    probabilities: NDArray[np.float32], voxel_ml: float
) -> tuple[tuple[Component, ...], NDArray[np.int32]]:
    """Return the components of probable bleeding, largest first, and the labelled volume.

    A component's confidence is the mean probability of its voxels.
    """
    labelled, count = ndimage.label(probabilities >= VOXEL_PROBABILITY)
    if count == 0:
        return (), labelled
    numbers = np.arange(1, count + 1)
    sizes = np.bincount(labelled.ravel(), minlength=count + 1)[1:] * voxel_ml
    means = ndimage.mean(probabilities, labelled, numbers)
    found = [
        Component(int(n), float(v), float(m)) for n, v, m in zip(numbers, sizes, means, strict=True)
    ]
    return tuple(sorted(found, key=lambda c: -c.volume_ml)), labelled


@lru_cache(maxsize=1)
def _bundle() -> Bundle:
    torch.set_num_threads(1)
    bundle = Bundle()
    bundle.load_weights()
    return bundle


def examine(part: Part, index: int) -> Outcome:
    """Return the outcome of one simulated study."""
    study = make(draw_plan(part, index))
    probabilities = _bundle().probabilities(study.hu, study.affine)
    voxel_ml = float(np.prod(study.spacing_mm)) / 1000
    components, labelled = components_of(probabilities, voxel_ml)
    kept = np.isin(labelled, [c.label for c in components if c.volume_ml >= 0.1])
    truth = study.labels > 0
    total = kept.sum() + truth.sum()
    dice = float(2 * (kept & truth).sum() / total) if total else 1.0
    largest = max(study.lesions, key=lambda lesion: lesion.volume_ml, default=None)
    return Outcome(largest.kind if largest else None, study.volume_ml, components, dice)


def examine_all(part: Part, count: int) -> list[Outcome]:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(examine, [part] * count, range(count), chunksize=2))


def wilson(hits: int, total: int) -> tuple[float, float, float]:
    """Return a proportion and its 95 % Wilson score interval; NaN where there is nothing to count.

    >>> [round(x, 3) for x in wilson(95, 100)]
    [0.95, 0.888, 0.978]
    """
    if total == 0:
        return float("nan"), float("nan"), float("nan")
    z, p = 1.959964, hits / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * np.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return p, float(centre - half), float(centre + half)


def choose_operating_point(validation_studies: int) -> OperatingPoint:
    """Return the point of best sensitivity for large bleeding plus specificity, on validation.

    Among equals, the one in the middle of the widest run of thresholds is the least fragile.
    """
    outcomes = examine_all("validation", validation_studies)
    thresholds = np.round(np.arange(0.5, 0.96, 0.01), 2)
    best: tuple[float, int, float, OperatingPoint] | None = None
    for minimum in (0.1, 0.2, 0.3, 0.5, 0.75, 1.0):
        values = [_merit(outcomes, OperatingPoint(float(t), minimum)) for t in thresholds]
        top = max(values)
        ties = [float(t) for t, v in zip(thresholds, values, strict=True) if v >= top - 1e-9]
        point = OperatingPoint(ties[len(ties) // 2], minimum)
        candidate = (top, len(ties), -minimum, point)
        if best is None or candidate[:3] > best[:3]:
            best = candidate
    assert best is not None
    return best[3]


def _merit(outcomes: Sequence[Outcome], point: OperatingPoint) -> float:
    large = [o.is_called(point) for o in outcomes if o.volume_ml >= LARGE_ML]
    small = [o.is_called(point) for o in outcomes if 0 < o.volume_ml < LARGE_ML]
    negative = [not o.is_called(point) for o in outcomes if o.kind is None]
    return float(np.mean(large) + np.mean(negative) + 0.1 * np.mean(small or [0]))


def summarize(outcomes: Sequence[Outcome], point: OperatingPoint) -> dict[str, Any]:
    """Return the figures in one flat object; `_low` and `_high` end a 95 % interval."""

    def rate(name: str, those: Iterable[bool]) -> dict[str, Any]:
        calls = list(those)
        return {f"{name}_studies": len(calls)} | _ends(name, wilson(sum(calls), len(calls)))

    large = [o for o in outcomes if o.volume_ml >= LARGE_ML]
    dice = np.array([o.dice for o in large])
    errors = np.array([o.called_volume_ml(point) - o.volume_ml for o in large])
    spread = 1.96 * dice.std(ddof=1) / np.sqrt(len(dice)) if len(dice) > 1 else float("nan")
    positive = [o for o in outcomes if o.kind is not None]
    small = [o for o in positive if o.volume_ml < LARGE_ML]
    figures = {
        "studies": len(outcomes),
        "threshold": point.threshold,
        "minimum_volume_ml": point.minimum_volume_ml,
        **rate("sensitivity_over_2_ml", (o.is_called(point) for o in large)),
        **rate("sensitivity_under_2_ml", (o.is_called(point) for o in small)),
        **rate("specificity", (not o.is_called(point) for o in outcomes if o.kind is None)),
        **_ends("dice_over_2_ml", (dice.mean(), dice.mean() - spread, dice.mean() + spread)),
        "volume_error_ml_median_absolute": round(float(np.median(np.abs(errors))), 3),
        "volume_bias_ml": round(float(errors.mean()), 3),
        "area_under_roc": round(_area_under_roc(outcomes, point), 4),
    }
    for kind in HemorrhageKind:
        these = [o for o in large if o.kind is kind]
        figures |= rate(f"{kind}_sensitivity", (o.is_called(point) for o in these))
        figures[f"{kind}_dice"] = round(float(np.mean([o.dice for o in these] or [0])), 4)
    return figures


def _ends(name: str, interval: tuple[float, float, float]) -> dict[str, float | None]:
    # JSON knows no NaN: where there is nothing to count, there is no figure.
    value, low, high = (None if np.isnan(x) else round(float(x), 4) for x in interval)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _area_under_roc(outcomes: Sequence[Outcome], point: OperatingPoint) -> float:
    scores = [(o.confidence(point.minimum_volume_ml), o.kind is not None) for o in outcomes]
    yes = np.array([s for s, p in scores if p])
    no = np.array([s for s, p in scores if not p])
    better = (yes[:, None] > no[None, :]).mean() + 0.5 * (yes[:, None] == no[None, :]).mean()
    return float(better)


def examine_folder(folder: Path, package: Path = PACKAGE) -> dict[str, Any]:
    """Return what the product says of the CT images in `folder`: the way every study goes."""
    model = load_package(package)
    volume = load_volume([("", path) for path in sorted(folder.iterdir()) if path.is_file()])
    grid = EvenGrid.of(volume)
    model_input = ModelInput(grid.values(volume.values), grid.affine(volume))
    output = load_runner(model, "cpu").run(model_input)
    assert output.probabilities is not None, "the package gives probabilities"
    on_source = ModelOutput(probabilities=grid.probabilities_on_source(output.probabilities))
    (finding,) = interpret_volume(on_source, volume, model.manifest).findings
    return {
        "present": finding.present,
        "confidence": round(finding.confidence, 4),
        "volume_ml": finding.measurements[0].value if finding.measurements else 0.0,
        "remarks": list(volume.remarks),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--studies", type=int, default=200)
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--dicom", type=Path)
    options = arguments.parse_args()
    if options.dicom:
        figures = examine_folder(options.dicom)
    else:
        figures = summarize(examine_all("test", options.studies), OperatingPoint.of_manifest())
    text = json.dumps(figures, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
