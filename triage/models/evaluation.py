"""How well a model's predictions agree with labels: pure functions, no engine and no files.

The caller reads the files, runs the model and writes the answer down; here are only the figures
and the join of predictions with a labels table of the form of NIH ChestX-ray14
(`image,finding_labels,patient_id,...`, findings separated by `|`).
"""

import csv
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from triage.core.errors import TriageError
from triage.core.proportions import Interval, wilson_interval

Figure = float | int | str | None
Truth = NDArray[np.bool_]
Scores = NDArray[np.float64]

NO_FINDING = "No Finding"
HELD_OUT = "held_out"
# Image, findings, patient: our name of the column, then the one of NIH's Data_Entry_2017.csv.
LABEL_COLUMNS = (
    ("image", "Image Index"),
    ("finding_labels", "Finding Labels"),
    ("patient_id", "Patient ID"),
)


class EvaluationError(TriageError):
    """Labels, predictions or a split that cannot be evaluated, with what to do about it."""


@dataclass(frozen=True)
class LabelledImage:
    """One row of a labels table: a file name, whose image it is and what it shows."""

    image: str
    patient_id: str
    findings: frozenset[str]


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold does: the four counts, and the two rates they give.

    A rate without any case to measure it on is None.
    """

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def sensitivity(self) -> float | None:
        return _rate(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float | None:
        return _rate(self.true_negatives, self.true_negatives + self.false_positives)

    def sensitivity_interval(self, level: float = 0.95) -> Interval | None:
        """Return the Wilson interval of the sensitivity."""
        return wilson_interval(
            self.true_positives, self.true_positives + self.false_negatives, level
        )

    def specificity_interval(self, level: float = 0.95) -> Interval | None:
        """Return the Wilson interval of the specificity."""
        return wilson_interval(
            self.true_negatives, self.true_negatives + self.false_positives, level
        )


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _column(columns: Collection[str], *names: str) -> str:
    for name in names:
        if name in columns:
            return name
    raise EvaluationError(f"The labels have no column {' or '.join(names)}; add it.")


def parse_labels(lines: Iterable[str]) -> tuple[LabelledImage, ...]:
    """Parse the lines of a labels CSV with the columns image, finding_labels and patient_id.

    The publisher's names Image Index, Finding Labels and Patient ID do as well.

    >>> parse_labels(["image,finding_labels,patient_id", "7_0.png,Edema|Effusion,7"])[0].patient_id
    '7'
    """
    reader = csv.DictReader(lines)
    columns = set(reader.fieldnames or ())
    image, findings, patient_id = (_column(columns, *names) for names in LABEL_COLUMNS)
    labels = tuple(
        LabelledImage(
            image=row[image],
            patient_id=row[patient_id],
            findings=frozenset(row[findings].split("|")) - {"", NO_FINDING},
        )
        for row in reader
    )
    if len({label.image for label in labels}) < len(labels):
        raise EvaluationError("An image has two rows in the labels; leave one.")
    return labels


def parse_held_out(lines: Iterable[str]) -> frozenset[str]:
    """Parse a package's `recipe/split.csv` to the patients that its model never saw.

    Columns patient_id and part; part is `held_out` or `train`.
    """
    reader = csv.DictReader(lines)
    if not {"patient_id", "part"} <= set(reader.fieldnames or ()):
        raise EvaluationError("The split has to have the columns patient_id and part.")
    return frozenset(row["patient_id"] for row in reader if row["part"] == HELD_OUT)


def _cases(truth: ArrayLike, scores: ArrayLike) -> tuple[Truth, Scores]:
    truths = np.asarray(truth, dtype=np.bool_)
    values = np.asarray(scores, dtype=np.float64)
    if truths.ndim != 1 or truths.shape != values.shape:
        raise EvaluationError("Truth and scores have to be two lists of the same length.")
    if not np.isfinite(values).all():
        raise EvaluationError("A score is not a number; leave that image out and count it.")
    return truths, values


def roc_auc(truth: ArrayLike, scores: ArrayLike) -> float | None:
    """Return the chance that a positive case scores above a negative one, ties counting half.

    None without at least one of each. By ranks (Mann & Whitney, 1947).

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    truths, values = _cases(truth, scores)
    positives = int(truths.sum())
    negatives = len(truths) - positives
    if not positives or not negatives:
        return None
    rank_sum = float(scipy.stats.rankdata(values)[truths].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def bootstrap_auc_interval(
    truth: ArrayLike,
    scores: ArrayLike,
    patients: Sequence[str],
    *,
    replicates: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval | None:
    """Return the percentile interval of the AUC when patients, not images, are drawn again.

    Images of one patient resemble each other, so drawing images would make it too narrow.
    Draws without both kinds of case are left out; None where the data themselves lack one.
    """
    truths, values = _cases(truth, scores)
    if len(patients) != len(truths):
        raise EvaluationError("Every score has to have its patient.")
    if roc_auc(truths, values) is None:
        return None
    _, owner = np.unique(np.asarray(patients), return_inverse=True)
    images = [np.flatnonzero(owner == index) for index in range(int(owner.max()) + 1)]
    generator = np.random.default_rng(seed)
    areas = []
    for _ in range(replicates):
        drawn = generator.integers(len(images), size=len(images))
        rows = np.concatenate([images[index] for index in drawn])
        area = roc_auc(truths[rows], values[rows])
        if area is not None:
            areas.append(area)
    if not areas:
        return None
    low, high = np.quantile(areas, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def delong_auc_interval(
    truth: ArrayLike, scores: ArrayLike, *, level: float = 0.95
) -> Interval | None:
    """Return the AUC's interval by the variance of DeLong et al. (Biometrics 44:837, 1988).

    It takes the images as independent: right where each patient has one. None with fewer than
    two cases of either kind.
    """
    truths, values = _cases(truth, scores)
    positive, negative = values[truths], values[~truths]
    if len(positive) < 2 or len(negative) < 2:
        return None
    wins = (positive[:, None] > negative).astype(np.float64)
    wins += 0.5 * (positive[:, None] == negative)
    area = float(wins.mean())
    variance = float(
        np.var(wins.mean(axis=1), ddof=1) / len(positive)
        + np.var(wins.mean(axis=0), ddof=1) / len(negative)
    )
    margin = float(scipy.stats.norm.ppf((1 + level) / 2)) * math.sqrt(variance)
    return Interval(max(0.0, area - margin), min(1.0, area + margin))


def operating_point(truth: ArrayLike, scores: ArrayLike, threshold: float) -> OperatingPoint:
    """Count what calling every score at or above `threshold` positive gets right and wrong."""
    truths, values = _cases(truth, scores)
    called = values >= threshold
    return OperatingPoint(
        true_positives=int((called & truths).sum()),
        false_positives=int((called & ~truths).sum()),
        true_negatives=int((~called & ~truths).sum()),
        false_negatives=int((~called & truths).sum()),
    )


def threshold_for_sensitivity(truth: ArrayLike, scores: ArrayLike, sensitivity: float) -> float:
    """Return the highest threshold that finds at least `sensitivity` of the positives.

    >>> threshold_for_sensitivity([1, 1, 1, 1, 0], [0.9, 0.8, 0.7, 0.2, 0.6], 0.75)
    0.7
    """
    truths, values = _cases(truth, scores)
    if not truths.any() or not 0 < sensitivity <= 1:
        raise EvaluationError("A threshold needs a positive case and a sensitivity in (0, 1].")
    positives = np.sort(values[truths])[::-1]
    # The product of a decimal fraction and a count can exceed a whole number by rounding alone.
    wanted = math.ceil(sensitivity * len(positives) - 1e-9)
    return float(positives[wanted - 1])


def threshold_for_specificity(truth: ArrayLike, scores: ArrayLike, specificity: float) -> float:
    """Return the lowest threshold that clears at least `specificity` of the negatives.

    It lies just above a negative's score, because a score at the threshold is called positive.

    >>> threshold_for_specificity([0, 0, 0, 0, 1], [0.1, 0.2, 0.3, 0.9, 0.6], 0.75) > 0.3
    True
    """
    truths, values = _cases(truth, scores)
    if truths.all() or not 0 < specificity <= 1:
        raise EvaluationError("A threshold needs a negative case and a specificity in (0, 1].")
    negatives = np.sort(values[~truths])
    cleared = math.ceil(specificity * len(negatives) - 1e-9)
    return float(np.nextafter(negatives[cleared - 1], np.inf))


def evaluate_predictions(
    labels: Iterable[LabelledImage],
    predictions: Mapping[str, Mapping[str, float]],
    thresholds: Mapping[str, float],
    positives: Mapping[str, Collection[str]],
    *,
    held_out: Collection[str] | None = None,
    replicates: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Figure]:
    """Return one flat dict of figures, ready for JSON, such as `effusion.auc_low`.

    `predictions` gives each image name its probability per finding, `thresholds` each finding its
    operating point, and `positives` each finding the labels any of which makes an image positive
    (`{"urgent": ("Edema", "Effusion")}`). With `held_out` only those patients count. An image
    without a prediction is counted as such and left out of the figures.
    """
    rows = tuple(labels)
    kept = [row for row in rows if held_out is None or row.patient_id in held_out]
    answered = [row for row in kept if row.image in predictions]
    if not answered:
        raise EvaluationError("No labelled image has a prediction; compare the file names.")
    figures: dict[str, Figure] = {
        "images": len(answered),
        "images_without_prediction": len(kept) - len(answered),
        "images_excluded_by_split": len(rows) - len(kept),
        "patients": len({row.patient_id for row in answered}),
        "confidence_level": level,
        "bootstrap_replicates": replicates,
        "bootstrap_seed": seed,
    }
    patients = [row.patient_id for row in answered]
    for finding, names in positives.items():
        truth = np.array([not row.findings.isdisjoint(names) for row in answered])
        scores = np.array([_score(predictions, row.image, finding) for row in answered])
        area = bootstrap_auc_interval(
            truth, scores, patients, replicates=replicates, seed=seed, level=level
        )
        figures[f"{finding}.positives"] = int(truth.sum())
        figures[f"{finding}.negatives"] = int((~truth).sum())
        figures[f"{finding}.auc"] = roc_auc(truth, scores)
        figures |= _ends(f"{finding}.auc", area)
        figures |= _ends(f"{finding}.auc_delong", delong_auc_interval(truth, scores, level=level))
        if finding in thresholds:
            figures |= _at_threshold(finding, truth, scores, thresholds[finding], level)
    return figures


def _score(predictions: Mapping[str, Mapping[str, float]], image: str, finding: str) -> float:
    try:
        return predictions[image][finding]
    except KeyError:
        raise EvaluationError(f"The prediction of {image} has no {finding}.") from None


def _ends(name: str, interval: Interval | None) -> dict[str, Figure]:
    return {
        f"{name}_low": interval.low if interval else None,
        f"{name}_high": interval.high if interval else None,
    }


def _at_threshold(
    finding: str, truth: Truth, scores: Scores, threshold: float, level: float
) -> dict[str, Figure]:
    point = operating_point(truth, scores, threshold)
    return {
        f"{finding}.threshold": threshold,
        f"{finding}.true_positives": point.true_positives,
        f"{finding}.false_positives": point.false_positives,
        f"{finding}.true_negatives": point.true_negatives,
        f"{finding}.false_negatives": point.false_negatives,
        f"{finding}.sensitivity": point.sensitivity,
        **_ends(f"{finding}.sensitivity", point.sensitivity_interval(level)),
        f"{finding}.specificity": point.specificity,
        **_ends(f"{finding}.specificity", point.specificity_interval(level)),
    }
